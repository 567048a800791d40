"""Recipe `best` of Model-CSV: trees that see an eye's row as it is, what is missing and which round included.

VA: the score rewards a hit within a tolerance, so TreeModel judges candidates: of an eye and a value of VA, how
probable is a hit? The most probable candidate is the answer. Continue injection: the calibrated mean of three
classifiers. Reads and writes nothing; model/checkpoint.py stores it.

N eyes, K candidates, F features.
"""

import io
import zipfile
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import torch
from numpy.typing import ArrayLike
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from model.decision import decide, find_ends
from model.eye_features import EXTRAS, INPUTS, OPTIONAL, add_noise, build_features, mark_exact
from model.metrics import acuity_tolerance, hits_acuity
from processing import columns as c
from processing.acuity import LEAST_DECIMAL, convert_va
from processing.errors import PipelineError

OTHER_ROUND_WEIGHT = 0.3            # of the other round's eyes, their VA brought into this round's unit
# Candidates for logMAR, in steps of the tolerance; decimal acuity takes so few values that find_candidates finds them
LOGMAR_CANDIDATES = (
    *np.arange(0, 1.11, 0.05).round(2), 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.85, 2.0, 2.15, 2.3, 2.5, 2.7, 2.85, 3.0,
)
STEPS = (-0.1, -0.05, 0.0, 0.05, 0.1)       # candidates around preVA
MISSING = -9999.0                   # stands for NaN: scikit-learn cannot bin a column that no row knows
NOISY_WEIGHT = 0.5
TOO_FEW = "Recipe best: too few treated eyes with and without continued injection."
SHARED_FROM = 50_000         # eyes: fewer are fitted and asked by one thread
# All that a stored TreeModel may hold beside plain values; any other class in it is refused
TRUSTED = [
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
]


