"""Tables from anywhere: 60 made by hand and 1,000 generated, with what must come of each.

Either the right values, or one PipelineError that names every fault, and nothing else, by row, column and value.
"""

import math
import random
from typing import NamedTuple

from processing.errors import PipelineError
from tests.faults import Figure, scaled
from tests.helpers import read_filled

GENERATED = 1000


class Table(NamedTuple):
    """A table and what must come of it."""

    name: str
    content: object             # bytes, or a function of a path that makes something odd there
    values: dict | None = None  # column -> its values, where the table can be used
    faults: tuple = ()          # how the lines of the report begin, where it cannot; empty: any report will do
    kind: str = "final_info"    # the key of processing.tables.PARSERS


def hand_made(share, folder):
    """The tables of HAND_MADE, or the first of each kind of them."""
    step = max(1, round(len(HAND_MADE) / scaled(len(HAND_MADE), max(share, 0.2))))
    return _count("hand-made tables: right, or one report of every fault", HAND_MADE[::step], folder)


def generated(share, folder):
    """Valid tables in any of a spreadsheet's ways of writing, with one to five faults (one in ten: none)."""
    return _count(
        "generated tables: every fault in the one report, none invented",
        [_generate(random.Random(f"tables {number}"), number) for number in range(scaled(GENERATED, share))],
        folder,
    )


FIGURES = [hand_made, generated]


def _count(text, cases, folder):
    wrong = []
    for number, case in enumerate(cases):
        path = folder / f"{number}.csv"
        case.content(path) if callable(case.content) else path.write_bytes(case.content)
        reason = _check(case, path)
        if reason:
            wrong.append(f"{case.name}: {reason}")
    return Figure(text, len(cases), len(cases) - len(wrong), "; ".join(wrong[:5]))


def _check(case, path):
    """What went wrong, or nothing."""
    try:
        table = read_filled(path, case.kind)
    except PipelineError as error:
        return _compare_report(case, str(error), path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if case.values is None:
        return f"it was taken; wanted: {case.faults or 'a report'}"
    for column, values in case.values.items():
        if not _same(table[column].tolist(), values):
            return f"{column} is {table[column].tolist()}, wanted: {values}"
    return ""


def _compare_report(case, report, path):
    """Whether each line of a report is one of the faults that the case has, and each of those is there."""
    if case.values is not None:
        return f"it was refused: {report}"
    head, *lines = report.split("\n  ")
    if str(path) not in head:
        return f"the report does not name the file: {report}"
    if not case.faults:
        return ""
    lines = lines or [head.partition(f"{path}: ")[2]]
    left = list(case.faults)
    for line in lines:
        known = [fault for fault in left if line.startswith(fault)]
        if not known:
            return f"invented: {line}"
        left.remove(known[0])
    return f"not named: {left}; the report: {lines}" if left else ""


def _same(read, wanted):
    return len(read) == len(wanted) and all(
        math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) if isinstance(other, int | float) else one == other
        for one, other in zip(read, wanted, strict=True)
    )


# ---- By hand. The table of test eyes of the final round, unless another kind is named

HEADER = "patient ID,gender,age,diagnosis,anti-VEGF,preVA"
GOOD = "7R,Male,60,DME,Avastin,0.5"
TWO = f"{HEADER}\n{GOOD}\n8L,Female,70,PCV,Eylea,0.25\n"
TWO_VALUES = {
    "patient ID": ["7R", "8L"], "gender": [1, 2], "age": [60, 70], "diagnosis": [3, 2], "anti-VEGF": [1, 3],
    "preVA": [0.5, 0.25],
}
ANNOTATION = "patient ID,gender,age,diagnosis,preVA,anti-VEGF,preCST,preIRF,preSRF,prePED,preHRF,VA," \
    "continue injection,CST,IRF,SRF,PED,HRF"
