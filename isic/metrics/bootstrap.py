"""Percentile bootstrap intervals that resample whole patients (or lesions, or images).

`bootstrap_interval` states how far a score would move with other patients; `paired_interval`
whether one model beats another on the same rows, with the same resamples for both.
A mean over classes is one over the same classes in every replicate, see `isic.metrics.replicates`.
Replicates without a value (one class only) are counted and logged, and the interval is that of the
others. The trap: images of one patient are alike, so an interval over images is too narrow.
"""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.metrics.classification import TALLIES
from isic.metrics.inputs import (
    Floats,
    Ints,
    Metric,
    binary_columns,
    class_probs,
    class_target,
    score_of,
)
from isic.metrics.ranking import places
from isic.metrics.replicates import as_binary, max_miss_of, replicate_values
from isic.metrics.resample import Draws, unit_numbers

log = logging.getLogger(__name__)


def bootstrap_interval(
    metric: Metric,
    target: npt.ArrayLike,
    probs: npt.ArrayLike,
    *,
    group: Any = None,
    n_replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval (low, high) of a metric.

    Args:
        metric: `(target, probs) -> float`; those of this package take a fast exact way.
        target: Class numbers, (N,).
        probs: (N, C), or (N,) when binary.
        group: Patient (or lesion) of each row, (N,); None resamples images.
        n_replicates: Resamples; 1,000 settle the second digit of a 95 % interval.
        level: Share of replicates inside.
        seed: Of the resampling.
    """
    score_of(metric, target, probs, group)  # what is undefined or malformed as a whole raises here
    values = bootstrap_replicates(
        metric, target, probs, group=group, n_replicates=n_replicates, seed=seed
    )
    _log_undefined(values)
    return percentiles(values, level)


def bootstrap_replicates(
    metric: Metric,
    target: npt.ArrayLike,
    probs: npt.ArrayLike,
    *,
    group: Any = None,
    n_replicates: int = 1000,
    seed: int = 0,
) -> Floats:
    """Return the metric of each replicate, (R,); NaN where it is undefined."""
    labels, given = class_target(target), np.asarray(probs)
    if group is None:
        alike = _alike(metric, labels, given)
        if alike is not None:
            first, size = alike
            draws = Draws(len(first), n_replicates, seed, size)
            return replicate_values(
                metric, labels[first], given[first], np.arange(len(first)), draws
            )
    unit = unit_numbers(group, len(labels))
    draws = Draws(int(unit.max()) + 1, n_replicates, seed)
    return replicate_values(metric, labels, given, unit, draws)


def paired_interval(
    metric: Metric,
    target: npt.ArrayLike,
    probs_a: npt.ArrayLike,
    probs_b: npt.ArrayLike,
    *,
    group: Any = None,
    n_replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return (difference, low, high) of metric(a) - metric(b), both on the same resamples."""
    difference = score_of(metric, target, probs_a, group) - score_of(metric, target, probs_b, group)
    labels = class_target(target)
    unit = unit_numbers(group, len(labels))
    draws = Draws(int(unit.max()) + 1, n_replicates, seed)
    a, b = (
        replicate_values(metric, labels, np.asarray(p), unit, draws) for p in (probs_a, probs_b)
    )
    _log_undefined(a - b)
    return (difference, *percentiles(a - b, level))


def percentiles(values: Floats, level: float) -> tuple[float, float]:
    """Return the percentiles (low, high) of the defined replicates."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _log_undefined(values: Floats) -> None:
    """Log how many replicates have no value; a score file holds their share instead."""
    if undefined := int(np.isnan(values).sum()):
        log.warning(
            "%d of %d bootstrap replicates are undefined (they drew one class, or no row that the "
            "score is of); interval over the others",
            undefined,
            len(values),
        )


def _alike(metric: Metric, target: Ints, probs: Floats) -> tuple[Ints, Ints] | None:
    """Rows that no value of the metric tells apart: (first row of each kind, rows of that kind).

    None where there are too many kinds for it to pay.
    """
    metric, target, probs = as_binary(metric, target, probs)
    if max_miss_of(metric) is not None:
        kind = _kind_by_rank(*binary_columns(target, probs))
    elif metric in TALLIES:
        cells = TALLIES[metric].cells(*class_probs(target, probs))
        kind = cells[:, 0]
        if cells.shape[1] > 1:
            kind = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
    else:
        return None
    _, first, size = np.unique(kind, return_index=True, return_counts=True)
    return (first, size) if 4 * len(first) <= len(target) else None


def _kind_by_rank(target: Ints, score: Floats) -> Ints:
    """Number the places in the order of scores: each positive score, each gap, each tie."""
    cutoffs = np.unique(score[target == 1])
    kind: Ints = 2 * places(cutoffs, score) + target
    return kind
