"""Metric values of all replicates of a bootstrap at once, without materialising one resample.

Ranking metrics need the negatives between neighbouring positives, tallied per unit; metrics of a
confusion table need its cells per unit. Either way a replicate is a weighted sum of units, so a
thousand of them are one matrix product. Any other metric is called once a replicate.
A mean over classes is over the same classes in every replicate as in the score: one that a
replicate did not draw counts with its value over all rows (`classification.over_classes`).
The trap: a replicate with one class only has no ROC curve; it is NaN, never left out silently.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from isic.metrics.calibration import binned_gaps, expected_calibration_error
from isic.metrics.classification import (
    TALLIES,
    Tally,
    macro_auc,
    n_cells,
    one_class,
    one_class_auc,
    over_classes,
    roc_auc,
)
from isic.metrics.inputs import Floats, Ints, Metric, binary_columns, class_probs
from isic.metrics.partial_auc import partial_auc
from isic.metrics.ranking import below_and_tied, n_needed, places, step_area
from isic.metrics.resample import BLOCK, Draws, expanded, tally
from isic.metrics.retrieval import RETRIEVALS, parts

Replicates = Callable[[Floats], Floats]  # weights (R, U) -> metric values (R,)


def replicate_values(
    metric: Metric, target: Ints, probs: Floats, unit: Ints, draws: Draws
) -> Floats:
    """Return the metric of every replicate, (R,); NaN where it is undefined."""
    once = np.ones(draws.n_units) if draws.size is None else draws.size.astype(float)
    values = evaluator(metric, target, probs, unit, once)
    return np.concatenate([values(weights) for weights in draws.weights()])


def evaluator(
    metric: Metric, target: Ints, probs: Floats, unit: Ints, once: Floats | None = None
) -> Replicates:
    """Choose the fast way for the metrics of this package, the loop for all others.

    once: Weight of each unit in the sample as it is, (U,); None: 1.
    """
    once = np.ones(int(unit.max()) + 1) if once is None else once
    metric, target, probs = as_binary(metric, target, probs)
    if metric in TALLIES:
        labels, columns = class_probs(target, probs)
        return partial(_tallied, TALLIES[metric], labels, columns, unit, once)
    if metric is macro_auc:
        labels, columns = class_probs(target, probs)
        return partial(_mean_area, labels, columns, unit, once)
    if metric is expected_calibration_error:
        return partial(_calibration, *class_probs(target, probs), unit)
    if metric in RETRIEVALS:
        sums = parts(metric, *binary_columns(target, probs), unit)  # a unit is a patient
        return partial(_ratios, *sums)
    max_miss = max_miss_of(metric)
    if max_miss is not None:
        labels, column = binary_columns(target, probs)
        return partial(_areas, labels == 1, column, unit, max_miss)
    return partial(_looped, metric, target, probs, unit)


def as_binary(metric: Metric, target: Ints, probs: Floats) -> tuple[Metric, Ints, Floats]:
    """The metric without an empty `partial`; the AUC of one class as the binary AUC that it is."""
    metric = plain(metric)
    if isinstance(metric, partial) and metric.func is one_class_auc and not metric.args:
        return roc_auc, *one_class(target, probs, int(metric.keywords["class_index"]))
    return metric, target, probs


def plain(metric: Metric) -> Metric:
    """Unwrap a `functools.partial` without arguments, as configs make them."""
    while isinstance(metric, partial) and not metric.args and not metric.keywords:
        metric = metric.func
    return metric


def max_miss_of(metric: Metric) -> float | None:
    """Share of positives a ROC metric may miss; None where the metric is no ROC area.

    `functools.partial(partial_auc, min_tpr=...)` is understood.
    """
    metric = plain(metric)
    if metric is roc_auc:
        return 1.0
    if metric is partial_auc:
        return abs(1.0 - 0.80)
    if isinstance(metric, partial) and metric.func is partial_auc and not metric.args:
        return abs(1.0 - float(metric.keywords.get("min_tpr", 0.80)))
    return None


def _looped(metric: Metric, target: Ints, probs: Floats, unit: Ints, weights: Floats) -> Floats:
    values = np.full(len(weights), np.nan)
    for i, weight in enumerate(weights):
        rows = expanded(weight, unit)
        try:
            values[i] = metric(target[rows], probs[rows])
        except ValueError:  # undefined on this replicate; the caller counts and reports them
            continue
    return values


def _tallied(
    chosen: Tally, target: Ints, probs: Floats, unit: Ints, once: Floats, weights: Floats
) -> Floats:
    cells, width = chosen.cells(target, probs), n_cells(probs)

    def counts(of: Floats) -> Floats:
        return np.asarray(sum(tally(of, unit, cells[:, m], width) for m in range(cells.shape[1])))

    return chosen.finish(counts(weights), counts(once[None])[0], probs.shape[1])


def _ratios(numerator: Floats, denominator: Floats, weights: Floats) -> Floats:
    """Ratio of sums over units."""
    with np.errstate(invalid="ignore"):
        ratio: Floats = (weights @ numerator) / (weights @ denominator)
    return ratio


def _calibration(target: Ints, probs: Floats, unit: Ints, weights: Floats) -> Floats:
    number, gap = binned_gaps(target, probs)
    width, n_units = int(number.max()) + 1, weights.shape[1]
    cells = np.bincount(unit * width + number, weights=gap, minlength=n_units * width)
    gaps: Floats = np.abs(weights @ cells.reshape(n_units, width)).sum(axis=1)
    error: Floats = gaps / (weights @ np.bincount(unit, minlength=n_units).astype(float))
    return error


def _mean_area(target: Ints, probs: Floats, unit: Ints, once: Floats, weights: Floats) -> Floats:
    present = np.unique(target)

    def areas(of: Floats) -> Floats:
        columns = [np.ascontiguousarray(probs[:, c]) for c in present]
        return np.stack(
            [
                _areas(target == c, column, unit, 1.0, of)
                for c, column in zip(present, columns, strict=True)
            ],
            axis=-1,
        )  # (R, classes)

    each, whole = areas(weights), areas(once[None])[0]
    return over_classes(each, np.isfinite(each), whole, np.isfinite(whole))


def _areas(
    is_positive: np.ndarray[tuple[int], np.dtype[np.bool_]],
    score: Floats,
    unit: Ints,
    max_miss: float,
    weights: Floats,
) -> Floats:
    """ROC areas of all replicates, as many at once as fit into memory.

    The whole area is the same with classes and order turned round; each distinct score of the
    positives costs memory in every replicate, so the rarer class is taken for them.
    """
    if max_miss == 1.0 and 2 * np.count_nonzero(is_positive) > len(is_positive):
        is_positive, score = ~is_positive, -score
    cutoffs, step = np.unique(score[is_positive], return_inverse=True)
    if not len(cutoffs):
        return np.full(len(weights), np.nan)
    stepped = _Steps(cutoffs, step.ravel(), unit[is_positive])
    rest = score[~is_positive], unit[~is_positive]
    at_once = max(1, BLOCK // (2 * len(cutoffs) + 1))
    parts = [weights[i : i + at_once] for i in range(0, len(weights), at_once)]
    return np.concatenate([_block_areas(stepped, *rest, max_miss, part) for part in parts])


class _Steps(NamedTuple):
    """Positives: their distinct scores, ascending (K,), and place and unit of each row (P,)."""

    cutoffs: Floats
    step: Ints
    unit: Ints


def _block_areas(
    steps: _Steps, negative: Floats, unit: Ints, max_miss: float, weights: Floats
) -> Floats:
    """Weighted positives as steps, weighted negatives as heights."""
    cutoffs = steps.cutoffs
    weight = tally(weights, steps.unit, steps.step, len(cutoffs))  # (R, K)
    positives = weight.sum(axis=1)
    kept = _n_kept(weight, positives, max_miss)
    cutoffs, weight = cutoffs[:kept], weight[:, :kept]
    sums = tally(weights, unit, places(cutoffs, negative), 2 * kept + 1)
    below, tied = below_and_tied(sums)
    return step_area(
        weight, below, tied, positives=positives, negatives=sums.sum(axis=1), max_miss=max_miss
    )


def _n_kept(weight: Floats, positives: Floats, max_miss: float) -> int:
    """Cutoffs that any replicate needs to reach `max_miss`."""
    share = np.cumsum(weight, axis=1) / np.maximum(positives, 1.0)[:, None]
    return n_needed(share.min(axis=0), max_miss)
