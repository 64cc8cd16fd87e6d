"""Per-class thresholds, and how they are folded into probabilities that are cut at 0.5.

Source: MILK10k's scorer takes a class where p > 0.5, strictly, whatever the others say
(`macro_dice`). Entries fit a threshold t a class and submit p' = 0.5 p / t up to t and
0.5 + 0.5 (p - t) / (1 - t) beyond; one had macro F1 0.53 by the argmax, 0.56 so, 0.54 nested.
Unit: (N, C) probabilities, one row a sample; a threshold a class. A rare class's best cut hangs on
one image: the median over resamples of the rows is taken.
Trap: a threshold that is scored on the rows it was fitted on flatters, most of all in rare classes:
`nested` takes the thresholds of a fold's rows from the other folds.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.metrics import Metric, elementwise_accuracy, macro_dice
from isic.metrics.inputs import class_probs
from isic.metrics.replicates import plain

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CUT = 0.5
CUTTING = (macro_dice, elementwise_accuracy)
FEWEST = 3  # positives
# On ten simulated sets of 1,000 rows in MILK10k's classes, nested: macro F1 0.570 by the best cuts,
# 0.578 by medians, 0.48 and less when cuts of rare classes were drawn towards 0.5.
N_RESAMPLES = 50
_EDGE = 1e-6  # thresholds stay this far inside (0, 1)
_OVER = float(np.nextafter(CUT, 1.0))  # the least number that is over the cut


def cuts_at_half(metric: Metric) -> bool:
    """Whether a metric asks of each class alone if its probability is over 0.5."""
    return plain(metric) in CUTTING


def fit_thresholds(
    target: npt.ArrayLike,
    probs: npt.ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
    fewest: int = FEWEST,
    seed: int = 0,
) -> Floats:
    """The threshold of each class, (C,), that gives its dice at `p > t` the most.

    n_resamples: The median, in log odds, of the best cuts of so many resamples of the rows; 0
        takes the best cut of the rows themselves.
    fewest: A class of fewer positives keeps 0.5: its best cut is the score of one image.
    """
    labels, columns = class_probs(target, probs)
    counts = np.bincount(labels, minlength=columns.shape[1])
    tried = [c for c, count in enumerate(counts) if count >= max(fewest, 1)]
    searches = {c: CutSearch(labels == c, columns[:, c]) for c in tried}
    cuts: dict[int, list[float]] = {c: [] for c in tried}
    for weight in _resamples(len(labels), n_resamples, seed):
        for c, search in searches.items():
            if weight[labels == c].any():  # else it says nothing of the class
                cuts[c].append(search.best(weight))
    found = np.full(columns.shape[1], CUT)
    for c in tried:
        given = np.array(cuts[c] or [searches[c].best(np.ones(len(labels)))])
        found[c] = _sigmoid(float(np.median(np.log(given) - np.log1p(-given))))
    return found


class CutSearch:
    """Finds the best t for the dice 2 TP / (2 TP + FP + FN) of `score > t`, whatever rows weigh.

    t lies in the middle between the two scores that it parts, or is 0.5 where that parts them too.

    positive, score: (N,).
    """

    def __init__(self, positive: Bools, score: npt.NDArray[np.floating[Any]]) -> None:
        self._order = np.argsort(-score, kind="stable")
        self._positive = positive[self._order]
        above = score[self._order].astype(np.float64)
        below = np.append(above[1:], 0.0)
        self._parts = np.flatnonzero(above > below)  # equal scores cannot be parted
        self._cut = _between(below[self._parts], above[self._parts])

    def best(self, weight: Floats) -> float:
        """The cut, inside (0, 1); of equally good ones the one nearest to 0.5.

        weight: (N,), how often each row counts.
        """
        if not len(self._parts):
            return CUT
        ranked = weight[self._order]
        hits, taken = np.cumsum(ranked * self._positive), np.cumsum(ranked)
        dice = 2 * hits[self._parts] / (taken[self._parts] + hits[-1])
        good = np.flatnonzero(dice >= dice.max() - 1e-12)
        return float(self._cut[good[np.abs(self._cut[good] - CUT).argmin()]])


def _resamples(n: int, count: int, seed: int) -> Iterator[Floats]:
    """How often each of n rows is drawn, `count` times; once each where `count` is 0."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
    if not count:
        yield np.ones(n)


def _between(below: Floats, above: Floats) -> Floats:
    """A threshold in [below, above) and inside (0, 1)."""
    middle = (below + above) / 2
    middle = np.where(middle < above, middle, below)  # neighbouring floats have no middle
    middle = np.where((below <= CUT) & (above > CUT), CUT, middle)
    return np.asarray(np.clip(middle, _EDGE, 1 - _EDGE))


def folded(probs: npt.ArrayLike, thresholds: npt.ArrayLike) -> Floats:
    """Probabilities (N, C) that are over 0.5 exactly where they were over their class's threshold.

    Monotone in each class, so that its AUC stays. NaN stays NaN.
    thresholds: (C,), or (N, C) where rows have their own.
    """
    given, cut = np.asarray(probs, np.float64), np.asarray(thresholds, np.float64)
    if not ((cut > 0) & (cut < 1)).all():
        raise ValueError(f"thresholds must be inside (0, 1), got {cut.min()} to {cut.max()}")
    under = CUT * (given / cut)
    # a probability just over the threshold would round to 0.5 itself, which is not over it
    over = np.maximum(CUT + (1 - CUT) * (given - cut) / (1 - cut), _OVER)
    return np.where(given > cut, np.minimum(over, 1.0), under)


def argmax_folded(probs: npt.ArrayLike) -> Floats:
    """Probabilities (N, C) with exactly one in each row over 0.5: the highest, the first of a tie.

    The highest p becomes 0.5 + p / 2, each other p / 2: the AUC of a class changes.
    """
    given = np.asarray(probs, np.float64)
    half = given / 2
    known = ~np.isnan(given).any(axis=1)
    rows, best = np.flatnonzero(known), given[known].argmax(axis=1)
    half[rows, best] = np.maximum(CUT + half[rows, best], _OVER)
    return half


def nested(
    target: npt.ArrayLike,
    probs: npt.ArrayLike,
    fold: npt.ArrayLike,
    adjust: Callable[[Ints, Floats, Floats], Floats],
) -> Floats:
    """`adjust(target, probs, new)` of each fold's rows by the rows of all other folds, (N, C).

    fold: (N,) of two folds or more.
    """
    labels, columns = class_probs(target, probs)
    folds = np.asarray(fold)
    if len(np.unique(folds)) < 2:
        raise ValueError(f"nested evaluation needs two folds or more, got {np.unique(folds)}")
    made = np.empty_like(columns, dtype=np.float64)
    for number in np.unique(folds):
        own = folds == number
        made[own] = adjust(labels[~own], columns[~own], columns[own])
    return made


def nested_thresholds(
    target: npt.ArrayLike,
    probs: npt.ArrayLike,
    fold: npt.ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
) -> Floats:
    """Folded probabilities (N, C) whose thresholds know nothing of their own fold's labels."""

    def adjust(labels: Ints, fitted_on: Floats, new: Floats) -> Floats:
        return folded(new, fit_thresholds(labels, fitted_on, n_resamples=n_resamples))

    return nested(target, probs, fold, adjust)


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))
