"""A submission against the truth, by the competition's rules.

Reads submission files and truth tables, from folders or as single CSV files of any name: columns tell what each is.
Nothing is scored before every file holds what it must; all that is wrong with them is said in one message.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from model.metrics import FINAL_ITEMS, PRELIMINARY_ITEMS, Score, final_score, preliminary_score, total_score
from processing import columns as c
from processing.acuity import parse_decimal_va
from processing.errors import PipelineError
from processing.pasted import read_path, show, strip_pasted
from processing.reader import CellError, number, parse_table, read_header
from processing.tables import TEMPLATE_PARSERS

# What says which row is meant; the image number is the template's own
KEYS = {file: {column: parse for column, parse in keys.items() if column != c.IMAGE_NUMBER}
        for file, keys in TEMPLATE_PARSERS.items()}
LEAST_VA = {c.STAGE1: -0.3, c.STAGE2_CASE: 0}       # logMAR: the best line of a chart; decimal: no light perception
MAX_FAULTS_SHOWN = 1000                         # of a file: more eyes than either round has


# ---- What a cell may hold

def _parse_thickness(cell):
    return _check_least(0, number(cell))


def _parse_true_thickness(cell):
    value = number(cell)
    if value == 0:
        raise CellError("a thickness is more than 0; leave the cell empty where it is unknown")
    return _check_least(0, value)


def _make_acuity_parser(file):
    def parse(cell):
        return _check_least(LEAST_VA[file], parse_decimal_va(cell) if file == c.STAGE2_CASE else number(cell))
    return parse


def _parse_probability(cell):
    value = _check_least(0, number(cell))
    if value > 1:
        raise CellError("a probability, 0 to 1, is wanted")
    return value


def _parse_label(cell):
    """0 or 1; NaN where it is missing."""
    value = number(cell)
    if value not in (0, 1) and not np.isnan(value):
        raise CellError("0 or 1 is wanted, or an empty cell where it is unknown")
    return value


def _parse_continued(cell):
    """As _parse_label, but a whole number above 1 counts as 1: annotation tables hold a 6, and training takes it so."""
    value = number(cell)
    return 1.0 if value > 1 and value.is_integer() else _parse_label(cell)


def _check_least(least, value):
    if value < least:
        raise CellError(f"{least} or more is wanted")
    return value


def _list_parsers(file):
    """Parsers of a file's scored columns: in a truth, in a submission."""
    truth, answers = {}, {}
    for column, rule in FINAL_ITEMS[file].items():
        if rule == "thickness":
            truth[column], answers[column] = _parse_true_thickness, _parse_thickness
        elif rule == "acuity":
            truth[column] = answers[column] = _make_acuity_parser(file)
        else:
            truth[column] = _parse_continued if column == c.CONTINUE else _parse_label
            answers[column] = _parse_probability
    return truth, {column: _refuse_empty(parse) for column, parse in answers.items()}


def _refuse_empty(parse):
    """`parse`, but an empty cell is a fault: every row is to be answered."""
    def parse_answer(cell):
        value = parse(cell)
        if np.isnan(value):
            raise CellError("a number is wanted")
        return value
    return parse_answer


# ---- Scores