CASE = f"{HEADER},preCST,VA,CST,continue injection"
PIC = "patient ID,injection,image name,IRF,SRF,PED,HRF"
EMPTY = ("it is empty",)


def _rows(*rows, header=HEADER):
    return "".join(f"{row}\n" for row in (header, *rows)).encode()


def _with(column, cell):
    """A good row with another cell in that column."""
    cells = GOOD.split(",")
    cells[HEADER.split(",").index(column)] = cell
    return ",".join(cells)


def _one(name, column, cell, read=None):
    """A second row with an odd cell: what is read there, or (None) a fault that shows the cell."""
    second = _with(column, cell).replace("7R", "8L")
    if read is None:
        shown = cell.strip('"')
        return Table(name, _rows(GOOD, second), faults=(f"row 3, {column}: {shown!r}; ",))
    return Table(name, _rows(GOOD, second), {column: [TWO_VALUES[column][0], read]})


def _endless_quote(column):
    """A quote that is opened in that column and never closed would swallow the rows behind it."""
    return _rows(_with(column, '"x'), "8L,Female,70,PCV,Eylea,0.25", "9L,Female,70,PCV,Eylea,0.25")


def _dangling(path):
    path.symlink_to(path.parent / "nowhere")


def _loop(path):
    path.symlink_to(path)


def _missing(*columns):
    return tuple(f"{column}: the column is missing" for column in columns)


