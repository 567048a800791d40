"""Submissions: 500 generated cases of odd templates, test tables and predictions.

Either three valid files and their zip, or none and a PipelineError. The validator here shares no code with the writer.
"""

import contextlib
import csv
import io
import math
import random
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pandas as pd

import config
from data import predict
from data.pipeline import CSV_MODEL, Loaded
from model.means import fill_rounds
from processing import columns as c
from processing.errors import PipelineError
from tests.faults import Figure, scaled

CASES = 500
PRE, POST = "Pre injection", "Post injection"
FILES = {
    "submit_stage1.csv": ["patient ID", "preCST", "VA", "continue injection", "CST", "IRF", "SRF", "HRF"],
    "submit_stage2_case.csv": ["patient ID", "VA", "continue injection", "preCST", "CST"],
    "submit_stage2_pic.csv": ["image number", "patient ID", "injection", "image name", "IRF", "SRF", "PED", "HRF"],
}
STAGE1, STAGE2_CASE, STAGE2_PIC = FILES
TEXTS = ("image number", "patient ID", "injection", "image name")
PROBABILITIES = ("continue injection", "IRF", "SRF", "PED", "HRF", "preHRF")
MEANS = {
    "gender": 1.5, "age": 65.0, "diagnosis": 3.0, "anti-VEGF": 2.0, "L0R1": 0.5, "preVA": 0.4, "preCST": 400.0,
    "CST": 300.0, "VA": 0.5, "continue injection": 0.4,
    **{f"{when}{name}": 0.25 for when in ("", "pre") for name in ("IRF", "SRF", "PED", "HRF")},
}
MADE = ("doubled eye", "doubled number", "empty cell", "missing column", "unknown column", "no answers",
        "doubled image", "bad image", "bad eye")


class Case(NamedTuple):
    """A test table, templates and what the models say."""

    test: list              # rows as dicts
    templates: dict         # file -> rows as dicts; a file that is not there has no key
    headers: dict           # file -> the columns of its template, in their order
    bad_images: dict        # processed_path -> what is no prediction
    bad_eyes: dict          # patient ID -> what is no prediction
    means: bool             # whether Model-CSV carries its training means
    must_fail: bool         # whether these templates, rows or predictions must be refused
    may_fail: bool          # whether they may be


def submissions(share, folder):
    """Odd templates, test tables and predictions: three valid files or none."""
    wrong, written, count = [], 0, scaled(CASES, share)
    for number in range(count):
        root = folder / str(number)
        case = _generate(random.Random(f"submissions {number}"))
        _write(case, root)
        reason, done = _check(case, config.Paths(root))
        written += done
        if reason:
            wrong.append(f"case {number}: {reason}")
    text = "odd templates, test tables and predictions: three valid files, or none and one sentence"
    detail = f"{written} written, {count - written} refused" + "".join(f"; {reason}" for reason in wrong[:5])
    return Figure(text, count, count - len(wrong), detail)


FIGURES = [submissions]


# ---- Cases

def _generate(rng):
    rounds = rng.choice([(0, 1), (0, 1), (0, 1), (0,), (1,)])
    eyes = {final: _name_eyes(final, rng) for final in rounds}
    test = [row for final in rounds for eye in eyes[final] for row in _invent_images(eye, final, rng)]
    templates = {
        STAGE1: [{"patient ID": eye} for eye in eyes.get(0, ())],
        STAGE2_CASE: [{"patient ID": eye} for eye in eyes.get(1, ())],
        STAGE2_PIC: [
            {"patient ID": row["patient ID"], "injection": row["injection"], "image name": row["image name"]}
            for row in test if row["final"]
        ],
    }
    for name in list(templates):
        if not templates[name] or rng.random() < 0.15:
            del templates[name]
    for rows in templates.values():
        _disorder(rows, rng)
    for number, row in enumerate(templates.get(STAGE2_PIC, ()), start=1):
        row["image number"] = str(number)
    test = _thin(test, rng)
    rng.shuffle(test)
    means = rng.random() < 0.8
    headers = {name: _draw_header(name, rng) for name in templates}
    case = Case(test, templates, headers, {}, {}, means, must_fail=False, may_fail=not means)
    return _spoil(case, rng) if rng.random() < 0.5 else case


def _draw_header(name, rng):
    """The file's columns, or in another order, or some of its answers away and others asked for."""
    header = list(FILES[name])
    if rng.random() < 0.3:
        rng.shuffle(header)
    if rng.random() < 0.3:
        answers = [column for column in header if column not in TEXTS]
        header.remove(rng.choice(answers))
        header += [] if name == STAGE2_PIC else ["preHRF"]
    return header


