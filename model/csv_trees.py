"""CSVTrees: the recipe best, an ensemble of trees in the network's place; the trees themselves are in model/trees.py.

Reads data/processed/csv/eyes.csv and, where they are there, out_of_fold.csv and what was measured (measures.csv,
geometry.csv); the run writes what comes of it.
"""

from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

from config import PATHS, Paths
from model.eye_features import SCANNED
from model.means import fit_case_means
from model.portable import NotPortable, Portable
from model.provenance import fingerprint_tables
from model.run import Run
from model.trees import TreeModel
from model.visit_features import describe_eyes, hide_filled
from model_config import CSVConfig
from processing import columns as c
from processing.errors import PipelineError
from processing.reader import read_header
from processing.tables import build_case_table, read_processed
from processing.terminal import say

# Of an eye, by the image models; and how sure its thickness is, where they tell
SEEN_COLUMNS = [c.PRE_CST, *c.PRE_FINDINGS, c.CST, *c.FINDINGS]
SURE_COLUMNS = [*c.sure_columns(c.PRE_CST), *c.sure_columns(c.CST)]
TOLD_BY = "told by"         # of out_of_fold.csv: which image models, of which recipes


def name_packages() -> dict[str, str]:
    """Versions of the packages that fitted trees can be read with."""
    return {name: version(name) for name in ("scikit-learn", "skops")}


class CSVTrees:
    """Follows model.registry.Model.

    Args:
        specification: seed and means.
        device: torch.device; trees compute on the CPU.
    """

    kind, unit = "CSVTrees", "eyes"

    def __init__(self, specification: dict[str, Any], device: torch.device):
        self.means, self.device = specification["means"], device
        self._packages = specification.get("packages", {})      # that it was fitted with
        self._trees = TreeModel(specification["seed"])

    @property
    def specification(self) -> dict[str, Any]:
        """Plain values that it is built from."""
        return {
            "seed": self._trees.seed, "means": self.means, "packages": self._packages,
            "outputs": {c.VA: "logMAR (preliminary round) or decimal (final)", c.CONTINUE: "probability"},
        }

    @classmethod
    def specify(cls, config: CSVConfig, rows: pd.DataFrame) -> dict[str, Any]:
        """The specification of a new model: the config's seed, the means of its eyes, today's packages."""
        return {"seed": config.seed, "means": fit_case_means(rows), "packages": name_packages()}

    @classmethod
    def select_rows(cls, table: pd.DataFrame, config: CSVConfig) -> pd.DataFrame:
        """The eyes that have images of both visits, as the network's."""
        return build_case_table(table)

    def describe(self) -> str:
        """One line for a person."""
        return "CSVTrees, an ensemble of trees"

    def build_portable(self) -> Portable:
        """Raises NotPortable: what the trees see is looked up and counted in tables."""
        raise NotPortable("The recipe best makes no ONNX file: its trees see the person's other eye, looked up among "
                          "the training eyes, and choose VA among candidates; train with --recipe fixed for one.")

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that was learned."""
        return self._trees.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what state_dict gave; raises ValueError where it does not fit, and says what it was fitted with."""
        try:
            self._trees.load_state_dict(state)
        except ValueError as error:
            if self._packages == name_packages():
                raise
            then, now = (", ".join(f"{name} {number}" for name, number in packages.items()) or "other packages"
                         for packages in (self._packages, name_packages()))
            raise ValueError(f"its trees were fitted with {then}, and this is {now}. Train it again, or install those. "
                             f"({error})") from error

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """The tables that its eyes are read from."""
        return fingerprint_tables([paths.eye_table, paths.out_of_fold, paths.measures, paths.geometry_table])

    def fit(self, rows: pd.DataFrame, run: Run, paths: Paths, *, held_out: pd.DataFrame) -> None:
        """Learn from the same eyes as the network would, but from their rows as the tables give them.

        Args:
            rows: DataFrame of build_case_table.
            run: that keeps what is learned.
            paths: config.Paths.
            held_out: not looked at.

        Raises:
            PipelineError: too few treated eyes whose outcome is known, or out_of_fold.csv is of other folds.
        """
        eyes = read_processed(paths.eye_table, c.EYE_COLUMNS)
        eyes = eyes[eyes[c.PATIENT].isin(rows[c.PATIENT])].reset_index(drop=True)
        eyes = eyes.join(describe_eyes(eyes[c.PATIENT], paths))
        seen = None
        if paths.out_of_fold.is_file():
            predicted = read_out_of_fold(paths, run.config.fold, rows[c.PATIENT], held_out[c.PATIENT])
            seen = eyes.assign(**predicted.reindex(eyes[c.PATIENT]).reset_index(drop=True))
        say(f"{run.name}: fitting trees to {len(eyes)} eyes; that takes some seconds, ten or so for 3,000 eyes")
        self._trees.fit(eyes, seen)
        run.save_fitted(self)
        how = "with noise of the image models' size" if seen is None else \
            f"as image models saw them ({_describe_origin(paths)})"
        say(f"{run.name}: trees fitted to {len(eyes)} eyes, as labelled and {how}")

    def predict(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "predict") -> pd.DataFrame:
        """Predict each eye; any number of rows.

        Args:
            rows: DataFrame with final and model.eye_features.INPUTS, NaN where unknown, and how sure thickness is,
                where that is known. Patient ID as a column or the index.
            paths: config.Paths, where the measures of its scans may lie.
            label: not needed.

        Returns:
            DataFrame with the index of `rows`: VA (0 or more) and continue injection, the probability of class 1.
        """
        eyes = (rows if c.PATIENT in rows else rows.reset_index()).reset_index(drop=True)
        eyes = hide_filled(eyes, paths)
        scanned = describe_eyes(eyes[c.PATIENT], paths)
        unmeasured = int(scanned.isna().all(axis=1).sum())
        if unmeasured and set(SCANNED) & set(self._trees.columns or ()):
            say(f"Model-CSV learned from measured scans, and those of {unmeasured} of {len(eyes)} eyes are not "
                "measured: its answers there are worse. Option 11 (measure) measures what is new.")
        answers = self._trees.predict(eyes.join(scanned))
        return answers.set_axis(rows.index)