LAYOUTS = [
    Table("plain", TWO.encode(), TWO_VALUES),
    Table("a byte order mark", TWO.encode("utf-8-sig"), TWO_VALUES),
    Table("utf-16", TWO.encode("utf-16"), TWO_VALUES),
    Table("utf-16, the other order", b"\xfe\xff" + TWO.encode("utf-16-be"), TWO_VALUES),
    Table("gb18030", _rows(GOOD + ",好", header=HEADER + ",备注").decode().encode("gb18030"), {"preVA": [0.5]}),
    Table("semicolons, decimal commas", TWO.replace(",", ";").replace("0.", "0,").encode(), TWO_VALUES),
    Table("semicolons, decimal points", TWO.replace(",", ";").encode(), TWO_VALUES),
    Table("tabs", TWO.replace(",", "\t").encode(), TWO_VALUES),
    Table("Windows line ends", TWO.replace("\n", "\r\n").encode(), TWO_VALUES),
    Table("old Mac line ends", TWO.replace("\n", "\r").encode(), TWO_VALUES),
    Table("no line end at the end", TWO.rstrip().encode(), TWO_VALUES),
    Table("blanks around cells", TWO.replace(",", " , ").encode(), TWO_VALUES),
    Table("blank lines", TWO.replace("\n", "\n\n  \n,,,,,\n").encode(), TWO_VALUES),
    Table("blank lines before the header", b"\n\r\n" + TWO.encode(), TWO_VALUES),
    Table("a line of blanks before a header with semicolons", b"  \n" + TWO.replace(",", ";").encode(), TWO_VALUES),
    Table("quoted cells", TWO.replace("Male", '"Male"').replace("7R", '"7R"').encode(), TWO_VALUES),
    Table(
        "separators and line ends inside quotes", _rows('"a, b\n""c""",' + GOOD, header="note," + HEADER),
        {"preVA": [0.5]},
    ),
    Table("empty columns at the end", TWO.replace("\n", ",,\n").encode(), TWO_VALUES),
    Table("other case in header and cells", TWO.lower().encode(), TWO_VALUES),
    Table("another order", _rows(",".join(reversed(GOOD.split(","))), header=",".join(reversed(HEADER.split(",")))),
          {"preVA": [0.5], "patient ID": ["7R"], "age": [60], "gender": [1]}),
    Table("one more column", _rows(GOOD + ",anything", header=HEADER + ",note"), {"preVA": [0.5]}),
    Table("one more column, twice", _rows(GOOD + ",x,y", header=HEADER + ",note,note"), {"preVA": [0.5]}),
]
CELLS = [
    _one("an ID that looks like a number", "patient ID", "0012L", "0012L"),
    _one("an ID that looks like a decimal", "patient ID", "1e5r", "1E5R"),
    _one("no light perception", "preVA", "NLP", 0.0),
    _one("nan", "age", "nan", 60.0),
    _one("NA", "preVA", "NA", 0.5),
    _one("nothing", "age", "", 60.0),
    _one("a drug's other spelling", "anti-VEGF", "Ozrudex", 10),
    _one("an exponent", "age", "6e1", 60),
    _one("a plus", "preVA", "+.5", 0.5),
    _one("text in a number column", "age", "sixty"),
    _one("inf", "preVA", "inf"),
    _one("more than a float holds", "preVA", "1e999"),
    _one("an underscore", "age", "6_0"),
    _one("full-width digits", "age", "６０"),
    _one("hexadecimal", "age", "0x3C"),
    _one("a decimal comma in quotes", "preVA", '"0,5"'),
    _one("a unit", "age", "60 years"),
    _one("an unknown diagnosis", "diagnosis", "XYZ"),
    _one("no drug", "anti-VEGF", ""),
    _one("nan as gender", "gender", "nan"),
    _one("no patient", "patient ID", ""),
    _one("NUL in a number", "age", "6\0"),
    _one("the same patient", "patient ID", "7r")._replace(faults=("row 3, patient ID: '7R'; it stands in row 2",)),
]
BROKEN = [
    Table("no bytes", b"", faults=EMPTY),
    Table("line ends only", b"\r\n\n\n", faults=EMPTY),
    Table("a byte order mark only", b"\xef\xbb\xbf", faults=EMPTY),
    Table("header only", HEADER.encode(), faults=("it has a header and no rows",)),
    Table("garbage", bytes(range(255, 127, -1)) * 4, faults=("it is not text in UTF-8 or GB 18030",)),
    Table("half a character of utf-16", TWO.encode("utf-16")[:-1], faults=("it is not text",)),
    Table("columns missing", _rows("7R,Male,old", header="patient ID,gender,age"),
          faults=(*_missing("diagnosis", "anti-VEGF", "preVA"), "row 2, age: 'old'")),
    Table("a column twice", _rows(GOOD + ",61", header=HEADER + ",Age"), faults=("age: the column is there 2 times",)),
    Table("a line break in the header", _rows("7R,x", header='patient ID,"no\nte"'),
          faults=_missing("gender", "age", "diagnosis", "anti-VEGF", "preVA")),
    Table("rows too short and too long", _rows(GOOD, "8L,Male", GOOD.replace("7R", "9L") + ",1,2"),
          faults=("row 3: it has 2 cells", "row 4: it has 8 cells")),
    Table("a quote without an end", _endless_quote("diagnosis")),
    Table("a quote without an end in a column that is left out",
          _rows(GOOD + ',"x', "8L,Female,70,PCV,Eylea,0.25,", header=HEADER + ",note")),
    Table("a cell of a megabyte", _rows(_with("diagnosis", "x" * 2**20)), faults=("it is no table",)),
    Table("a folder", lambda path: path.mkdir(), faults=("it cannot be read",)),
    Table("nothing there", lambda path: None, faults=("it cannot be read",)),
    Table("a link to nothing", _dangling, faults=("it cannot be read",)),
    Table("a link to itself", _loop, faults=("it cannot be read",)),
    Table("many faults in one row", _rows("8L,Mann,old,XYZ,water,inf"), faults=tuple(
        f"row 2, {column}: {cell!r}; " for column, cell in zip(
            HEADER.split(",")[1:], ["Mann", "old", "XYZ", "water", "inf"], strict=True))),
]
OTHER_KINDS = [
    Table("preliminary codes, saved again", _rows("0000-0001L,1.0,60,6.0,0.0,0.2"),
          {"gender": [1], "diagnosis": [6], "anti-VEGF": [0]}, kind="preliminary_info"),
    Table("codes that the preliminary round lacks", _rows("0000-0001L,3,60,7,8,NLP"), faults=(
        "row 2, gender: '3'", "row 2, diagnosis: '7'", "row 2, anti-VEGF: '8'", "row 2, preVA: 'NLP'"),
        kind="preliminary_info"),
    Table("missing answers", _rows("1L,1,60,1,.2,1,200,1,1,1,1,.5,6,300,1,1,1,1",
                                   "2L,2,70,2,.4,1" + ",nan" * 12, header=ANNOTATION),
          {"CST": [300, 300], "preCST": [200, 200], "continue injection": [1, 0], "HRF": [1, 0], "preVA": [0.2, 0.4]},
          kind="annotation"),
    Table("two columns without a value", _rows("7R,Male,60,DME,Avastin,0.5,nan,0.5,nan,1", header=CASE),
          faults=("preCST", "CST"), kind="case"),
    Table("image names that look like numbers", _rows("7r,PRE INJECTION,0012,1,0,,nan",
                                                      "7R,Pre injection,0012,0,0,0,1", header=PIC),
          {"patient ID": ["7R", "7R"], "image name": ["0012", "0012"], "injection": ["Pre injection"] * 2,
           "IRF": [1, 0], "PED": [0, 0], "HRF": [0, 1]}, kind="pic"),
    Table("an unknown visit, no image name", _rows("7R,Before,a,1,0,0,0", "7R,Pre injection,,1,0,0,x", header=PIC),
          faults=("row 2, injection: 'Before'", "row 3, image name: ''", "row 3, HRF: 'x'"), kind="pic"),
]
HAND_MADE = LAYOUTS + CELLS + BROKEN + OTHER_KINDS