class TreeModel:
    """Eyes -> VA and continue injection.

    Args:
        seed: of the trees and the noise.
    """

    recipe = "best"

    def __init__(self, seed: int = 2021):
        self.seed = seed
        self.known: Any = None      # training eyes, for the fellow eyes of others
        self.columns: list[str] | None = None           # features; None: of an earlier version, all but EXTRAS
        self.judges: dict[int, Any] = {}                # round (0, 1) -> how probable a hit is
        self.candidates: dict[int, np.ndarray] = {}     # round -> K values of VA
        self.outcomes: dict[int, np.ndarray] = {}       # round -> known VA of its training eyes, sorted
        self.continues: Any = None

    def fit(self, eyes: pd.DataFrame, seen: pd.DataFrame | None = None) -> "TreeModel":
        """Learn from treated eyes; untreated ones serve as fellow eyes only.

        Each eye is learned from twice: as the doctor labelled it, and as the image models see it.

        Args:
            eyes: DataFrame with INPUTS, VA and continue injection, and what is known of OPTIONAL; NaN where missing,
                one row per eye.
            seen: the same rows with thickness and findings as image models predicted them that did not learn from
                these eyes; None: with noise of their size (add_noise).

        Returns:
            self.

        Raises:
            PipelineError: too few treated eyes whose outcome is known.
        """
        with self._limit_threads(eyes):
            return self._fit(eyes, seen)

    def _fit(self, eyes, seen):
        self.known = eyes[INPUTS].reset_index(drop=True)
        treated = (eyes[c.DIAGNOSIS] != c.UNTREATED).to_numpy()
        seen = add_noise(eyes, np.random.default_rng(self.seed)) if seen is None else seen
        clean, noisy = (self._features(copy) for copy in (mark_exact(eyes), seen))
        known = pd.concat([clean, noisy])[EXTRAS].ne(MISSING).any()
        self.columns = [name for name in clean if known.get(name, True)]
        clean, noisy = clean[self.columns], noisy[self.columns]
        weights = np.repeat([1.0, NOISY_WEIGHT], len(eyes))
        self._fit_va(eyes, [clean, noisy], weights, treated)
        self._fit_continue(eyes, pd.concat([clean, noisy]), treated)
        return self

    def predict(self, eyes: pd.DataFrame) -> pd.DataFrame:
        """Predict each row.

        Args:
            eyes: DataFrame with INPUTS and what is known of OPTIONAL; NaN where missing. Fellow eyes are looked up here
                and among those of fit.

        Returns:
            DataFrame with the index of `eyes`: VA in the round's unit, continue injection as a probability, and how
            sure VA is (c.sure_columns).
        """
        features = self._features(eyes)
        features = features[self.columns or [name for name in features if name not in EXTRAS]]
        va, probability = np.empty((len(eyes), 4)), np.empty(len(eyes))
        with self._limit_threads(eyes):
            for final, rows in _rounds(eyes):
                if rows.any():
                    va[rows] = self._choose_va(features[rows], eyes[rows], final)
            if len(eyes):
                probability[:] = self.continues.predict_proba(features.to_numpy())[:, 1]
        sure = dict(zip(c.sure_columns(c.VA), va[:, 1:].T, strict=True))
        return pd.DataFrame({c.VA: va[:, 0], c.CONTINUE: probability, **sure}, index=eyes.index)

    def _limit_threads(self, eyes):
        """Few rows are not worth sharing: where another program has the cores, threads wait for one another."""
        return threadpool_limits(1) if len(eyes) < SHARED_FROM else nullcontext()

    # ---- As a module's, so that a checkpoint can hold it

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that was learned: dict of one uint8 tensor, a skops file (no pickle, no code)."""
        content = {
            "known": self.known.to_dict("list"), "columns": self.columns, "judges": list(self.judges.items()),
            "candidates": list(self.candidates.items()), "outcomes": list(self.outcomes.items()),
            "continues": self.continues,
        }
        return {"skops": torch.frombuffer(bytearray(skops.io.dumps(content)), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what state_dict gave.

        Raises:
            ValueError: damaged, of another version of scikit-learn, or holds what it must not.
        """
        data = io.BytesIO(state["skops"].numpy().tobytes())
        try:
            content = skops.io.loads(data.getvalue(), trusted=TRUSTED)
            self.known = pd.DataFrame(content["known"])
            for name in ("judges", "candidates", "outcomes"):
                setattr(self, name, dict(content[name]))
            self.continues, self.columns = content["continues"], content.get("columns")
        except (skops.io.exceptions.UntrustedTypesFoundException, zipfile.BadZipFile, KeyError, TypeError,
                AttributeError, ImportError) as error:      # the last two: of a class that has moved or changed
            raise ValueError(f"its trees cannot be built: {' '.join(str(error).split())}") from error

    # ---- VA

    def _fit_va(self, eyes, copies, weights, treated):
        known = treated & eyes[c.VA].notna().to_numpy()
        for final, own in _rounds(eyes):
            if not (known & own).any():
                continue
            va = convert_va(eyes[c.VA], eyes[c.FINAL], final)
            pre_va = convert_va(eyes[c.PRE_VA], eyes[c.FINAL], final)
            values = np.sort(va[known & own])
            self.outcomes[final] = values
            self.candidates[final] = find_candidates(values) if final else np.array(LOGMAR_CANDIDATES)
            if final:       # the other round's acuities are finer than this one's steps
                va, pre_va = _nearest(va, values), _nearest(pre_va, values)
            tables, hits = zip(*(self._pairs(copy, pre_va, final, va) for copy in copies), strict=True)
            weight = weights * np.tile(np.where(own, 1.0, OTHER_ROUND_WEIGHT), 2)
            count = len(tables[0]) // len(eyes)
            used = np.repeat(np.tile(known & np.isfinite(va), 2), count)
            judge = HistGradientBoostingClassifier(
                max_iter=150, learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=40, l2_regularization=10,
                early_stopping=False, random_state=self.seed,
            )
            hits = np.concatenate(hits)[used]
            if len(np.unique(hits)) < 2:
                raise PipelineError("Recipe best: every known VA is the same; there is nothing to learn.")
            self.judges[final] = judge.fit(np.concatenate(tables)[used], hits, np.repeat(weight, count)[used])
        if not self.judges:
            raise PipelineError("Recipe best: no treated eye whose VA is known. Use more data, or recipe fixed.")

    def _choose_va(self, features, eyes, final):
        """N x 4: the most probable candidate of each eye, its chance, and an interval; brought from the other round's
        unit where this one is unknown.
        """
        learned = final if final in self.judges else 1 - final
        pre_va = convert_va(eyes[c.PRE_VA], eyes[c.FINAL], learned)
        if learned:
            pre_va = _nearest(pre_va, self.outcomes[learned])       # as it was learned
        table, _ = self._pairs(features, pre_va, learned)
        hit = self.judges[learned].predict_proba(table)[:, 1].reshape(len(eyes), -1)        # N x K
        best, chance = decide(self._candidates_of(pre_va, learned), hit)
        interval = self._find_interval(hit[:, :len(self.candidates[learned])], learned)
        values = [convert_va(column, np.full(len(eyes), learned), final) for column in (best, *interval.T)]
        low, high = np.sort(values[1:], axis=0)         # decimal and logMAR run against one another
        return np.column_stack([values[0], chance, np.minimum(low, values[0]), np.maximum(high, values[0])])

    def _find_interval(self, hit, final):
        """N x 2: bounds of VA, from the chances of the round's shared candidates (N x K).

        A value's probability is its share of the training eyes, times how much likelier than among all of them a hit of
        the candidate beside it is for this eye.
        """
        candidates = self.candidates[final]
        values, counts = np.unique(self.outcomes[final], return_counts=True)
        beside = np.abs(values[:, None] - candidates).argmin(axis=1)
        usual = np.maximum(self._share_hit(candidates, final)[beside], 1e-3)
        weights = counts * hit[:, beside] / usual
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        return values[find_ends(weights)]

    def _candidates_of(self, pre_va, final):
        """N x K candidates: the round's, and some around each eye's preVA."""
        pre_va = np.where(np.isnan(pre_va), np.median(self.candidates[final]), pre_va)
        shared = np.broadcast_to(self.candidates[final], (len(pre_va), len(self.candidates[final])))
        most = max(1.0, self.outcomes[final][-1]) if final else 3.0
        return np.concatenate([shared, (pre_va[:, None] + np.array(STEPS)).clip(0, most)], axis=1)

    def _pairs(self, features, pre_va, final, va=None):
        """Each eye with each candidate: N*K x F+6 features, and whether `va` would be hit."""
        candidates = self._candidates_of(pre_va, final)
        count = candidates.shape[1]
        candidate, pre_va = candidates.ravel(), np.repeat(pre_va, count)
        step = candidate - pre_va
        logmar = convert_va(candidate, final, 0) - convert_va(pre_va, final, 0)
        own = np.column_stack([candidate, pre_va, step, np.abs(step), logmar, self._share_hit(candidate, final)])
        table = np.concatenate([np.repeat(features.to_numpy(), count, axis=0), np.nan_to_num(own, nan=MISSING)], axis=1)
        if va is None:
            return table, None
        return table, hits_acuity(np.repeat(va, count), candidate)

    def _share_hit(self, candidate, final):
        """Share of the round's training eyes that each candidate would hit."""
        values, inverse = np.unique(candidate.round(6), return_inverse=True)
        hit = hits_acuity(self.outcomes[final], np.nan_to_num(values)[:, None])
        return hit.mean(axis=1)[inverse]

    # ---- Continue injection

    def _fit_continue(self, eyes, features, treated):
        known = treated & eyes[c.CONTINUE].notna().to_numpy()
        answer = eyes[c.CONTINUE].fillna(0).to_numpy() > 0.5
        persons = eyes[c.PATIENT].map(c.person_of).to_numpy()
        fewest = min(len(set(persons[known & answer])), len(set(persons[known & ~answer])))
        if fewest < 2:
            raise PipelineError(TOO_FEW)
        used = np.tile(known, 2)
        answer, persons = np.tile(answer, 2)[used], np.tile(persons, 2)[used]
        places = _split_persons(answer, persons, min(4, fewest))
        voters = [
            ("extra", ExtraTreesClassifier(150, min_samples_leaf=8, max_features=0.4, random_state=self.seed)),
            ("boosted", HistGradientBoostingClassifier(
                max_iter=200, learning_rate=0.03, max_leaf_nodes=8, min_samples_leaf=30, l2_regularization=10,
                max_features=0.3, random_state=self.seed)),
            ("logistic", make_pipeline(
                SimpleImputer(missing_values=MISSING, add_indicator=True, keep_empty_features=True), StandardScaler(),
                LogisticRegression(C=0.03, max_iter=2000))),
        ]
        self.continues = CalibratedClassifierCV(VotingClassifier(voters, voting="soft"), cv=places, ensemble=False)
        self.continues.fit(features[used].to_numpy(), answer)

    # ---- What the trees see

    def _features(self, eyes):
        """N x F features, EXTRAS among them; MISSING where missing, which a tree can tell from any value."""
        known = self.known[~self.known[c.PATIENT].isin(eyes[c.PATIENT])]
        both = pd.concat([eyes.reindex(columns=[*INPUTS, *OPTIONAL]), known], ignore_index=True)
        return build_features(both).iloc[: len(eyes)].fillna(MISSING)