def _name_eyes(final, rng):
    numbers = rng.sample(range(1, 1000), rng.randint(2, 5))
    return [f"{number}{rng.choice('LR')}" if final else f"0000-{number:04}{rng.choice('LR')}" for number in numbers]


def _invent_images(eye, final, rng):
    clinical = {
        "patient ID": eye, "gender": rng.randint(1, 2), "age": rng.randint(40, 90), "diagnosis": rng.randint(1, 5),
        "anti-VEGF": rng.randint(0, 6), "preVA": round(rng.random(), 2), "L0R1": int(eye[-1] == "R"),
    }
    rows = []
    for after in (0, 1):
        for name in rng.sample(["0012", "35 (13)", "127. (16)", "1e5", "139- 1_000012", "好, 1"], rng.randint(1, 3)):
            place = f"data/processed/img/test/{eye}_{final}_{after}_{name}.jpg"
            rows.append(clinical | {
                "injection": POST if after else PRE, "image name": name, "after": after, "final": final,
                "data_type": "test", "processed_path": place, "source_path": place.replace("processed", "source"),
            })
    return rows


def _disorder(rows, rng):
    """Some rows away, some of eyes or images that nobody has seen, another order."""
    if rng.random() < 0.5:
        rng.shuffle(rows)
    if rng.random() < 0.3 and len(rows) > 1:
        del rows[: rng.randint(1, len(rows) - 1)]
    if rng.random() < 0.4:
        for number in range(rng.randint(1, 3)):
            row = dict(rng.choice(rows))
            row.update({"image name": f"lost {number}"} if "image name" in row and rng.random() < 0.5
                       else {"patient ID": f"{9000 + number}L"})
            rows.insert(rng.randint(0, len(rows)), row)


def _thin(test, rng):
    """The test table without some images, without an eye, or without a visit."""
    kept = [row for row in test if rng.random() > rng.choice([0, 0, 0.2])]
    away = rng.random()
    if away < 0.2:
        eye = rng.choice(test)["patient ID"]
        kept = [row for row in kept if row["patient ID"] != eye]
    elif away < 0.4:
        after = rng.randint(0, 1)
        kept = [row for row in kept if row["after"] != after]
    return kept or test[:1]


def _spoil(case, rng):
    """One thing that must not come through, or (predictions of eyes that nobody asked for) may be refused."""
    what, templates = rng.choice(MADE), [rows for rows in case.templates.values() if rows]
    if what in MADE[:6] and not templates:
        return case
    if what == "doubled eye":
        names = [name for name in case.templates if name != STAGE2_PIC]
        if not names:
            return case
        rows = case.templates[rng.choice(names)]
        rows.append({"patient ID": rng.choice([str.lower, str.upper])(rng.choice(rows)["patient ID"])})
    elif what == "doubled number":
        rows = case.templates.get(STAGE2_PIC, ())
        if len(rows) < 2:
            return case
        rows[-1]["image number"] = rows[0]["image number"]
    elif what == "empty cell":
        row = rng.choice(rng.choice(templates))
        row[rng.choice(sorted(row))] = rng.choice(["", "nan"])
    elif what in ("missing column", "unknown column", "no answers"):
        header = case.headers[rng.choice([name for name, rows in case.templates.items() if rows])]
        keys = [column for column in header if column in TEXTS]
        if what == "missing column":
            header.remove(rng.choice(keys))
        elif what == "unknown column":
            header.insert(rng.randint(0, len(header)), rng.choice(["note", "IRF2", "gender", "CST after"]))
        else:
            header[:] = keys
    elif what == "doubled image":
        case.test.append(dict(rng.choice(case.test)))
        return case._replace(may_fail=True)
    else:
        return _spoil_prediction(case, what, rng)
    return case._replace(must_fail=True)


def _spoil_prediction(case, what, rng):
    row = rng.choice(case.test)
    values = (math.nan, math.inf, -math.inf) if what == "bad image" else (math.nan, math.inf)
    if what == "bad image":
        case.bad_images[row["processed_path"]] = rng.choice(values)
    else:
        case.bad_eyes[row["patient ID"]] = rng.choice(values)
    rows = case.templates.get(STAGE2_CASE if row["final"] else STAGE1)
    asked = rows is None or row["patient ID"] in {eye["patient ID"] for eye in rows}
    return case._replace(must_fail=asked, may_fail=True)


def _write(case, root):
    """The test table and the templates (with zeros for answers, as the real ones have) under `root`."""
    paths = config.Paths(root)
    _write_csv(paths.test_table, case.test)
    for name, rows in case.templates.items():
        _write_csv(paths.submit / name, [{column: row.get(column, "0.00 ") for column in case.headers[name]}
                                         for row in rows])
    (root / "weights").write_bytes(b"weights")


