"""Every column's name, code and unit, once: imported as a name, `from processing import columns as c`.

Reads and writes nothing.
"""

import unicodedata

# Columns, as the competition spells them
PATIENT = "patient ID"              # one eye, e.g. 0000-0001L or 600R
GENDER = "gender"                   # 1 male, 2 female
AGE = "age"                         # years
DIAGNOSIS = "diagnosis"
DRUG = "anti-VEGF"
PRE_VA, VA = "preVA", "VA"          # logMAR (preliminary round) or decimal (final round)
PRE_CST, CST = "preCST", "CST"      # um
FINDINGS = ["IRF", "SRF", "PED", "HRF"]             # 0 / 1
PRE_FINDINGS = [f"pre{name}" for name in FINDINGS]
COMPETITION_FINDINGS = ("IRF", "SRF", "PED", "HRF")     # every annotation table has these; any other one may be absent
OPTIONAL_FINDINGS = [name for name in [*PRE_FINDINGS, *FINDINGS]
                     if name.removeprefix("pre") not in COMPETITION_FINDINGS]
CONTINUE = "continue injection"     # 0 / 1
FOLD = "fold"                       # of processed/splits.json, 0 to 4
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
ROUND_NAMES = {0: "preliminary", 1: "final"}        # by the column final
UNTREATED = 6                                       # the diagnosis of fellow eyes, in training only
PRELIMINARY_DRUGS = (0, 1, 2, 3, 4, 5, 6, 9)        # none, as DRUGS up to 3, conbercept, triamcinolone, mixed, other

DIAGNOSIS_NAMES = {1: "wet AMD", 2: "PCV", 3: "DME", 4: "RVO", 5: "CME", 6: "fellow eye", 9: "other"}
DRUG_NAMES = {
    0: "none or brolucizumab", 1: "bevacizumab", 2: "ranibizumab", 3: "aflibercept", 4: "conbercept",
    5: "triamcinolone", 6: "combination", 9: "other", 10: "dexamethasone",
}

# The submission files: what names a row, what the competition's templates ask for, and what is written without one
STAGE1, STAGE2_CASE, STAGE2_PIC = "submit_stage1.csv", "submit_stage2_case.csv", "submit_stage2_pic.csv"
SUBMISSION_KEYS = {
    STAGE1: [PATIENT],
    STAGE2_CASE: [PATIENT],
    STAGE2_PIC: [IMAGE_NUMBER, PATIENT, INJECTION, IMAGE],
}
TEMPLATE_COLUMNS = {
    STAGE1: [PATIENT, PRE_CST, VA, CONTINUE, CST, "IRF", "SRF", "HRF"],
    STAGE2_CASE: [PATIENT, VA, CONTINUE, PRE_CST, CST],
    STAGE2_PIC: [*SUBMISSION_KEYS[STAGE2_PIC], "IRF", "SRF", "PED"],
}
SUBMISSION_COLUMNS = TEMPLATE_COLUMNS | {STAGE2_PIC: [*SUBMISSION_KEYS[STAGE2_PIC], "IRF", "SRF", "PED", "HRF"]}

# What a template may ask of a row, beside its keys
_ANSWERS_OF_EYE = [PRE_CST, *PRE_FINDINGS, CST, *FINDINGS, VA, CONTINUE]
TEMPLATE_ANSWERS = {STAGE1: _ANSWERS_OF_EYE, STAGE2_CASE: _ANSWERS_OF_EYE, STAGE2_PIC: FINDINGS}

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
TEXT_COLUMNS = (PATIENT, INJECTION, IMAGE, PROCESSED, SOURCE, DATA_TYPE)    # of them; the others hold numbers

def sure_columns(name: str) -> list[str]:
    """How sure an answer is: the probability of a hit, and an interval that is to hold the truth of 80 %."""
    return [f"{name} chance", f"{name} low", f"{name} high"]


SURE = [column for name in (PRE_CST, CST, VA) for column in sure_columns(name)]


MEASURES = [AGE, PRE_VA, VA, PRE_CST, CST]         # missing: the column's mean over the annotation table
ANSWERS = [*PRE_FINDINGS, *FINDINGS, CONTINUE]     # missing: 0

# measures.csv, of option 11; its numbers stand in model/measures.py
FILE, PROBLEM = "file", "problem"                   # source_path; why a scan is not measured, or not wholly
NO_RETINA, CUT_OFF, NO_MIDDLE = "no retina found", "cut off at the top", "not read near the middle"
MEASURED_STATE = ["bytes", "mtime_ns", "weights"]   # of the file and of the network, when it was measured


def drop_unseen(text: str) -> str:
    """A text without marks that cannot be seen (byte order marks, joiners, directions) and blanks at its ends.

    >>> drop_unseen("\ufeff\u202a0.5\u200b ")
    '0.5'
    """
    return (text if text.isascii() else "".join(sign for sign in text if unicodedata.category(sign) != "Cf")).strip()


def fold_text(text: str) -> str:
    """A text as it looks: characters of usual width, none that cannot be seen, no blanks at its ends.

    >>> fold_text("\ufeff\ufeff０００\u200b0-0001L ")
    '0000-0001L'
    """
    return drop_unseen(unicodedata.normalize("NFKC", text))


def normalise_patient(cell: str) -> str:
    """An eye's ID as tables and file names share it: folded, eye letter in upper case."""
    return fold_text(cell).upper()


def person_of(patient: str) -> str:
    """The person an eye belongs to: 0000-0001L and 0000-0001R are one.

    >>> person_of("0000-0001L")
    '0000-0001'
    """
    return patient[:-1] if patient[-1:] in ("L", "R") else patient


def fellow_of(patient: str) -> str:
    """The ID of the same person's other eye."""
    return person_of(patient) + ("L" if patient.endswith("R") else "R")
