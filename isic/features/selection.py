"""Which features a stack keeps: chosen on a fold's training rows.

`fit(values, names, target, groups)` -> `Selection`, for each of the three ways:

| selector | asks |
|---|---|
| `StatisticalSelection` | ANOVA F, mutual information, chi2: mean of the ranks; a fixed number |
| `PermutationSelection` | what a model loses on rows it did not see when a feature is shuffled |
| `NullImportance` | whether the gain is above that with shuffled labels |

Source: the reference system's 55 -> 20 (the three tests); 1st and 13th place of ISIC 2024 (dropped
by permutation); Altmann et al. 2010 (null importance). Row unit: a sample, (N, F) float32.
A stack's folder lists what its folds kept in `kept.txt` (`isic.stages.stack_fit`).
Trap: features chosen on all rows have seen the validation labels: fit inside the fold.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.errors import ConfigError, DataError, first_five
from isic.features.relevance import anova_f, chi2, mutual_information

log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]
Target = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Metric = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Selection:
    """What was kept, and why.

    kept: Names in the order of the table. scores: Every feature's score, larger = kept sooner.
    """

    kept: tuple[str, ...]
    scores: dict[str, float]


@dataclass(frozen=True)
class StatisticalSelection:
    """Keep the `keep` best by the mean rank of three tests; constant features are never kept."""

    keep: int = 20

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"selection.keep: at least 1, got {self.keep}")

    def fit(
        self,
        values: Matrix,
        names: Sequence[str],
        target: Target,
        groups: npt.NDArray[Any] | None = None,
    ) -> Selection:
        """Score features on training rows; `groups` is not looked at."""
        _check(values, names, target)
        tests = [test(values, target) for test in (anova_f, mutual_information, chi2)]
        varies = np.isfinite(tests[0]) & (tests[1] > 0)
        rank = np.mean([_ranks(np.nan_to_num(t, nan=-1.0)) for t in tests], axis=0)
        score = np.where(varies, rank, -1.0)
        best = np.argsort(-score, kind="stable")[: min(self.keep, int(varies.sum()))]
        return _selection(names, score, np.sort(best))


@dataclass(frozen=True)
class PermutationSelection:
    """Keep features whose shuffling costs a model something on rows it did not see.

    estimator: `() -> model` with `fit` and `predict_proba`. metric: (target, probs) -> float,
        larger is better. folds: Of the training rows, by groups. repeats: Shuffles of a feature.
    least: Mean loss that a kept feature has more than.
    """

    estimator: Callable[[], Any]
    metric: Metric
    folds: int = 3
    repeats: int = 3
    least: float = 0.0
    seed: int = 0

    def fit(
        self,
        values: Matrix,
        names: Sequence[str],
        target: Target,
        groups: npt.NDArray[Any] | None = None,
    ) -> Selection:
        """Mean loss of every feature; groups (N,) keep a patient's rows in one inner fold."""
        from sklearn.model_selection import StratifiedGroupKFold

        _check(values, names, target)
        rng = np.random.default_rng(self.seed)
        groups = np.arange(len(target)) if groups is None else groups
        inner = StratifiedGroupKFold(self.folds, shuffle=True, random_state=self.seed)
        losses = []
        for train, held in inner.split(values, target, groups):
            known = np.unique(target[train])
            held = held[np.isin(target[held], known)]  # a rare class may be of one patient
            if len(known) < 2 or len(np.unique(target[held])) < 2:
                continue
            model = self.estimator()
            model.fit(values[train], np.searchsorted(known, target[train]))
            losses.append(self._losses(model, known, values[held], target[held], rng))
        if not losses:
            raise DataError(
                "selection: no inner fold trains and tests two classes; take "
                "selection=statistical, or fewer inner folds: selection.folds=2"
            )
        score = np.mean(losses, axis=0)
        return _selection(names, score, np.flatnonzero(score > self.least))

    def _losses(
        self, model: Any, known: Target, held: Matrix, target: Target, rng: np.random.Generator
    ) -> Scores:
        """Of each feature (F,); a feature that is constant in `held` costs nothing.

        known: Classes that the model was fitted on; only those of `target` are scored.
        """
        present, label = np.unique(target, return_inverse=True)
        columns = np.searchsorted(known, present)

        def metric() -> float:
            return self.metric(label, _probs(model, held, columns))

        whole = metric()
        losses = np.zeros(held.shape[1])
        for i in range(held.shape[1]):
            column = held[:, i].copy()
            if np.array_equal(column, np.full_like(column, column[0]), equal_nan=True):
                continue
            for _ in range(self.repeats):
                held[:, i] = rng.permutation(column)
                losses[i] += (whole - metric()) / self.repeats
            held[:, i] = column
        return losses


@dataclass(frozen=True)
class NullImportance:
    """Keep features whose importance beats that which shuffled labels give them.

    estimator: `() -> model` with `fit` and `feature_importances_` (gain).
    shuffles: Models with shuffled labels. quantile: Of their importances, to be exceeded.
    """

    estimator: Callable[[], Any]
    shuffles: int = 20
    quantile: float = 0.75
    seed: int = 0

    def fit(
        self,
        values: Matrix,
        names: Sequence[str],
        target: Target,
        groups: npt.NDArray[Any] | None = None,
    ) -> Selection:
        """Score = log of importance over the quantile of null importances, both plus one."""
        _check(values, names, target)
        rng = np.random.default_rng(self.seed)
        real = self._importance(values, target)
        null = [self._importance(values, rng.permutation(target)) for _ in range(self.shuffles)]
        bar = np.quantile(null, self.quantile, axis=0)
        score = np.log1p(real) - np.log1p(bar)
        return _selection(names, score, np.flatnonzero(score > 0))

    def _importance(self, values: Matrix, target: Target) -> Scores:
        model = self.estimator()
        model.fit(values, target)
        return np.asarray(model.feature_importances_, dtype=np.float64)


def _probs(model: Any, values: Matrix, columns: npt.NDArray[np.intp]) -> Scores:
    """Some columns (N, C), or P(class 1) (N,) where they are two, as the metrics take it."""
    probs = np.asarray(model.predict_proba(values), dtype=np.float64)[:, columns]
    return probs[:, 1] if probs.shape[1] == 2 else probs


def _ranks(scores: Scores) -> Scores:
    """1 for the smallest; equal scores share the mean."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(scores), dtype=np.float64)


def _selection(names: Sequence[str], score: Scores, kept: npt.NDArray[np.intp]) -> Selection:
    """Name what is kept, and say when it is nothing."""
    if not len(kept):
        raise DataError(
            f"selection: none of {len(names)} features tells the classes apart; "
            "train without a selection, or check the labels"
        )
    log.info("selection: %d of %d features kept", len(kept), len(names))
    scores = {name: float(s) for name, s in zip(names, score, strict=True)}
    return Selection(tuple(names[i] for i in kept.tolist()), scores)


def _check(values: Matrix, names: Sequence[str], target: Target) -> None:
    """Shapes agree, labels are there, and there are two classes at least."""
    if values.shape != (len(target), len(names)):
        raise DataError(
            f"selection: expected {len(target)} rows and {len(names)} names, got {values.shape}"
        )
    if len(set(names)) < len(names):
        raise DataError(f"selection: names are not unique: {first_five(sorted(names))}")
    if (target < 0).any() or len(np.unique(target)) < 2:
        raise DataError(
            "selection: needs labelled rows of two classes, got classes "
            f"{first_five(np.unique(target).tolist())}"
        )
