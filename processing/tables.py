"""Every column's name, code and unit; annotation tables become the processed tables and the case table."""

import pandas as pd

from processing.errors import PipelineError
from processing.reader import code, number, read_table, text

# Columns, as the competition spells them
PATIENT = "patient ID"              # one eye, e.g. 0000-0001L or 600R
GENDER = "gender"                   # 1 male, 2 female
AGE = "age"                         # years
DIAGNOSIS = "diagnosis"
DRUG = "anti-VEGF"
PRE_VA, VA = "preVA", "VA"          # logMAR (preliminary round) or decimal (final round)
PRE_CST, CST = "preCST", "CST"      # um
FINDINGS = ["IRF", "SRF", "PED", "HRF"]             # 0 / 1
PRE_FINDINGS = ["preIRF", "preSRF", "prePED", "preHRF"]
CONTINUE = "continue injection"     # 0 / 1
INJECTION = "injection"             # PRE or POST
PRE, POST = "Pre injection", "Post injection"
IMAGE = "image name"                # file name without its suffix
IMAGE_NUMBER = "image number"
SIDE = "L0R1"                       # 0 left eye, 1 right eye
FINAL = "final"                     # 1 final round
AFTER = "after"                     # 1 post injection
DATA_TYPE = "data_type"             # train or test
PROCESSED, SOURCE = "processed_path", "source_path"     # relative to the root, forward slashes

# Texts of the final round -> the 2021 system's codes
GENDERS = {"Male": 1, "Female": 2}
DIAGNOSES = {"CNVM": 1, "PCV": 2, "DME": 3, "RVO": 4, "CME": 5}
DRUGS = {
    "Avastin": 1,                       # bevacizumab
    "Razumab": 2, "Accentrix": 2,       # ranibizumab
    "Eylea": 3,                         # aflibercept
    "Tricort": 5,                       # triamcinolone
    "Ozurdex": 10, "Ozrudex": 10,       # dexamethasone, in both spellings of the tables
    "Pagenax": 0,                       # brolucizumab
}

# Codes of the preliminary round
PRELIMINARY_GENDERS = (1, 2)                        # male, female
PRELIMINARY_DIAGNOSES = (1, 2, 3, 4, 5, 6, 9)       # wet AMD, PCV, DME, RVO, CME, fellow eye, other
UNTREATED = 6                                       # the diagnosis of fellow eyes, in training only
PRELIMINARY_DRUGS = (0, 1, 2, 3, 4, 5, 6, 9)        # none, as DRUGS up to 3, conbercept, triamcinolone, mixed, other

DIAGNOSIS_NAMES = {1: "wet AMD", 2: "PCV", 3: "DME", 4: "RVO", 5: "CME", 6: "fellow eye", 9: "other"}
DRUG_NAMES = {
    0: "none or brolucizumab", 1: "bevacizumab", 2: "ranibizumab", 3: "aflibercept", 4: "conbercept",
    5: "triamcinolone", 6: "combination", 9: "other", 10: "dexamethasone",
}

# The submission files and what each holds
STAGE1, STAGE2_CASE, STAGE2_PIC = "submit_stage1.csv", "submit_stage2_case.csv", "submit_stage2_pic.csv"
SUBMISSION_COLUMNS = {
    STAGE1: [PATIENT, PRE_CST, VA, CONTINUE, CST, "IRF", "SRF", "HRF"],
    STAGE2_CASE: [PATIENT, VA, CONTINUE, PRE_CST, CST],
    STAGE2_PIC: [IMAGE_NUMBER, PATIENT, INJECTION, IMAGE, *FINDINGS],
}

# What Model-CSV sees of an eye, in this order
CSV_FEATURES = [GENDER, AGE, DIAGNOSIS, DRUG, SIDE, PRE_VA, PRE_CST, *PRE_FINDINGS, CST, *FINDINGS]

# One row per annotated eye, as the tables give it: NaN where missing
EYE_COLUMNS = [
    PATIENT, FINAL, DATA_TYPE, GENDER, AGE, DIAGNOSIS, DRUG, SIDE, PRE_VA, PRE_CST, *PRE_FINDINGS, VA, CST, *FINDINGS,
    CONTINUE,
]
IMAGE_COLUMNS = [PATIENT, SIDE, FINAL, AFTER, INJECTION, IMAGE, PROCESSED, SOURCE, DATA_TYPE]
_PLACE_COLUMNS = [SIDE, INJECTION, IMAGE, AFTER, FINAL, DATA_TYPE, PROCESSED, SOURCE]
TRAIN_COLUMNS = [PATIENT, GENDER, AGE, DIAGNOSIS, DRUG, PRE_VA, VA, PRE_CST, CST, *FINDINGS, CONTINUE, *_PLACE_COLUMNS]
TEST_COLUMNS = [PATIENT, GENDER, AGE, DIAGNOSIS, DRUG, PRE_VA, *_PLACE_COLUMNS]

MEASURES = [AGE, PRE_VA, VA, PRE_CST, CST]         # missing: the column's mean over the annotation table
ANSWERS = [*PRE_FINDINGS, *FINDINGS, CONTINUE]     # missing: 0


