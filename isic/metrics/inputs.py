"""What every metric accepts: target (N,) int and probs (N, C), or (N,) = P(class 1) when binary.

Anything else raises ValueError naming what was expected and what came: a metric never guesses.
The trap: a missing target (pandas <NA>) arrives as an object array and must not become a class.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.signedinteger[Any]]
Metric = Callable[[Any, Any], float]


def asks_for_group(metric: Metric) -> bool:
    """Whether a metric is of patients, so that it needs the patient of each row."""
    return "group" in inspect.signature(metric).parameters


def score_of(metric: Metric, target: Any, probs: Any, group: Any = None) -> float:
    """The metric of these rows; one that asks for `group` gets the patient of each row."""
    if asks_for_group(metric):
        with_group: Callable[..., float] = metric
        return with_group(target, probs, group=group)
    return metric(target, probs)


def class_target(target: npt.ArrayLike) -> Ints:
    """Return target as integers (N,); refuse missing, fractional and negative labels."""
    given = np.asarray(target)
    if given.ndim != 1 or given.dtype.kind not in "biuf":
        raise ValueError(
            f"target must be (N,) whole numbers without missing values, got shape {given.shape} "
            f"of {given.dtype}; drop unlabelled rows first"
        )
    if given.dtype.kind == "f" and not np.array_equal(given, np.trunc(given)):
        raise ValueError("target must be whole numbers, got fractions or NaN")
    labels = given.astype(np.int64, copy=False)
    if len(labels) and labels.min() < 0:
        raise ValueError(f"target must be 0 or more, got {labels.min()}; drop unlabelled rows")
    return labels


def binary_scores(target: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Split scores by class: (scores of positives, scores of negatives), each float64.

    `score` may be any real numbers (logits, ranks), (N,), or (N, 2) of which column 1 counts.
    """
    labels, column = binary_columns(target, score)
    is_positive = labels == 1
    return column[is_positive], column[~is_positive]


def binary_columns(target: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Ints, Floats]:
    """Check a binary target and its scores: (target (N,) of 0 and 1, score (N,) float64)."""
    labels, given = class_target(target), np.asarray(score)
    if given.ndim == 2 and given.shape[1] == 2:
        given = given[:, 1]
    if given.shape != labels.shape:
        raise ValueError(
            f"score must be ({len(labels)},) or ({len(labels)}, 2) as target has "
            f"{len(labels)} rows, got {given.shape}"
        )
    if len(labels) and labels.max() > 1:
        raise ValueError(f"target must be 0 or 1 for a binary metric, got {labels.max()}")
    return labels, _without_nan(given.astype(np.float64, copy=False))


def class_probs(target: npt.ArrayLike, probs: npt.ArrayLike) -> tuple[Ints, Floats]:
    """Check a class target and its probabilities: (target (N,), probs (N, C) float64)."""
    labels, given = class_target(target), np.asarray(probs, dtype=np.float64)
    if given.ndim == 1:
        given = np.stack([1.0 - given, given], axis=1)
    if given.ndim != 2 or len(given) != len(labels) or given.shape[1] < 2:
        raise ValueError(f"probs must be ({len(labels)}, C) or (N,), got {np.shape(probs)}")
    if len(labels) == 0:
        raise ValueError("no rows to score")
    if labels.max() >= given.shape[1]:
        raise ValueError(f"target holds class {labels.max()}, probs only {given.shape[1]} columns")
    return labels, _without_nan(given)


def _without_nan(values: Floats) -> Floats:
    """Refuse NaN, with their number and the first five rows."""
    # min() is one pass without a temporary, and NaN survives it
    if values.size and np.isnan(values.min()):
        rows = np.flatnonzero(np.isnan(values.reshape(len(values), -1)).any(axis=1))
        raise ValueError(f"{len(rows)} rows have a NaN score, first at {rows[:5].tolist()}")
    return values