def find_candidates(values: ArrayLike) -> np.ndarray:
    """Values of VA whose windows of tolerance hold as much as can be held together.

    Args:
        values: array of known VA.

    Returns:
        Sorted array: the middle of each stretch of answers (or the one answer) that hits a set of values which no
        other set includes.

    >>> find_candidates([0.25, 0.32, 1.0]).round(3).tolist()
    [0.285, 1.0]
    >>> find_candidates([0.4, 0.5]).tolist()
    [0.45]
    """
    distinct = np.unique(np.asarray(values, float).round(3))
    tolerance = acuity_tolerance(distinct)
    edges = np.unique(np.concatenate([distinct - tolerance, distinct + tolerance]).round(6))
    middles = np.concatenate([(edges[:-1] + edges[1:]) / 2, edges])     # an edge may hit two values by itself
    hits = hits_acuity(distinct, middles[:, None])          # middles x values
    hits, places = np.unique(hits, axis=0, return_index=True)
    sizes = hits.sum(axis=1)
    included = (hits <= hits[:, None]).all(axis=2) & (sizes < sizes[:, None])       # row holds column, and more
    return np.sort(middles[places[~included.any(axis=0) & (sizes > 0)]].clip(min=0))


def _split_persons(answer, persons, most):
    """Parts of rows, at most so many, such that both answers are among the others of each: (others, part) of each.

    Raises:
        PipelineError: there are none such.
    """
    for count in range(most, 1, -1):
        places = list(StratifiedGroupKFold(count).split(answer, answer, persons))
        if all(len(np.unique(answer[others])) == 2 for others, _ in places):
            return places
    raise PipelineError(TOO_FEW)


def _nearest(va, values):
    """Each of `va` as the nearest of `values`, on a logarithmic scale; NaN stays."""
    values = np.unique(np.clip(values, LEAST_DECIMAL, None).round(3))
    logs = np.log(np.clip(va, LEAST_DECIMAL, None))
    nearest = values[np.abs(logs[:, None] - np.log(values)).argmin(axis=1)]
    return np.where(np.isnan(va), np.nan, nearest)


def _rounds(eyes):
    """(round, which eyes are of it) of both rounds."""
    return [(final, (eyes[c.FINAL] == final).to_numpy()) for final in (0, 1)]