def describe_scores(submission: list[str | Path], truth: list[str | Path]) -> str:
    """Score a submission: the table of items, the total and the preliminary round's points, as text.

    Args:
        submission, truth: lists of folders and CSV files: submission files, or tables of the same rows with the true
            values (annotation tables will do). Empty cells of the truth, and rows of it that contradict each other,
            do not count.

    Raises:
        PipelineError: no file in common, a file twice; or one message with every column, row and cell at fault.
    """
    pairs, notes = read_pairs(submission, truth)
    scores = final_score(pairs)
    is_known = np.isfinite(np.array(list(scores.values()), float))
    if not is_known.any():
        raise PipelineError("\n".join(["Nothing can be scored: no item of the truth is known.", *notes]))
    lines = [f"{'file':24}{'item':20}{'score':>8}{'rows':>8}"]
    for (file, column), score in scores.items():
        known = int(pairs[file][0][column].notna().sum())
        lines.append(f"{file:24}{column:20}{_format(score):>8}{known:>8}")
    count = sum(len(items) for items in FINAL_ITEMS.values())
    defined = int(is_known.sum())
    name = "total, final round" if defined == count else f"mean of {defined} of the final round's {count} items"
    lines.append(f"{name:44}{_format(total_score(scores)):>8}")
    if c.STAGE1 in pairs and PRELIMINARY_ITEMS.keys() <= set(pairs[c.STAGE1][0].columns):
        points = preliminary_score(*pairs[c.STAGE1])
        most = int(pairs[c.STAGE1][0][list(PRELIMINARY_ITEMS)].notna().sum().sum())
        lines.append(f"{'points, preliminary round':44}{points['total']:>8.0f} of {most}")
    notes += [f"{file} is not scored: not in both." for file in KEYS if file not in pairs]
    for (file, column), score in scores.items():
        if np.isnan(score):
            why = "does not have both classes" if pairs[file][0][column].notna().any() else "is not known for any row"
            notes.append(f"{file}: {column} has no score: its truth {why}.")
    return "\n".join([*lines, *notes])


def describe_match(submission: Path, truth: Path) -> str:
    """Say in one line how well a submission matches the truth: two folders."""
    pairs, _ = read_pairs([submission], [truth])
    means: dict[str, list[Score]] = {}
    for (_, column), score in final_score(pairs).items():
        means.setdefault(column, []).append(score)
    items = ", ".join(f"{column} {np.nanmean(np.array(values, float)):.2f}" for column, values in means.items())
    thickness = [[table[[c.PRE_CST, c.CST]].to_numpy().ravel() for table in pairs[name]]
                 for name in (c.STAGE1, c.STAGE2_CASE)]
    true, predicted = (np.concatenate(side) for side in zip(*thickness, strict=True))
    error, correlation = np.abs(predicted - true).mean(), np.corrcoef(predicted, true)[0, 1]
    return f"thickness off by {error:.0f} um on average, r = {correlation:.2f}; scores: {items}"


def read_pairs(
    submission: list[str | Path], truth: list[str | Path]
) -> tuple[dict[str, tuple[pd.DataFrame, pd.DataFrame]], list[str]]:
    """Read truth and submission of the same rows. Arguments and errors are those of describe_scores.

    Returns:
        pairs: dict of submission file -> (truth, submission), DataFrames indexed by the file's keys, with the columns
            that are scored and that the truth has.
        notes: list of lines on what of the truth does not count.
    """
    answers, truths = _find_files(submission, "submission"), _find_files(truth, "truth")
    common = [name for name in KEYS if name in answers and name in truths]
    if not common:
        places = [", ".join(map(str, side)) for side in (submission, truth)]
        raise PipelineError(
            f"Nothing can be scored: {places[0]} holds {', '.join(answers) or 'no submission file'} and "
            f"{places[1]} {', '.join(truths) or 'none'}; they have no file in common. Known are "
            f"{', '.join(KEYS)}, or CSV files with their columns."
        )
    same = [str(answers[name]) for name in common if answers[name].samefile(truths[name])]
    if same:
        raise PipelineError(f"{', '.join(same)}: named as the submission and as its truth; nothing is scored.")
    pairs, faults, notes = {}, [], []
    for name in common:
        pairs[name], wrong, remarks = _read_pair(name, answers[name], truths[name])
        faults += wrong
        notes += remarks
    if faults:
        raise PipelineError("Nothing is scored; correct this first:\n  " + "\n  ".join(faults))
    return pairs, notes


def _find_files(places, what):
    """dict of submission file -> the path that holds its columns."""
    found = {}
    if not all(strip_pasted(str(place)) for place in places):
        raise PipelineError(f"An empty name was given for the {what}; name a folder or CSV files.")
    for place in (Path(read_path(str(place))) for place in places):
        if not os.path.exists(place):
            raise PipelineError(f"{show(place)} is not there.")
        if place.suffix.lower() == ".zip":
            raise PipelineError(f"{place} is an archive: unpack it, and name the folder or its CSV files.")
        tables = [file for file in place.iterdir() if file.suffix.lower() == ".csv"] if place.is_dir() else [place]
        for file in sorted(tables):
            name = _recognise(file)
            if name and found.setdefault(name, file) != file:
                raise PipelineError(f"The {what} has {name} twice: {found[name]} and {file}. Name one.")
            if name is None and not place.is_dir():
                raise PipelineError(f"{file} is no CSV file with the columns of a submission file; {', '.join(KEYS)} "
                                    "are known.")
    return found


