"""ImageTrees: the recipe measured of image models, trees over what Model-Segmentation measured on a visit's scans.

Reads data/processed/csv/{image_data,measures,geometry}.csv; the run writes what comes of it. N images, V visits of
which they are, T training visits.

Thickness: the trees say which training visits a visit is like; their thicknesses, each as a multiple of what was
measured, are its distribution. The answer is the value that is most probably within the competition's tolerance.
"""

import zipfile
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import torch
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict

from config import PATHS, Paths
from model.csv_trees import name_packages
from model.distribution import choose_thickness
from model.image_model import select_visit
from model.portable import NotPortable, Portable
from model.provenance import fingerprint_table
from model.run import Run
from model.trees import MISSING, TRUSTED
from model.visit_features import build_features, find_base
from model_config import ImageConfig
from processing import columns as c
from processing.errors import PipelineError
from processing.terminal import say
from processing.visits import VISIT

LEARNED = ("columns", "image columns", "forest", "leaves", "ratio", "weights", "findings")
FOREST = {"n_estimators": 200, "min_samples_leaf": 5, "max_features": 0.4, "n_jobs": -1}
BOOSTED = {"max_iter": 120, "learning_rate": 0.06, "max_leaf_nodes": 12, "min_samples_leaf": 15, "l2_regularization": 3}
OUTLIER = 4.0               # times the median residual, from which on a label counts less than half
CHUNK = 200                 # visits that are compared with the training visits at once
LEAST_VISITS = 10           # to learn from
FOLDS = 5