# ---- Generated

class Kind(NamedTuple):
    """A column and what may stand in it."""

    name: str
    make: object                # function of a random number generator: (cell, value); value None: missing
    wrong: tuple                # cells that it cannot hold
    fill: str = ""              # "mean" or "zero" where it is missing


NO_NUMBERS = ("viele", "inf", "-Infinity", "1e999", "1_000", "１２", "0x10", "3 µm", "1.2.3", "--1")


def _category(name, codes):
    return Kind(name, lambda rng: rng.choice(sorted(codes.items())), ("XYZ", "-1", "1,5,0", "好", "nan", "NULL"))


def _digits(name, codes):
    return _category(name, {str(number): number for number in codes} | {f"{number}.0": number for number in codes})


def _measure(name, low, high, fill="mean", words=None):
    def make(rng):
        if rng.random() < 0.1:
            return rng.choice(["nan", "", "NA", "None", "null"]), None
        if words and rng.random() < 0.1:
            return rng.choice(sorted(words.items()))
        cell = f"{rng.uniform(low, high):.{rng.randint(0, 9)}f}"
        return cell, float(cell)

    return Kind(name, make, NO_NUMBERS, fill)


def _answer(name):
    return Kind(name, lambda rng: rng.choice([("0", 0), ("1", 1), ("1.0", 1), ("nan", None), ("", None)]),
                ("yes", "inf", "１", "1_0"), "zero")