def _recognise(file):
    """Which submission file a table is, by its name or else by its columns, or None."""
    if file.name.lower() in KEYS:
        return file.name.lower()
    header = {name.strip().lower() for name in read_header(file)}
    if c.IMAGE in header and "irf" in header:
        return c.STAGE2_PIC
    if c.PATIENT.lower() in header and c.CST.lower() in header:
        return c.STAGE1 if "irf" in header else c.STAGE2_CASE
    return None


def _read_pair(name, answer_file, true_file):
    """The pair (None where something is wrong), what is wrong, and what does not count: lists of lines."""
    keys = list(KEYS[name])
    for_truth, for_answers = _list_parsers(name)
    header = {column.strip().lower() for column in read_header(true_file)}
    there = [column for column in for_truth if column.lower() in header]
    true, faults = _read(true_file, KEYS[name], {column: for_truth[column] for column in there},
                         unique=[] if name == c.STAGE2_PIC else keys)
    answers, more = _read(answer_file, KEYS[name], {column: for_answers[column] for column in there}, unique=keys)
    faults += more
    if not there:
        faults.append(f"{true_file}: it has none of {', '.join(for_truth)}")
    if len(true) and len(answers) and set(keys) <= set(true) and set(keys) <= set(answers):
        faults += _compare_keys(answers, answer_file, true, true_file, keys)
    if faults:
        return None, faults, []
    once = true.drop_duplicates()
    kept = once[~once.duplicated(keys, keep=False)].set_index(keys)     # contradicting rows are no truth
    notes = _note_gaps(true_file, once, kept)
    absent = [column for column in for_truth if column not in there]
    if absent:
        notes.append(f"{true_file} lacks {', '.join(absent)}: not scored.")
    return (kept, answers.set_index(keys).loc[kept.index]), [], notes


def _read(file, keys, parsers, *, unique):
    """The table, without rows whose keys are faulty, and its faults as lines."""
    table, faults = parse_table(file, keys | parsers, unique=unique)
    lines = [f"{file}: {fault}" for fault in faults[:MAX_FAULTS_SHOWN]]
    if len(faults) > MAX_FAULTS_SHOWN:
        lines.append(f"{file}: and {len(faults) - MAX_FAULTS_SHOWN} more")
    return table.dropna(subset=list(table.columns.intersection(list(keys)))), lines


def _compare_keys(answers, answer_file, true, true_file, keys):
    """A line for the rows of the truth that are not answered, and one for those that only the submission has."""
    asked, given = (table.set_index(keys).index.unique() for table in (true, answers))
    lines = []
    for file, missing, other in ((answer_file, asked.difference(given), true_file),
                                 (true_file, given.difference(asked), answer_file)):
        if len(missing):
            shown = [" ".join(key) if isinstance(key, tuple) else key for key in missing[:MAX_FAULTS_SHOWN]]
            more = len(missing) - len(shown)
            lines.append(f"{file}: {len(missing)} rows of {other} are missing: {', '.join(shown)}"
                         + (f" and {more} more" if more else ""))
    return lines


def _note_gaps(file, once, kept):
    """What of a truth does not count, as lines."""
    notes = []
    if len(kept) < len(once):
        notes.append(f"{file}: {len(once) - len(kept)} rows contradict each other and do not count.")
    gaps = {column: count for column, count in kept.isna().sum().items() if count}
    if gaps:
        missing = ", ".join(f"{column} {count}" for column, count in gaps.items())
        notes.append(f"{file}: empty cells do not count ({missing}).")
    return notes


def _format(score):
    return "-" if np.isnan(score) else f"{score:.4f}"
