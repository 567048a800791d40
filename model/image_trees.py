"""ImageTrees: the recipes measured and best of image models, trees over what Model-Segmentation measured on a visit's
scans; of best also over what pretrained runs see of eyes that they left out.

Reads data/processed/csv/{image_data,eyes,measures,geometry}.csv; the run writes what comes of it. N images, V visits
of which they are, T training visits, F features, B bins of thickness (model.distribution).

Thickness is told as a multiple of what was measured (to BM or to the RPE), or of what pretrained runs see, whichever
foretells it best: the trees mend it, and say which training visits a visit is like; by how much these were missed, out
of fold, is spread around it as a distribution. Of best the pretrained runs' own distribution has a share, as large as
makes the labels of unseen persons likeliest. The answer is the value that is most probably within the competition's
tolerance. A finding: the mean of a forest over all features and of a logistic regression on how likely fluid and foci
are, which needs few labels.
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
from model.distribution import BINS, MIDDLES_UM, Judgement, answer_images, bin_samples
from model.image_model import select_visit
from model.metrics import CST_TOLERANCE, hits_thickness
from model.portable import NotPortable, Portable
from model.provenance import fingerprint_tables
from model.run import Run
from model.seers import find_seers, see_images
from model.trees import MISSING, TRUSTED
from model.visit_features import (
    BASE,
    TO_RPE,
    build_features,
    find_base,
    knows_thickness,
    read_labels,
    require_measures,
)
from model_config import ImageConfig
from processing import columns as c
from processing.errors import PipelineError
from processing.terminal import say
from processing.visits import VISIT

LEARNED = ("columns", "image columns", "forest", "leaves", "missed", "findings", "seers", "base", "seen share", "usual")
FOREST = {"n_estimators": 200, "min_samples_leaf": 3, "max_features": 0.5, "n_jobs": -1}
TRIED_TREES = 40            # of the forests that only tell which base is best
LEAST_LEAF, LEAVES = 2, 400         # rows of a leaf where findings are told: a LEAVES-th of all, or LEAST_LEAF
FAR_MISS = 2 * CST_TOLERANCE    # of a logarithm: what misses a label by more is no worse for it
OUTLIER = 4.0               # times the median residual, from which on a label counts less than half
CHUNK = 200                 # visits that are compared with the training visits at once
BASES = {"to BM": BASE, "to RPE": TO_RPE}               # thickness that was measured
SEEN, SEEN_THICKNESS = "seen", "mean seen log thickness"        # by pretrained runs; of _build_features
SHARES = np.linspace(0, 1, 101)     # that a distribution of what is seen may have
STRAY = 0.01                # of a distribution, may be anywhere: of a label that is a slip
BEST = "best"               # the recipe that asks pretrained runs, too
LEAST_VISITS, LEAST_PERSONS = 10, 2     # to learn from
FOLDS = 5
Folds = list[tuple[np.ndarray, np.ndarray]]     # visits that are learned from, and those that are left out


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
            absent = {*LEARNED} - {*learned}
            self._learned = learned
        except (skops.io.exceptions.UntrustedTypesFoundException, zipfile.BadZipFile, KeyError, TypeError,
                AttributeError, ImportError) as error:
            raise ValueError(f"its trees cannot be built: {' '.join(str(error).split())}. They were fitted with "
                             f"{self.specification.get('packages')}, and this is {name_packages()}") from error
        if absent:
            raise ValueError("an earlier version of this program made it, whose trees were others; train anew")

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """The tables and the pretrained runs that its features come from; raises PipelineError where option 11 has not
        measured all of `rows`: before any training begins."""
        require_measures(paths, rows[c.SOURCE])
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
        images, visits, seen = self._build_features(rows, paths)
        say(f"{run.name}: fitting trees to {len(visits)} visits; that takes a minute or two for 5,000")
        self._learned |= {"columns": list(visits.columns), "image columns": list(images.columns)}
        labels = read_labels(paths).reindex(visits.index)
        self._fit_thickness(labels[c.CST].to_numpy(), visits, seen)
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

    def _fit_thickness(self, target: np.ndarray, visits: pd.DataFrame, seen: np.ndarray | None) -> None:
        known = np.isfinite(target) & (target > 0)
        persons = visits.index.get_level_values(c.PATIENT)[known].map(c.person_of)
        if known.sum() < LEAST_VISITS or persons.nunique() < LEAST_PERSONS:
            raise PipelineError(f"Recipe measured: {known.sum()} visits of {persons.nunique()} persons whose thickness "
                                f"is known; {LEAST_VISITS} of {LEAST_PERSONS} are needed. Use more data, or recipe "
                                "fixed.")
        features, logs = _to_array(visits)[known], np.log(target[known])
        folds = list(GroupKFold(min(FOLDS, persons.nunique())).split(features, groups=persons))
        ratios = {name: logs - np.log(base[known]) for name, base in _find_bases(visits).items()}
        even = np.ones(len(logs))
        tried = {name: self._grow_forests(features, ratio, even, folds, TRIED_TREES) for name, ratio in ratios.items()}
        misses = {name: np.abs(_find_missed(tried[name], folds, features, ratio)) for name, ratio in ratios.items()}
        base = min(misses, key=lambda name: np.minimum(misses[name], FAR_MISS).mean())
        ratio = ratios[base]
        missed = _find_missed(self._grow_forests(features, ratio, even, folds), folds, features, ratio)
        typical = max(float(np.median(np.abs(missed))), 1e-3)
        weights = 1 / (1 + (missed / (OUTLIER * typical)) ** 2)       # a wrong label counts less
        unseen = self._grow_forests(features, ratio, weights, folds)
        missed = _find_missed(unseen, folds, features, ratio)
        forest = self._grow_forest(features, ratio, weights)
        share = 0.0
        if seen is not None:
            of_trees = np.empty((len(logs), BINS), np.float32)
            for (learned, left), one in zip(folds, unseen, strict=True):
                of_trees[left] = _spread(one, features[left], (logs - ratio)[left],
                                         one.apply(features[learned]), missed[learned])
            share = _find_share(seen[known], of_trees, target[known])
        usual = pd.Series(np.log(target[known]), visits.index[known]).groupby(c.AFTER).agg(np.array).to_dict()
        self._learned |= {"forest": forest, "leaves": forest.apply(features).astype(np.int32), "missed": missed,
                          "base": base, "seen share": share, "usual": usual}

    def _grow_forests(self, features: np.ndarray, ratio: np.ndarray, weights: np.ndarray, folds: Folds,
                      trees: int | None = None) -> list[ExtraTreesRegressor]:
        """Forests like the one that answers, each of which has not learned from the persons whom a fold leaves out."""
        return [self._grow_forest(features[learned], ratio[learned], weights[learned], trees) for learned, _ in folds]

    def _grow_forest(self, features: np.ndarray, ratio: np.ndarray, weights: np.ndarray, trees: int | None = None
                     ) -> ExtraTreesRegressor:
        forest = ExtraTreesRegressor(**FOREST | ({"n_estimators": trees} if trees else {}), random_state=self._seed)
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
        images, visits, seen = self._build_features(rows, paths)
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
        return Judgement(self._find_chances(visits, seen)[number], pd.DataFrame(findings, index=rows.index))

    def _build_features(self, rows: pd.DataFrame, paths: Paths
                        ) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray | None]:
        """What is measured of images and of visits; of the recipe best also what pretrained runs see: as features, and
        as distributions of the visits' thickness (V x B; else None)."""
        images, visits = build_features(rows, paths)
        if not self._learned["seers"]:
            return images, visits, None
        seen, chances = see_images(rows, paths, self._learned["seers"], self.device)
        of_visits = np.empty((len(visits), BINS))
        of_visits[visits.index.get_indexer(pd.MultiIndex.from_frame(rows[VISIT]))] = chances    # a visit's are the same
        means = seen.groupby([rows[name] for name in VISIT]).mean().add_prefix("mean ")
        return images.join(seen.add_prefix("own ")), visits.join(means), of_visits

    def _find_chances(self, visits: pd.DataFrame, seen: np.ndarray | None) -> np.ndarray:
        """The thickness of visits as distributions: V x B."""
        base = np.log(_find_bases(visits)[self._learned["base"]])
        of_trees = _spread(self._learned["forest"], _to_array(visits), base, self._learned["leaves"],
                           self._learned["missed"])
        share = self._learned["seen share"]
        chances = of_trees if seen is None else share * seen + (1 - share) * of_trees
        for place in np.flatnonzero(~knows_thickness(visits)):      # the trees have a guess, and think it measured
            chances[place] = self._tell_usual(visits.index[place]) if seen is None else seen[place]
        return chances

    def _tell_usual(self, visit: tuple[str, int]) -> np.ndarray:
        """B chances: the thickness of the training's visits before treatment, or after it."""
        usual = self._learned["usual"]
        logs = usual.get(visit[1], np.concatenate(list(usual.values())))
        return bin_samples(logs[None], np.ones((1, len(logs))))[0]