class ImageTrees:
    """Follows model.registry.Model.

    Args:
        specification: seed, target and findings.
        device: torch.device; trees compute on the CPU.
    """

    kind, unit = "ImageTrees", "images"
    means: dict[str, dict[str, float]] = {}

    def __init__(self, specification: dict[str, Any], device: torch.device):
        self.specification, self.device = dict(specification), device
        self._seed, self._target = specification["seed"], specification["target"]
        self._findings = list(specification["findings"])
        self._learned: dict[str, Any] = {}

    @classmethod
    def specify(cls, config: ImageConfig, rows: pd.DataFrame) -> dict[str, Any]:
        """The specification of a new model: the config's seed and target, today's findings and packages."""
        return {"seed": config.seed, "target": config.target, "findings": list(c.FINDINGS), "packages": name_packages(),
                "outputs": {c.CST: "um", "findings": "probability"}}

    @classmethod
    def select_rows(cls, table: pd.DataFrame, config: ImageConfig) -> pd.DataFrame:
        """The images of the config's visit."""
        return select_visit(table, config.visit)

    def describe(self) -> str:
        """One line for a person."""
        return f"ImageTrees over measures, target {self._target}, findings {' '.join(self._findings)}"

    def build_portable(self) -> Portable:
        """Raises NotPortable: what the trees see is looked up and counted in tables."""
        raise NotPortable("The recipe measured makes no ONNX file: its trees see a visit's measures, looked up in "
                          "tables. The network that measures (Model-Segmentation) makes one.")

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that was learned: dict of one uint8 tensor, a skops file (no pickle, no code)."""
        return {"skops": torch.frombuffer(bytearray(skops.io.dumps(self._learned)), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what state_dict gave; raises ValueError where it does not fit, and says what it was fitted with."""
        try:
            learned = skops.io.loads(state["skops"].numpy().tobytes(), trusted=TRUSTED)
            self._learned = {name: learned[name] for name in LEARNED}
        except (skops.io.exceptions.UntrustedTypesFoundException, zipfile.BadZipFile, KeyError, TypeError,
                AttributeError, ImportError) as error:
            raise ValueError(f"its trees cannot be built: {' '.join(str(error).split())}. They were fitted with "
                             f"{self.specification.get('packages')}, and this is {name_packages()}") from error

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """The tables that its features come from."""
        files = paths.image_table, paths.measures, paths.geometry_table
        return {file.name: fingerprint_table(file) for file in files if file.is_file()}

    def fit(self, rows: pd.DataFrame, run: Run, paths: Paths, *, held_out: pd.DataFrame) -> None:
        """Learn from images whose scans are measured.

        Args:
            rows: DataFrame of train.csv with the target (um) and findings (0 / 1).
            run: that keeps what is learned.
            paths: config.Paths.
            held_out: not looked at.

        Raises:
            PipelineError: option 11 has not measured them all, or there are too few visits.
        """
        images, visits = build_features(rows, paths)
        say(f"{run.name}: fitting trees to {len(visits)} visits; that takes a minute or two for 5,000")
        self._learned = {"columns": list(visits.columns), "image columns": list(images.columns)}
        self._fit_thickness(rows.groupby(VISIT)[self._target].first().reindex(visits.index).to_numpy(float), visits)
        self._learned["findings"] = {
            name: [self._fit_visit_finding(rows, visits, name), self._fit_image_finding(rows, images, name)]
            for name in self._findings
        }
        run.save_fitted(self)
        say(f"{run.name}: trees fitted to {len(visits)} visits, {len(rows)} images")

    def _fit_thickness(self, target: np.ndarray, visits: pd.DataFrame) -> None:
        known = np.isfinite(target) & (target > 0)
        if known.sum() < LEAST_VISITS:
            raise PipelineError(f"Recipe measured: {known.sum()} visits whose {self._target} is known; {LEAST_VISITS} "
                                "are needed. Use more data, or recipe fixed.")
        features, base = _to_array(visits)[known], find_base(visits)[known]
        ratio = np.log(target[known] / base)
        persons = visits.index.get_level_values(c.PATIENT)[known].map(c.person_of)
        weights = _weigh(features, ratio, persons, self._seed)
        forest = ExtraTreesRegressor(**FOREST, random_state=self._seed).fit(features, ratio, weights)
        self._learned |= {"forest": forest, "leaves": forest.apply(features).astype(np.int32), "ratio": ratio,
                          "weights": weights}

    def _fit_visit_finding(self, rows: pd.DataFrame, visits: pd.DataFrame, name: str) -> Any:
        """Whether a visit shows a finding: its label, or that of one of its images."""
        labels = rows.groupby(VISIT)[name].max().reindex(visits.index)
        return self._fit_finding(_to_array(visits), labels.to_numpy(float))

    def _fit_image_finding(self, rows: pd.DataFrame, images: pd.DataFrame, name: str) -> Any:
        """Whether an image shows it; learned where images have labels of their own. None: there are none."""
        own = (rows[c.FINAL] == 1).to_numpy()
        return self._fit_finding(_to_array(images[own]), rows.loc[own, name].to_numpy(float)) if own.any() else None

    def _fit_finding(self, features: np.ndarray, labels: np.ndarray) -> Any:
        """A classifier, or the share of the only label there is."""
        known = np.isfinite(labels)
        positive = labels[known] > 0.5
        if len(np.unique(positive)) < 2:
            return float(positive.mean()) if known.any() else 0.5
        return HistGradientBoostingClassifier(**BOOSTED, random_state=self._seed).fit(features[known], positive)

    def predict(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "predict") -> pd.DataFrame:
        """Predict each image; any number of rows.

        Args:
            rows: DataFrame of train.csv or test.csv, labels not needed; option 11 has measured the images.
            paths: config.Paths.
            label: not needed.

        Returns:
            DataFrame with the index of `rows`: CST in um, the same for a visit's images, and the findings that the
            model knows as probabilities; those of images where images are labelled (final round), else of visits.
        """
        if rows.empty:
            return pd.DataFrame(columns=[c.CST, *self._findings], index=rows.index, dtype=float)
        images, visits = build_features(rows, paths)
        visits, images = visits[self._learned["columns"]], images[self._learned["image columns"]]
        answers = pd.DataFrame({c.CST: choose_thickness(*self.find_distribution(visits))[0]}, index=visits.index)
        for name in self._findings:
            answers[name] = _ask(self._learned["findings"][name][0], _to_array(visits))
        table = answers.reindex(pd.MultiIndex.from_frame(rows[VISIT])).set_axis(rows.index)
        own = (rows[c.FINAL] == 1).to_numpy()
        for name in self._findings:
            judge = self._learned["findings"][name][1]
            if own.any() and judge is not None:
                table.loc[own, name] = _ask(judge, _to_array(images[own]))
        return table

    def find_distribution(self, visits: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """The thickness of visits: V x T samples (um), and V x T probabilities."""
        leaves = self._learned["forest"].apply(_to_array(visits)).astype(np.int32)
        known, weights = self._learned["leaves"], self._learned["weights"]
        chances = np.zeros((len(visits), len(known)))
        for start in range(0, len(visits), CHUNK):
            part = chances[start:start + CHUNK]
            for tree in range(known.shape[1]):
                alike = (leaves[start:start + CHUNK, tree, None] == known[:, tree]) * weights
                part += alike / alike.sum(axis=1, keepdims=True)
        samples = find_base(visits)[:, None] * np.exp(self._learned["ratio"])
        return samples, chances / chances.sum(axis=1, keepdims=True)


def _to_array(features: pd.DataFrame) -> np.ndarray:
    """Features as the trees see them: MISSING where unknown."""
    return features.fillna(MISSING).to_numpy(np.float64)


def _ask(judge: Any, features: np.ndarray) -> np.ndarray:
    return np.full(len(features), judge) if isinstance(judge, float) else judge.predict_proba(features)[:, 1]


def _weigh(features: np.ndarray, ratio: np.ndarray, persons: pd.Index, seed: int) -> np.ndarray:
    """How much each visit's label counts: less the further it lies from what others, of other persons, would say."""
    folds = min(FOLDS, persons.nunique())
    if folds < 2:
        return np.ones(len(ratio))
    forest = ExtraTreesRegressor(**FOREST, random_state=seed)
    off = np.abs(ratio - cross_val_predict(forest, features, ratio, groups=persons, cv=GroupKFold(folds)))
    return 1 / (1 + (off / (OUTLIER * max(float(np.median(off)), 1e-3))) ** 2)