GENDER = {"Male": 1, "Female": 2, "male": 1, "FEMALE": 2}
DIAGNOSIS = {"CNVM": 1, "PCV": 2, "DME": 3, "RVO": 4, "CME": 5, "dme": 3}
DRUG = {
    "Avastin": 1, "Razumab": 2, "Accentrix": 2, "Eylea": 3, "Tricort": 5, "Ozurdex": 10, "Ozrudex": 10, "Pagenax": 0,
}
FINAL_CLINICAL = [
    _category("gender", GENDER), _measure("age", 20, 99), _category("diagnosis", DIAGNOSIS),
    _category("anti-VEGF", DRUG), _measure("preVA", 0.01, 1, words={"NLP": 0, "nlp": 0}),
]
PRELIMINARY_CLINICAL = [
    _digits("gender", (1, 2)), _measure("age", 20, 99), _digits("diagnosis", (1, 2, 3, 4, 5, 6, 9)),
    _digits("anti-VEGF", (0, 1, 2, 3, 4, 5, 6, 9)), _measure("preVA", -0.1, 3),
]
FINDINGS = [_answer(name) for name in ("IRF", "SRF", "PED", "HRF")]
LABELS = [_measure("preCST", 100, 900), _measure("CST", 100, 900), _answer("continue injection")]
NAMES = Kind("image name", lambda rng: (rng.choice(["0012", "35 (13)", "127. (16)", "1e5"]),) * 2, ("", "nan", "NA"))
VISITS = {name: name for name in ("Pre injection", "Post injection")} | {"POST INJECTION": "Post injection"}
COLUMNS = {
    "preliminary_info": PRELIMINARY_CLINICAL,
    "annotation": [
        *PRELIMINARY_CLINICAL, *LABELS, _measure("VA", -0.1, 3), *FINDINGS,
        *(_answer("pre" + kind.name) for kind in FINDINGS),
    ],
    "final_info": FINAL_CLINICAL,
    "case": [*FINAL_CLINICAL, *LABELS, _measure("VA", 0.01, 1, words={"NLP": 0})],
    "pic": [_category("injection", VISITS), NAMES, *FINDINGS],
}
EYE = Kind("patient ID", None, ("", "nan", "None"))
OTHERS = [Kind(name, lambda rng: (rng.choice(["", "x", "好", "a, b", 'in "quotes"', "two\nlines"]), None), ())
          for name in ("note", "备注")]


def _generate(rng, number):
    """A Table of a random kind: valid columns and rows, then faults."""
    kind = rng.choice(sorted(COLUMNS))
    kinds = [EYE, *COLUMNS[kind], *rng.sample(OTHERS, rng.randint(0, 2))]
    rng.shuffle(kinds)
    cells, values = _invent(kinds, rng.randint(12, 30), rng)
    text = _Text([kind.name for kind in kinds], cells, unique=kind != "pic")
    damages = rng.randint(1, 5) if number % 10 else 0
    _damage_columns(text, kinds, rng, damages and rng.choice([0, 0, 0, 1]))
    for _ in range(damages):
        _damage_row(text, kinds, rng)
    content = _encode(text, rng)
    name = f"generated table {number} of the kind {kind}"
    return Table(name, content, None if text.faults else values, tuple(text.faults), kind)


def _invent(kinds, rows, rng):
    """Cells by row, and what must be read of each column."""
    cells, values = [[] for _ in range(rows)], {}
    for kind in kinds:
        if kind is EYE:
            column = [_eye(name, rng) for name in rng.sample(range(1000), rows)]
        else:
            column = [kind.make(rng) for _ in range(rows)]
            if kind.fill == "mean" and all(value is None for _, value in column):
                column[0] = ("0.5", 0.5)
        for row, (cell, _) in zip(cells, column, strict=True):
            row.append(cell)
        if kind not in OTHERS:
            values[kind.name] = _filled([value for _, value in column], kind.fill)
    return cells, values


def _eye(number, rng):
    cell = rng.choice([f"0000-{number:04}{rng.choice('LRlr')}", f"{number}R", f"{number:04}l"])
    return cell, cell.upper()


def _filled(values, fill):
    known = [value for value in values if value is not None]
    missing = sum(known) / len(known) if fill == "mean" else 0
    return [missing if value is None else value for value in values]


class _Text:
    """A table on its way to the file: header and rows of cells, the faults so far, and the rows that have one."""

    def __init__(self, header, rows, unique):
        self.header, self.rows, self.unique = list(header), rows, unique
        self.faults, self.damaged, self.lost = [], set(), set()

    def free_rows(self):
        return [row for row in range(len(self.rows)) if row not in self.damaged]


