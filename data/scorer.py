"""A submission against the truth, by the competition's rules.

Reads submission files and truth tables, from folders or as single CSV files of any name: columns tell what each is.
"""

from pathlib import Path

import numpy as np

from model.metrics import FINAL_ITEMS, PRELIMINARY_ITEMS, final_score, preliminary_score, total_score
from processing.errors import PipelineError
from processing.reader import number, read_header, read_table, text
from processing.tables import (
    CST,
    IMAGE,
    INJECTION,
    PATIENT,
    PRE_CST,
    STAGE1,
    STAGE2_CASE,
    STAGE2_PIC,
    parse_patient,
    parse_visit,
)

KEYS = {
    STAGE1: {PATIENT: parse_patient},
    STAGE2_CASE: {PATIENT: parse_patient},
    STAGE2_PIC: {PATIENT: parse_patient, INJECTION: parse_visit, IMAGE: text},
}


def score_submission(submission, truth):
    """The items of the final round's score, of the files that both have.

    Args:
        submission, truth: lists of folders and CSV files: submission files, or tables of the same rows with the true
            values (annotation tables will do). Rows of the submission whose truth is not there do not count.

    Returns:
        dict of (submission file, column) -> score in 0-1, NaN where it is not defined.

    Raises:
        PipelineError: no file in common, a file twice, a faulty table, a row of the truth that is not answered.
    """
    return final_score(read_pairs(submission, truth))


def describe_scores(submission, truth):
    """The table of items, the total and the preliminary round's points, as text; arguments as for score_submission."""
    pairs = read_pairs(submission, truth)
    scores = final_score(pairs)
    lines = [f"{'file':24}{'item':20}{'score':>8}{'rows':>8}"]
    for (file, column), score in scores.items():
        known = int(pairs[file][0][column].notna().sum())
        lines.append(f"{file:24}{column:20}{_shown(score):>8}{known:>8}")
    count = sum(len(items) for items in FINAL_ITEMS.values())
    defined = int(np.isfinite(list(scores.values())).sum())
    of = "" if defined == count else f" (mean of the {defined} items that are defined, of {count})"
    lines.append(f"{'total, final round':44}{_shown(total_score(scores)):>8}{of}")
    if STAGE1 in pairs and PRELIMINARY_ITEMS.keys() <= set(pairs[STAGE1][0].columns):
        points = preliminary_score(*pairs[STAGE1])
        most = int(pairs[STAGE1][0][list(PRELIMINARY_ITEMS)].notna().sum().sum())
        lines.append(f"{'points, preliminary round':44}{points['total']:>8.0f} of {most}")
    return "\n".join(lines)


def describe_match(submission, truth):
    """One line that says how well a submission matches the truth: folders."""
    pairs = read_pairs([submission], [truth])
    means = {}
    for (_, column), score in final_score(pairs).items():
        means.setdefault(column, []).append(score)
    items = ", ".join(f"{column} {np.nanmean(values):.2f}" for column, values in means.items())
    thickness = [[table[[PRE_CST, CST]].to_numpy().ravel() for table in pairs[name]] for name in (STAGE1, STAGE2_CASE)]
    true, predicted = (np.concatenate(side) for side in zip(*thickness, strict=True))
    error, correlation = np.abs(predicted - true).mean(), np.corrcoef(predicted, true)[0, 1]
    return f"thickness off by {error:.0f} um on average, r = {correlation:.2f}; scores: {items}"


def read_pairs(submission, truth):
    """Truth and submission of the same rows.

    Returns:
        dict of submission file -> (truth, submission), DataFrames indexed by the file's keys, with the columns that
        are scored and that the truth has.
    """
    answers, truths = _find_files(submission, "submission"), _find_files(truth, "truth")
    common = [name for name in KEYS if name in answers and name in truths]
    if not common:
        raise PipelineError(
            f"Nothing can be scored: the submission has {', '.join(answers) or 'no file'} and the truth "
            f"{', '.join(truths) or 'no file'}; they have no file in common."
        )
    return {name: _read_pair(name, answers[name], truths[name]) for name in common}


def _find_files(places, what):
    """dict of submission file -> the path that holds its columns."""
    found = {}
    for place in map(Path, places):
        if not place.exists():
            raise PipelineError(f"{place} is not there.")
        for file in sorted(place.glob("*.csv")) if place.is_dir() else [place]:
            name = _recognise(file)
            if name and found.setdefault(name, file) != file:
                raise PipelineError(f"The {what} has {name} twice: {found[name]} and {file}. Name one.")
            if name is None and not place.is_dir():
                raise PipelineError(f"{file} has the columns of no submission file; {', '.join(KEYS)} are known.")
    return found


def _recognise(file):
    """Which submission file a table is, by its name or else by its columns, or None."""
    if file.name.lower() in KEYS:
        return file.name.lower()
    header = {name.strip().lower() for name in read_header(file)}
    if IMAGE in header and "irf" in header:
        return STAGE2_PIC
    if PATIENT.lower() in header and CST.lower() in header:
        return STAGE1 if "irf" in header else STAGE2_CASE
    return None


def _read_pair(name, answer_file, true_file):
    headers = [{column.strip().lower() for column in read_header(file)} for file in (answer_file, true_file)]
    columns = [column for column in FINAL_ITEMS[name] if column.lower() in headers[1]]
    absent = [column for column in columns if column.lower() not in headers[0]]
    if absent:      # a score without them would be over fewer items, and look better or worse than it is
        raise PipelineError(f"{answer_file} lacks {', '.join(absent)}, which {true_file} has; nothing is scored.")
    parsers = KEYS[name] | dict.fromkeys(columns, number)
    keys = list(KEYS[name])
    unique = {answer_file: keys, true_file: [] if name == STAGE2_PIC else keys}
    answers, true = (read_table(file, parsers, unique=unique[file]) for file in (answer_file, true_file))
    true, answers = _without_contradictions(true, keys).set_index(keys), answers.set_index(keys)
    unanswered = true.index.difference(answers.index)
    if len(unanswered):
        raise PipelineError(f"{answer_file} does not answer {len(unanswered)} rows of {true_file}, the first is "
                            f"{unanswered[0]}.")
    answers = answers.loc[true.index]
    gaps = answers.columns[answers.isna().any()]
    if len(gaps):
        raise PipelineError(f"{answer_file} has no value in some rows of {', '.join(gaps)}; fill them in.")
    return true, answers


def _without_contradictions(true, keys):
    """Truth with one row per key; rows of one key that contradict each other are left out."""
    once = true.drop_duplicates()
    return once[~once.duplicated(keys, keep=False)]


def _shown(score):
    return "-" if np.isnan(score) else f"{score:.4f}"
