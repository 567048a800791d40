"""ImageTrees: the recipes measured and best of image models, trees over what Model-Segmentation measured on a visit's
scans; of best also over what pretrained runs see of eyes that they left out.

Reads data/processed/csv/{image_data,eyes,measures,geometry}.csv; the run writes what comes of it. N images, V visits
of which they are, T training visits.

Thickness, as a multiple of what was measured, or of what pretrained runs see, whichever foretells it better: the trees
mend it, unless what is seen is better as it is, and say which training visits a visit is like; by how much these were
missed, out of fold, is spread around it as a distribution. The answer is the value that is most probably within the
competition's tolerance. A finding: the mean of a forest over all features and of a logistic regression on how likely
fluid and foci are, which needs few labels.
"""

import zipfile
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import torch
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from config import PATHS, Paths
from model.csv_trees import name_packages
from model.distribution import BINS, Judgement, answer_images, bin_samples
from model.image_model import select_visit
from model.portable import NotPortable, Portable
from model.provenance import fingerprint_tables
from model.run import Run
from model.seers import find_seers, see_images
from model.trees import MISSING, TRUSTED
from model.visit_features import build_features, find_base, read_labels
from model_config import ImageConfig
from processing import columns as c
from processing.errors import PipelineError
from processing.terminal import say
from processing.visits import VISIT

LEARNED = ("columns", "image columns", "forest", "leaves", "missed", "findings", "seers", "base", "mends")
FOREST = {"n_estimators": 200, "min_samples_leaf": 3, "max_features": 0.5, "n_jobs": -1}
LEAST_LEAF, LEAVES = 2, 400         # rows of a leaf where findings are told: a LEAVES-th of all, or LEAST_LEAF
OUTLIER = 4.0               # times the median residual, from which on a label counts less than half
CHUNK = 200                 # visits that are compared with the training visits at once
EARLIER = {"base": "measured", "mends": True}           # of runs that do not say
SEEN_THICKNESS = "mean seen log thickness"      # of _build_features
BEST = "best"               # the recipe that asks pretrained runs, too
LEAST_VISITS, LEAST_PERSONS = 10, 2     # to learn from
FOLDS = 5