def _damage_columns(text, kinds, rng, count):
    """Take a column away, or write one twice."""
    for kind in rng.sample([kind for kind in kinds if kind not in OTHERS], count):
        place = text.header.index(kind.name)
        text.lost.add(kind.name)
        if rng.random() < 0.5:
            del text.header[place]
            for row in text.rows:
                del row[place]
            text.faults.append(f"{kind.name}: the column is missing")
        else:
            text.header.append(kind.name.upper())
            for row in text.rows:
                row.append(row[place])
            text.faults.append(f"{kind.name}: the column is there 2 times")


def _damage_row(text, kinds, rng):
    """One fault in a row that has none: a cell, a cell too few, one too many, or a patient who is there already."""
    row = rng.choice(text.free_rows())
    text.damaged.add(row)
    what = rng.choice(["cell", "cell", "cell", "short", "long", "again"])
    columns = [kind for kind in kinds if kind not in OTHERS and kind.name not in text.lost]
    if what == "again" and text.unique and "patient ID" not in text.lost:
        other = rng.choice(text.free_rows())
        text.damaged.add(other)
        place = text.header.index("patient ID")
        text.rows[row][place] = rng.choice([str.lower, str.upper])(text.rows[other][place])
        name = text.rows[other][place].upper()
        first, second = sorted((row, other))
        text.faults.append((second, f"patient ID: {name!r}; it stands in row {{first}} already", first))
    elif what == "short":
        text.rows[row] = text.rows[row][:-2] if any(text.rows[row][:-2]) else ["x"]
        text.faults.append((row, f"it has {len(text.rows[row])} cells, the header has {len(text.header)}", None))
    elif what == "long":
        text.rows[row].append("x")
        text.faults.append((row, f"it has {len(text.rows[row])} cells, the header has {len(text.header)}", None))
    else:
        kind = rng.choice(columns)
        wrong = rng.choice(kind.wrong)
        text.rows[row][text.header.index(kind.name)] = wrong
        text.faults.append((row, f"{kind.name}: {wrong!r}; ", None))


def _encode(text, rng):
    """The bytes of the file, in one of the ways of spreadsheets; the faults get the rows of the file."""
    separator = rng.choice([",", ",", ";", "\t"])
    decimal_comma = separator == ";" and rng.random() < 0.5
    wide = len(text.header) + rng.choice([0, 0, 2])
    lines = [_line(text.header, separator, wide)]
    place = []          # of each row in the file
    for number, row in enumerate(text.rows):
        if rng.random() < 0.1:
            lines.append(rng.choice(["", "  ", separator * 3]))
        place.append(len(lines) + 1)
        cells = [_comma(cell) for cell in row] if decimal_comma else row
        cells = [rng.choice(["", "", " "]) + cell for cell in cells] if number % 7 == 0 else cells
        lines.append(_line(cells, separator, wide if number not in text.damaged else 0))
    text.faults = [fault if isinstance(fault, str) else _placed(fault, place) for fault in text.faults]
    end = rng.choice(["\n", "\r\n", "\r"])
    content = end.join(lines) + rng.choice(["", end, end + end])
    return content.encode(rng.choice(["utf-8", "utf-8-sig", "gb18030", "utf-16"]))


def _placed(fault, place):
    row, what, first = fault
    what = what if first is None else what.format(first=place[first])
    return f"row {place[row]}: {what}" if what.startswith("it has") else f"row {place[row]}, {what}"


def _comma(cell):
    """A plain number with a decimal comma."""
    whole, point, part = cell.partition(".")
    plain = point and whole.lstrip("-").isdecimal() and part.isdecimal() and cell.isascii()
    return f"{whole},{part}" if plain else cell


def _line(cells, separator, wide):
    cells = [*cells, *[""] * (wide - len(cells))]
    return separator.join(
        '"' + cell.replace('"', '""') + '"' if any(sign in cell for sign in separator + '"\n') else cell
        for cell in cells
    )