def _describe_origin(paths):
    """Which image models told what out_of_fold.csv holds, as text."""
    told = []
    if TOLD_BY in read_header(paths.out_of_fold):
        told = pd.read_csv(paths.out_of_fold, usecols=[TOLD_BY], dtype=str)[TOLD_BY].dropna().unique().tolist()
    return ", ".join([str(paths.out_of_fold), *told])


def read_out_of_fold(paths: Paths, fold: str, patients: pd.Series, held_out: pd.Series) -> pd.DataFrame:
    """What image models said of eyes that they had not seen.

    Args:
        paths: config.Paths.
        fold: that is held out, or "none".
        patients: IDs of the eyes to learn from.
        held_out: of those that are held out.

    Returns:
        DataFrame indexed by patient ID, with SEEN_COLUMNS and SURE_COLUMNS, NaN where the latter are not there.

    Raises:
        PipelineError: no such table, or it was made with other folds.
    """
    told = [name for name in SURE_COLUMNS if name in read_header(paths.out_of_fold)]
    table = read_processed(paths.out_of_fold, [c.PATIENT, *SEEN_COLUMNS, *told]).set_index(c.PATIENT)
    if fold != "none":
        folds = table.reindex(columns=[c.FOLD]).reindex([*patients, *held_out]).dropna()[c.FOLD]
        if folds.empty or ((folds == int(fold)) != folds.index.isin(held_out)).any():
            raise PipelineError(f"{paths.out_of_fold} was made with other folds than those of {paths.splits}. Delete "
                                "it; option 8 (evaluate) writes it anew once image models left out each of today's.")
    return table.reindex(columns=[*SEEN_COLUMNS, *SURE_COLUMNS])