class ImageTrees:
    """Follows model.registry.Model.

    Args:
        specification: of specify; seed and findings are needed.
        device: torch.device; trees compute on the CPU.
    """

    kind, unit = "ImageTrees", "images"
    means: dict[str, dict[str, float]] = {}

    def __init__(self, specification: dict[str, Any], device: torch.device):
        self.specification, self.device = dict(specification), device
        self._seed = specification["seed"]
        self._findings = list(specification["findings"])
        self._learned: dict[str, Any] = {}

    @classmethod
    def specify(cls, config: ImageConfig, rows: pd.DataFrame) -> dict[str, Any]:
        """The specification of a new model: whose pretrained runs it asks (none: ""), the config's seed, today's
        findings and packages."""
        asked = config.name if config.recipe == BEST else ""
        return {"pretrained": asked, "seed": config.seed, "findings": list(c.FINDINGS), "packages": name_packages(),
                "outputs": {c.CST: "um, of the visit", "findings": "probability"}}

    @classmethod
    def select_rows(cls, table: pd.DataFrame, config: ImageConfig) -> pd.DataFrame:
        """The images of the config's visit."""
        return select_visit(table, config.visit)

    def describe(self) -> str:
        """One line for a person."""
        return f"ImageTrees over measures, findings {' '.join(self._findings)}"

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
            self._learned = {name: (EARLIER | learned)[name] for name in LEARNED}
        except (skops.io.exceptions.UntrustedTypesFoundException, zipfile.BadZipFile, KeyError, TypeError,
                AttributeError, ImportError) as error:
            raise ValueError(f"its trees cannot be built: {' '.join(str(error).split())}. They were fitted with "
                             f"{self.specification.get('packages')}, and this is {name_packages()}") from error

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """The tables and the pretrained runs that its features come from."""
        tables = fingerprint_tables([paths.image_table, paths.eye_table, paths.measures, paths.geometry_table])
        asked = self.specification.get("pretrained")
        runs = [seer["run"] for seer in find_seers(paths, asked).values()] if asked else []
        return tables | ({"pretrained runs": " ".join(runs) or "none"} if asked else {})

    def fit(self, rows: pd.DataFrame, run: Run, paths: Paths, *, held_out: pd.DataFrame) -> None:
        """Learn from images whose scans are measured. A visit's labels are its own: thickness and findings as eyes.csv
        gives them, before treatment or after it, and where nothing is given there nothing is learned.

        Args:
            rows: DataFrame of train.csv with the findings (0 / 1) of the final round's images.
            run: that keeps what is learned.
            paths: config.Paths.
            held_out: not looked at.

        Raises:
            PipelineError: option 11 has not measured them all, or there are too few visits.
        """
        asked = self.specification.get("pretrained")
        self._learned = {"seers": find_seers(paths, asked, tell=True) if asked else {}}
        images, visits = self._build_features(rows, paths)
        say(f"{run.name}: fitting trees to {len(visits)} visits; that takes a minute or two for 5,000")
        self._learned |= {"columns": list(visits.columns), "image columns": list(images.columns)}
        labels = read_labels(paths).reindex(visits.index)
        self._fit_thickness(labels[c.CST].to_numpy(), visits)
        own = rows[rows[c.FINAL] == 1]              # images that have labels of their own, where their visit has any
        given = labels.loc[pd.MultiIndex.from_frame(own[VISIT]), self._findings].notna().set_axis(own.index)
        own_labels = own[self._findings].astype(float).where(given)
        self._learned["findings"] = {
            name: [self._fit_finding(visits, labels[name].to_numpy()),
                   self._fit_finding(images.loc[own.index], own_labels[name].to_numpy())]
            for name in self._findings
        }
        run.save_fitted(self)
        say(f"{run.name}: trees fitted to {len(visits)} visits, {len(rows)} images")

    def _fit_thickness(self, target: np.ndarray, visits: pd.DataFrame) -> None:
        known = np.isfinite(target) & (target > 0)
        persons = visits.index.get_level_values(c.PATIENT)[known].map(c.person_of)
        if known.sum() < LEAST_VISITS or persons.nunique() < LEAST_PERSONS:
            raise PipelineError(f"Recipe measured: {known.sum()} visits of {persons.nunique()} persons whose thickness "
                                f"is known; {LEAST_VISITS} of {LEAST_PERSONS} are needed. Use more data, or recipe "
                                "fixed.")
        features, even = _to_array(visits)[known], np.ones(known.sum())
        ratios = {name: np.log(target[known] / base[known]) for name, base in _find_bases(visits).items()}
        misses = {(name, True): self._find_missed(features, ratio, persons, even) for name, ratio in ratios.items()}
        misses |= {("seen", False): ratios["seen"]} if "seen" in ratios else {}         # as seen, no forest about it
        base, mends = min(misses, key=lambda way: np.median(np.abs(misses[way])))
        ratio, missed = ratios[base], misses[base, mends]
        usual = max(float(np.median(np.abs(missed))), 1e-3)
        weights = 1 / (1 + (missed / (OUTLIER * usual)) ** 2)       # a wrong label counts less
        missed = self._find_missed(features, ratio, persons, weights) if mends else missed
        forest = self._grow_forest(features, ratio, weights)
        self._learned |= {"forest": forest, "leaves": forest.apply(features).astype(np.int32), "missed": missed,
                          "base": base, "mends": mends}

    def _find_missed(self, features: np.ndarray, ratio: np.ndarray, persons: pd.Index, weights: np.ndarray
                     ) -> np.ndarray:
        """By how much forests like the one that answers miss each visit when they have not learned from its person."""
        missed = np.empty_like(ratio)
        for learned, left in GroupKFold(min(FOLDS, persons.nunique())).split(features, groups=persons):
            forest = self._grow_forest(features[learned], ratio[learned], weights[learned])
            missed[left] = ratio[left] - forest.predict(features[left])
        return missed

    def _grow_forest(self, features: np.ndarray, ratio: np.ndarray, weights: np.ndarray) -> ExtraTreesRegressor:
        forest = ExtraTreesRegressor(**FOREST, random_state=self._seed)
        return forest.fit(features, ratio, weights).set_params(n_jobs=1)    # threads would add up in any order

    def _fit_finding(self, features: pd.DataFrame, labels: np.ndarray) -> Any:
        """A classifier of whether there is any; the share of the only label there is; None without a label."""
        known = np.isfinite(labels)
        if not known.any():
            return None
        positive = labels[known] > 0
        if len(np.unique(positive)) < 2:
            return float(positive.mean())
        leaf = max(LEAST_LEAF, int(known.sum()) // LEAVES)
        forest = ExtraTreesClassifier(**FOREST | {"min_samples_leaf": leaf}, random_state=self._seed)
        chances = [place for place, name in enumerate(features) if name.endswith("_chance")]
        filled = SimpleImputer(missing_values=MISSING, keep_empty_features=True)
        line = make_pipeline(ColumnTransformer([("chances", filled, chances)]), StandardScaler(),
                             LogisticRegression(max_iter=1000))
        judge = VotingClassifier([("forest", forest), ("line", line)], voting="soft")
        judge.fit(_to_array(features)[known], positive)
        judge.named_estimators_["forest"].set_params(n_jobs=1)
        return judge

    def predict(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "predict") -> pd.DataFrame:
        """Predict each image; any number of rows.

        Args:
            rows: DataFrame of train.csv or test.csv, labels not needed; option 11 has measured the images.
            paths: config.Paths.
            label: not needed.

        Returns:
            DataFrame with the index of `rows`: CST in um and how sure it is (c.sure_columns), the same for a visit's
            images, and the findings that the model knows as probabilities; those of images where images are labelled
            (final round), else of visits.
        """
        return answer_images(self.judge(rows, paths))

    def judge(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "predict") -> Judgement:
        """What the trees make of each image. Arguments as of predict."""
        if rows.empty:
            return Judgement(np.empty((0, BINS)), pd.DataFrame(columns=self._findings, index=rows.index, dtype=float))
        images, visits = self._build_features(rows, paths)
        absent = {*self._learned["columns"]} - {*visits} | {*self._learned["image columns"]} - {*images}
        if absent:
            raise PipelineError(f"{self.describe()} was made by an earlier version of this program and wants "
                                f"{min(absent)!r}, which is not known now. Train anew.")
        visits, images = visits[self._learned["columns"]], images[self._learned["image columns"]]
        number = visits.index.get_indexer(pd.MultiIndex.from_frame(rows[VISIT]))
        own = (rows[c.FINAL] == 1).to_numpy()
        findings = {}
        for name in self._findings:
            of_visits, of_images = self._learned["findings"][name]
            findings[name] = _ask(of_visits, visits)[number]
            if own.any() and of_images is not None:
                findings[name][own] = _ask(of_images, images[own])
        return Judgement(self._find_chances(visits)[number], pd.DataFrame(findings, index=rows.index))

    def _build_features(self, rows: pd.DataFrame, paths: Paths) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What is measured of images and visits, and of the recipe best what pretrained runs see."""
        images, visits = build_features(rows, paths)
        if not self._learned["seers"]:
            return images, visits
        seen = see_images(rows, paths, self._learned["seers"], self.device)
        of_visits = seen.groupby([rows[name] for name in VISIT]).mean().add_prefix("mean ")
        return images.join(seen.add_prefix("own ")), visits.join(of_visits)

    def _find_chances(self, visits: pd.DataFrame) -> np.ndarray:
        """The thickness of visits as distributions: V x bins float32."""
        forest, features = self._learned["forest"], _to_array(visits)
        middle = forest.predict(features) if self._learned["mends"] else np.zeros(len(features))
        leaves = forest.apply(features).astype(np.int32)
        known, base = self._learned["leaves"], np.log(_find_bases(visits)[self._learned["base"]])
        chances = np.empty((len(visits), BINS), np.float32)
        for start in range(0, len(visits), CHUNK):
            some = slice(start, start + CHUNK)
            weights = np.zeros((len(leaves[some]), len(known)))
            for tree in range(known.shape[1]):
                alike = leaves[some, tree, None] == known[:, tree]
                weights += alike / alike.sum(axis=1, keepdims=True)
            chances[some] = bin_samples((base + middle)[some, None] + self._learned["missed"], weights)
        return chances


def _find_bases(visits: pd.DataFrame) -> dict[str, np.ndarray]:
    """V thicknesses (um) that a visit's answer may be a multiple of: as measured; of the recipe best as pretrained runs
    see it, too. That from which the labels of unseen persons are missed least is taken.
    """
    bases = {"measured": find_base(visits)}
    if SEEN_THICKNESS in visits:
        bases["seen"] = np.exp(visits[SEEN_THICKNESS].to_numpy())
    return bases


def _to_array(features: pd.DataFrame) -> np.ndarray:
    """Features as the trees see them: MISSING where unknown."""
    return features.fillna(MISSING).to_numpy(np.float64)


def _ask(judge: Any, features: pd.DataFrame) -> np.ndarray:
    """Probabilities; without a label there is nothing to know: 0.5."""
    if judge is None or isinstance(judge, float):
        return np.full(len(features), 0.5 if judge is None else judge)
    # The last digits of a product of matrices depend on how many are asked at once
    return judge.predict_proba(_to_array(features))[:, 1].round(9)