def _write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


# ---- What predicts here

class _Images:
    """Says of each image what its name gives, and of the bad ones what they are told to say."""

    def __init__(self, bad):
        self._bad = bad

    def predict(self, rows, _paths, **_):
        """CST and findings of each row."""
        answers = []
        for name in rows["processed_path"]:
            number = random.Random(zlib.crc32(name.encode()))
            bad = self._bad.get(name)
            answers.append([bad or number.uniform(0, 900), *(bad or number.random() for _ in range(4))])
        return pd.DataFrame(answers, columns=["CST", "IRF", "SRF", "PED", "HRF"], index=rows.index)


class _Eyes:
    """The same for eyes."""

    def __init__(self, bad, means):
        self._bad, self.means = bad, means

    def predict(self, eyes, _paths):
        """VA and continue injection of each row; what is not known takes the means, as in Model-CSV."""
        if not fill_rounds(eyes[[c.FINAL, *c.CSV_FEATURES]], self.means).map(math.isfinite).all(axis=None):
            raise PipelineError("Model-CSV was given what is no number.")
        answers = [[self._bad.get(eye, 0.3), self._bad.get(eye, 0.6)] for eye in eyes.index]
        return pd.DataFrame(answers, columns=["VA", "continue injection"], index=eyes.index)


def _load(case, root):
    """What predict._load_models gives."""
    def load(_paths, image_models, *_, **__):
        means = {"preliminary": MEANS, "final": MEANS} if case.means else {}
        models = {name: Loaded(_Images(case.bad_images), [root / "weights"]) for name in image_models}
        return models | {CSV_MODEL: Loaded(_Eyes(case.bad_eyes, means), [root / "weights"])}

    return load


# ---- The validator

def _check(case, paths):
    """(what went wrong or nothing, whether files were written)."""
    option = predict.predict_all if len(case.test) % 2 else predict.predict_before_after
    quiet = contextlib.redirect_stdout(io.StringIO())
    with mock.patch.object(predict, "_load_models", _load(case, paths.root)), quiet:
        try:
            folder = option(paths)
        except PipelineError as error:
            left = list(paths.result.iterdir()) if paths.result.exists() else []
            if left:
                return f"refused ({error}), but it left {left}", False
            return "" if case.must_fail or case.may_fail else f"refused: {error}", False
        except Exception as error:
            return f"{type(error).__name__}: {error}", False
    if case.must_fail:
        return f"it was not refused: bad images {case.bad_images}, bad eyes {case.bad_eyes}", True
    if list(paths.result.iterdir()) != [folder]:
        return f"there is more than {folder}: {list(paths.result.iterdir())}", True
    return "; ".join(_validate(case, folder)), True


def _validate(case, folder):
    """Everything that is wrong with a folder of submission files."""
    names = sorted(file.name for file in folder.iterdir())
    if names != sorted([*FILES, "confidence.csv", "runs.json", "submit.zip"]):
        return [f"the files are {names}"]
    with zipfile.ZipFile(folder / "submit.zip") as archive:
        zipped = {name: archive.read(name) for name in archive.namelist()}
    problems = [] if zipped == {name: Path(folder, name).read_bytes() for name in FILES} else ["the zip differs"]
    for name, header in (FILES | case.headers).items():
        with open(folder / name, encoding="utf-8", newline="") as file:
            found, *rows = csv.reader(file)
        if found != header:
            problems.append(f"{name} has the columns {found}")
            continue
        rows = [dict(zip(header, row, strict=True)) for row in rows]
        keys = [column for column in header if column in TEXTS]
        wanted = [[row[key] for key in keys] for row in _wanted_rows(case, name)]
        if [[row[key] for key in keys] for row in rows] != wanted:
            problems.append(f"{name} has other rows than the template, or another order")
        problems += [f"{name}: {column} is {row[column]!r}" for row in rows for column in header
                     if column not in TEXTS and not _is_good(column, row[column])]
    return problems


def _wanted_rows(case, name):
    if name in case.templates:
        return case.templates[name]
    rows = [row for row in case.test if row["final"] == (name != STAGE1)]
    if name == STAGE2_PIC:
        return [row | {"image number": str(number)} for number, row in enumerate(rows, start=1)]
    return [{"patient ID": eye} for eye in dict.fromkeys(row["patient ID"] for row in rows)]


def _is_good(column, cell):
    try:
        value = float(cell)
    except ValueError:
        return False
    return math.isfinite(value) and 0 <= value <= (1 if column in PROBABILITIES else 1e9)