# ---- Annotation tables as handed out -> typed columns

def normalise_patient(cell):
    """An eye's ID as tables and file names share it: no blanks at the ends, eye letter in upper case."""
    return cell.strip().upper()


def person_of(patient):
    """The person an eye belongs to: 0000-0001L and 0000-0001R are one.

    >>> person_of("0000-0001L")
    '0000-0001'
    """
    return patient[:-1] if patient[-1:] in ("L", "R") else patient


def fellow_of(patient):
    """The ID of the same person's other eye."""
    return person_of(patient) + ("L" if patient.endswith("R") else "R")


def parse_patient(cell):
    """A cell of the column patient ID."""
    return normalise_patient(text(cell))


def _decimal_va(cell):
    """Decimal acuity; NLP (no light perception) is 0. (The 2021 system read it as 1.0, normal sight.)"""
    return 0.0 if cell.upper() == "NLP" else number(cell)


def parse_visit(cell):
    """A cell of the column injection: PRE or POST."""
    return code({PRE: PRE, POST: POST})(cell)


def _digits(codes):
    parse = code({str(value): value for value in codes})
    return lambda cell: parse(cell.removesuffix(".0"))      # a table saved again by a spreadsheet may hold 1.0


_PRELIMINARY_CLINICAL = {
    PATIENT: parse_patient,
    GENDER: _digits(PRELIMINARY_GENDERS),
    AGE: number,
    DIAGNOSIS: _digits(PRELIMINARY_DIAGNOSES),
    DRUG: _digits(PRELIMINARY_DRUGS),
    PRE_VA: number,
}
_FINAL_CLINICAL = {
    PATIENT: parse_patient,
    GENDER: code(GENDERS),
    AGE: number,
    DIAGNOSIS: code(DIAGNOSES),
    DRUG: code(DRUGS),
    PRE_VA: _decimal_va,
}

# What each table must hold, by the keys of source.TABLE_FILES
PARSERS = {
    "annotation": _PRELIMINARY_CLINICAL | dict.fromkeys([PRE_CST, *PRE_FINDINGS, VA, CONTINUE, CST, *FINDINGS], number),
    "preliminary_info": _PRELIMINARY_CLINICAL,
    "case": _FINAL_CLINICAL | {PRE_CST: number, VA: _decimal_va, CST: number, CONTINUE: number},
    "pic": {PATIENT: parse_patient, INJECTION: parse_visit, IMAGE: text} | dict.fromkeys(FINDINGS, number),
    "final_info": _FINAL_CLINICAL,
}


# Which tables have a row per eye: round and set
_EYE_TABLES = {
    "annotation": (0, "train"), "preliminary_info": (0, "test"), "case": (1, "train"), "final_info": (1, "test"),
}


def read_raw_table(path, table):
    """Read one of the tables that are handed out, NaN where a value is missing.

    Eyes are unique in all of them but "pic", the findings of each image: the real one has eleven images of eye 513L
    twice, and both rows stay.

    Args:
        path: the file.
        table: a key of PARSERS.

    Returns:
        DataFrame with the columns of PARSERS[table].

    Raises:
        PipelineError: all faults of the file.
    """
    return read_table(path, PARSERS[table], unique=[] if table == "pic" else [PATIENT])


def read_annotation_table(path, table):
    """As read_raw_table, with missing values filled and continue injection clipped to 0-1.

    Raises:
        PipelineError: all faults of the file, or a column without any value.
    """
    return fill_missing(read_raw_table(path, table), path)


def fill_missing(table, path):
    """Missing measures take the column's mean, missing findings and continue injection 0 (as in 2021).

    Args:
        table: of read_raw_table.
        path: of its file, for the error.

    Raises:
        PipelineError: a column without any value.
    """
    filled = table.copy()
    measures = filled.columns.intersection(MEASURES)
    empty = [f"\n  {name}: the column has no value at all" for name in measures if filled[name].isna().all()]
    if empty:
        raise PipelineError(f"{path} cannot be used; correct it and run again:{''.join(empty)}")
    for name in measures:
        filled[name] = filled[name].fillna(filled[name].mean())
    for name in filled.columns.intersection(ANSWERS):
        filled[name] = filled[name].fillna(0)
    if CONTINUE in filled:
        filled[CONTINUE] = filled[CONTINUE].clip(0, 1)
    return filled


# ---- Processed tables

def build_eye_table(raw):
    """One row per annotated eye of both rounds, nothing filled in: what held-out scores and recipe best go by.

    Findings of a final eye are means over the annotated images of the visit; continue injection is clipped to 0-1.

    Args:
        raw: dict of a key of PARSERS -> table of read_raw_table.

    Returns:
        DataFrame with EYE_COLUMNS, sorted by round and patient ID.
    """
    parts = []
    for name, (final, data_type) in _EYE_TABLES.items():
        if name in raw:
            part = raw[name].assign(**{FINAL: final, DATA_TYPE: data_type})
            if name == "case" and "pic" in raw:
                part = part.merge(_visit_findings(raw["pic"]), on=PATIENT, how="left")
            parts.append(part.reindex(columns=EYE_COLUMNS))
    eyes = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=EYE_COLUMNS)
    eyes[SIDE] = eyes[PATIENT].str.endswith("R").astype(int)
    eyes[CONTINUE] = eyes[CONTINUE].clip(0, 1)
    return eyes.sort_values([FINAL, DATA_TYPE, PATIENT], ignore_index=True)