def _find_bases(visits: pd.DataFrame) -> dict[str, np.ndarray]:
    """V thicknesses (um) that a visit's answer may be a multiple of: as measured, or as pretrained runs see it."""
    bases = {name: find_base(visits, column) for name, column in BASES.items()}
    return bases | ({SEEN: np.exp(visits[SEEN_THICKNESS].to_numpy())} if SEEN_THICKNESS in visits else {})


def _find_missed(forests: list[ExtraTreesRegressor], folds: Folds, features: np.ndarray, ratio: np.ndarray
                 ) -> np.ndarray:
    """By how much forests miss the visits (T ratios) of the persons whom their fold leaves out."""
    missed = np.empty_like(ratio)
    for forest, (_, left) in zip(forests, folds, strict=True):
        missed[left] = ratio[left] - forest.predict(features[left])
    return missed


def _spread(forest: ExtraTreesRegressor, features: np.ndarray, base: np.ndarray, known: np.ndarray, missed: np.ndarray
            ) -> np.ndarray:
    """What a forest makes of visits, with what similar ones were missed by around it.

    Args:
        forest: which tells by how much the logarithm of thickness differs from the base's.
        features: V x F.
        base: V logarithms.
        known: T x trees, leaves of the training visits.
        missed: T, by how much these were missed.

    Returns:
        V x B float32.
    """
    middle, leaves = base + forest.predict(features), forest.apply(features)
    chances = np.empty((len(features), BINS), np.float32)
    for start in range(0, len(features), CHUNK):
        some = slice(start, start + CHUNK)
        weights = np.zeros((len(leaves[some]), len(known)))
        for tree in range(known.shape[1]):
            alike = leaves[some, tree, None] == known[:, tree]
            weights += alike / alike.sum(axis=1, keepdims=True)
        chances[some] = bin_samples(middle[some, None] + missed, weights)
    return chances


def _find_share(seen: np.ndarray, of_trees: np.ndarray, target: np.ndarray) -> float:
    """The share of `seen` in a mixture with `of_trees` (both T x B) that makes it likeliest that T labels (um) are hit,
    by the sum of the logarithms."""
    near = hits_thickness(target[:, None], MIDDLES_UM)
    one, other = ((1 - STRAY) * (chances * near).sum(axis=1) + STRAY for chances in (seen, of_trees))
    likely = [np.log(share * one + (1 - share) * other).sum() for share in SHARES]
    return float(SHARES[np.argmax(likely)])


def _to_array(features: pd.DataFrame) -> np.ndarray:
    """Features as the trees see them: MISSING where unknown."""
    return features.fillna(MISSING).to_numpy(np.float64)


def _ask(judge: Any, features: pd.DataFrame) -> np.ndarray:
    """Probabilities; without a label there is nothing to know: 0.5."""
    if judge is None or isinstance(judge, float):
        return np.full(len(features), 0.5 if judge is None else judge)
    # The last digits of a product of matrices depend on how many are asked at once
    return judge.predict_proba(_to_array(features))[:, 1].round(9)
