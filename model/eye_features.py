"""What the trees of Model-CSV see of an eye: its row, the fellow eye, how sure its thickness is, what its scans show.

Reads and writes nothing. An eye's thickness comes with an interval (c.sure_columns): as a doctor labelled it, low and
high are the value itself; as image models see it, the truth of 80 % of the eyes lies between.
"""

import numpy as np
import pandas as pd

from processing import columns as c
from processing.acuity import convert_va

INPUTS = [c.PATIENT, c.FINAL, c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.SIDE, c.PRE_VA, c.PRE_CST, *c.PRE_FINDINGS,
          c.CST, *c.FINDINGS]
PLAUSIBLE_CST_UM = (100, 1500)      # beyond, a thickness is an error (the real tables hold 6109), not signal
DIAGNOSES = (1, 2, 3, 4, 5, 6, 9)
DRUGS = tuple(c.DRUG_NAMES)
# Noise of what the image models see, for the second copy of each training eye: the published submissions hit 30 % of
# thicknesses within 7.5 %, which is a spread of a fifth, and their findings have an AUC of 0.7-0.8.
CST_NOISE, FINDINGS_NOISE = 0.2, 0.35
EIGHTY_PERCENT = 1.2816             # standard deviations to either side that hold 80 % of a normal distribution
SPREADS = {c.PRE_CST: "preCST spread", c.CST: "CST spread"}
# Of either visit, as model/visit_features.py has it
OF_SCANS = ("nearest_um", "near irf_area_mm2", "near srf_area_mm2", "near ped_area_mm2", "mean readable_share")
SCANNED = [f"{visit} {name}" for visit in ("before", "after") for name in OF_SCANS]
EXTRAS = [*SPREADS.values(), *SCANNED]      # features that not every eye has
OPTIONAL = [*(end for name in SPREADS for end in c.sure_columns(name)[1:]), *SCANNED]


def build_features(eyes: pd.DataFrame) -> pd.DataFrame:
    """Features of eyes, fellow eyes looked up among them.

    Args:
        eyes: DataFrame with INPUTS, one row per eye, and as many columns of OPTIONAL as are known.

    Returns:
        DataFrame, float, NaN where missing: acuity as logMAR in both rounds, categories one by one; EXTRAS last.
    """
    eyes = eyes.reset_index(drop=True)
    table = eyes[[c.FINAL, c.GENDER, c.AGE, c.SIDE, *c.PRE_FINDINGS, *c.FINDINGS]].astype(float)
    table["preVA logMAR"] = convert_va(eyes[c.PRE_VA], eyes[c.FINAL], 0)
    for name in (c.PRE_CST, c.CST):
        table[name] = eyes[name].where(eyes[name].between(*PLAUSIBLE_CST_UM))
    table["CST change"], table["CST ratio"] = table[c.CST] - table[c.PRE_CST], table[c.CST] / table[c.PRE_CST]
    for before, after in zip(c.PRE_FINDINGS, c.FINDINGS, strict=True):
        table[f"{after} change"] = table[after] - table[before]
    table["findings before"] = table[c.PRE_FINDINGS].sum(axis=1, min_count=1)
    table["findings"] = table[c.FINDINGS].sum(axis=1, min_count=1)
    table["fluid"] = table[["IRF", "SRF"]].max(axis=1)
    for code in DIAGNOSES:
        table[f"{c.DIAGNOSIS} {code}"] = (eyes[c.DIAGNOSIS] == code).astype(float)
    for code in DRUGS:
        table[f"{c.DRUG} {code}"] = (eyes[c.DRUG] == code).astype(float)
    extras = eyes.reindex(columns=SCANNED).astype(float)
    for name, spread in SPREADS.items():
        extras[spread] = _find_spread(eyes, name)
    return table.join(_fellow_features(eyes, table)).join(extras[EXTRAS])


def _find_spread(eyes, name):
    """Width of a thickness's interval as its logarithm; where none is told, as wide as image models usually are off."""
    ends = eyes.reindex(columns=c.sure_columns(name)[1:]).astype(float).clip(lower=1)
    spread = np.log(ends.iloc[:, 1]) - np.log(ends.iloc[:, 0])
    return spread.fillna(2 * EIGHTY_PERCENT * CST_NOISE).where(eyes[name].notna())


def mark_exact(eyes: pd.DataFrame) -> pd.DataFrame:
    """Eyes as doctors labelled them: their intervals are nothing but the value."""
    return eyes.assign(**{end: eyes[name] for name in SPREADS for end in c.sure_columns(name)[1:]})


def _fellow_features(eyes, table):
    """The same person's other eye: its acuity, thickness, findings, and whether it is treated."""
    names = ["preVA logMAR", c.PRE_CST, c.CST, "findings before", "findings", "fluid", f"{c.DIAGNOSIS} {c.UNTREATED}"]
    row_of = {patient: row for row, patient in enumerate(eyes[c.PATIENT])}
    rows = [row_of.get(c.fellow_of(patient), len(eyes)) for patient in eyes[c.PATIENT]]
    other = table[names].reindex(range(len(eyes) + 1)).iloc[rows].set_axis(table.index)
    other["preVA step"] = table["preVA logMAR"] - other["preVA logMAR"]
    return other.add_prefix("fellow ")


def add_noise(eyes: pd.DataFrame, rng: np.random.Generator, share: float = 1.0) -> pd.DataFrame:
    """Eyes as the image models see them: thickness times log-normal noise, findings as unsure probabilities.

    Args:
        eyes: DataFrame with INPUTS.
        rng: numpy.random.Generator.
        share: of CST_NOISE and FINDINGS_NOISE.

    Returns:
        `eyes`, changed, and with the intervals of that noise.
    """
    noisy = eyes.copy()
    for name in SPREADS:
        noisy[name] = eyes[name] * np.exp(rng.normal(0, share * CST_NOISE, len(eyes)))
        for end, side in zip(c.sure_columns(name)[1:], (-1, 1), strict=True):
            noisy[end] = noisy[name] * np.exp(side * EIGHTY_PERCENT * share * CST_NOISE)
    for name in (*c.PRE_FINDINGS, *c.FINDINGS):
        noisy[name] = (eyes[name] + rng.normal(0, share * FINDINGS_NOISE, len(eyes))).clip(0, 1)
    return noisy