def _visit_findings(pic):
    """Mean findings of each eye's images of each visit, one row per eye."""
    visits = {PRE: PRE_FINDINGS, POST: FINDINGS}
    means = [pic[pic[INJECTION] == visit].groupby(PATIENT)[FINDINGS].mean().set_axis(names, axis=1)
             for visit, names in visits.items()]
    return means[0].join(means[1], how="outer").reset_index()

def build_train_table(images, *, annotation=None, case=None, pic=None):
    """One row per labelled training image.

    Args:
        images: DataFrame with IMAGE_COLUMNS (test images are left out).
        annotation, case, pic: tables of read_annotation_table, or None without that round.

    Returns:
        DataFrame with TRAIN_COLUMNS. A preliminary image carries its eye's findings of the visit; a final
        image its own findings, once per row of `pic`, and its eye's clinical row.
    """
    train = images[images[DATA_TYPE] == "train"]
    parts = []
    if annotation is not None:
        rows = train[train[FINAL] == 0].merge(annotation, on=PATIENT)
        before = rows[AFTER] == 0
        for finding, pre_finding in zip(FINDINGS, PRE_FINDINGS, strict=True):
            rows[finding] = rows[finding].where(~before, rows[pre_finding])
        parts.append(rows[TRAIN_COLUMNS])
    if case is not None and pic is not None:
        rows = train[train[FINAL] == 1].merge(pic, on=[PATIENT, INJECTION, IMAGE]).merge(case, on=PATIENT)
        parts.append(rows[TRAIN_COLUMNS])
    return _stack(parts, TRAIN_COLUMNS)


def build_test_table(images, *, preliminary=None, final=None):
    """One row per test image with its eye's clinical row; arguments as for build_train_table.

    Returns:
        DataFrame with TEST_COLUMNS.
    """
    test = images[images[DATA_TYPE] == "test"]
    parts = [
        test[test[FINAL] == number_of_round].merge(info, on=PATIENT)[TEST_COLUMNS]
        for number_of_round, info in ((0, preliminary), (1, final))
        if info is not None
    ]
    return _stack(parts, TEST_COLUMNS)


def build_case_table(train):
    """One row per training eye that has images of both visits: what Model-CSV is trained on.

    Clinical fields are means over all of the eye's rows; preVA, preCST and the pre-findings over its
    before-images; VA, CST and the findings over its after-images.

    Args:
        train: DataFrame with TRAIN_COLUMNS.

    Returns:
        DataFrame sorted by patient ID: patient ID, final, CSV_FEATURES, VA, continue injection.
    """
    clinical = _eye_means(train, [FINAL, GENDER, AGE, DIAGNOSIS, DRUG, SIDE, CONTINUE])
    before = _eye_means(train[train[AFTER] == 0], [PRE_VA, PRE_CST, *FINDINGS])
    before = before.rename(columns=dict(zip(FINDINGS, PRE_FINDINGS, strict=True)))
    after = _eye_means(train[train[AFTER] == 1], [VA, CST, *FINDINGS])
    cases = clinical.join(before, how="inner").join(after, how="inner").reset_index()
    return cases[[PATIENT, FINAL, *CSV_FEATURES, VA, CONTINUE]]


def _eye_means(rows, columns):
    return rows.groupby(PATIENT, sort=True)[columns].mean()


def _stack(parts, columns):
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def read_processed(path, columns):
    """Read image_data.csv, train.csv or test.csv back; IDs and names stay text.

    Args:
        path: the file.
        columns: what it must hold: IMAGE_COLUMNS, TRAIN_COLUMNS or TEST_COLUMNS.

    Raises:
        PipelineError: it is not there, or no such table.
    """
    if not path.is_file():
        raise PipelineError(f"{path} is not there. Option 0 (processing_data) makes it.")
    texts = dict.fromkeys([PATIENT, IMAGE, INJECTION, DATA_TYPE, PROCESSED, SOURCE], str)     # IDs stay as they are
    numbers = {name: ["", "nan"] for name in columns if name not in texts}
    try:
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=numbers)
    except (ValueError, OSError) as error:
        raise PipelineError(f"{path} cannot be read: {error}. {_MAKE_ANEW}") from error
    absent = [name for name in columns if name not in table]
    if absent:
        raise PipelineError(f"{path} lacks {', '.join(absent)}. {_MAKE_ANEW}")
    wrong = [name for name in numbers if len(table) and not pd.api.types.is_numeric_dtype(table[name])]
    if wrong:
        raise PipelineError(f"{path} holds text where numbers belong, in {', '.join(wrong)}. {_MAKE_ANEW}")
    return table


_MAKE_ANEW = "Option 0 (processing_data) makes it anew."
