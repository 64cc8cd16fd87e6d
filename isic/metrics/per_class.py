"""Precision, recall and F1 of each class, and the confusion matrix.

What counts as a prediction is the `rule`: `argmax` (one class a row, first wins ties), or `half`
(every class above 0.5, strictly, as the ISIC live scorer cuts: a row may have none or several).

The trap: a ratio without a denominator is no 0: a class that is never predicted has no precision,
one that never occurs no recall. Tables hold NaN there; the scores of one class raise ValueError.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from isic.metrics.inputs import Floats, Ints, class_probs

Rule = Literal["argmax", "half"]


@dataclass(frozen=True)
class ClassCounts:
    """Rows of each class, (C,) each: right, predicted, and true (the support)."""

    hits: Ints
    predicted: Ints
    support: Ints

    @property
    def precision(self) -> Floats:
        """Share of the predictions of a class that are right; NaN where there are none."""
        return _share(self.hits, self.predicted)

    @property
    def recall(self) -> Floats:
        """Share of the rows of a class that are found; NaN where there are none."""
        return _share(self.hits, self.support)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of both; NaN where a class neither occurs nor is predicted."""
        return _share(2 * self.hits, self.predicted + self.support)


def class_counts(
    target: npt.ArrayLike, probs: npt.ArrayLike, *, rule: Rule = "argmax"
) -> ClassCounts:
    """Count the right, the predicted and the true rows of each class."""
    labels, columns = class_probs(target, probs)
    n_classes = columns.shape[1]
    if rule == "argmax":
        said = columns.argmax(axis=1)[:, None] == np.arange(n_classes)  # (N, C)
    elif rule == "half":
        said = columns > 0.5
    else:
        raise ValueError(f"rule must be argmax or half, got {rule!r}")
    hits = said[np.arange(len(labels)), labels]
    return ClassCounts(
        np.bincount(labels[hits], minlength=n_classes),
        said.sum(axis=0),
        np.bincount(labels, minlength=n_classes),
    )


def confusion_matrix(target: npt.ArrayLike, probs: npt.ArrayLike) -> Ints:
    """Rows by (true class, argmax), (C, C)."""
    labels, columns = class_probs(target, probs)
    n_classes = columns.shape[1]
    cells = labels * n_classes + columns.argmax(axis=1)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def precision(
    target: npt.ArrayLike, probs: npt.ArrayLike, *, class_index: int, rule: Rule = "argmax"
) -> float:
    """Precision of one class; ValueError where it is never predicted."""
    counts = class_counts(target, probs, rule=rule)
    return _one(counts.precision, class_index, "precision", "is never predicted")


def recall(
    target: npt.ArrayLike, probs: npt.ArrayLike, *, class_index: int, rule: Rule = "argmax"
) -> float:
    """Recall (sensitivity) of one class; ValueError where it never occurs."""
    counts = class_counts(target, probs, rule=rule)
    return _one(counts.recall, class_index, "recall", "has no rows")


def f1(
    target: npt.ArrayLike, probs: npt.ArrayLike, *, class_index: int, rule: Rule = "argmax"
) -> float:
    """F1 of one class; ValueError where it neither occurs nor is predicted."""
    counts = class_counts(target, probs, rule=rule)
    return _one(counts.f1, class_index, "F1", "neither occurs nor is predicted")


def _share(part: Ints, whole: Ints) -> Floats:
    share: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return share


def _one(values: Floats, index: int, name: str, reason: str) -> float:
    if not 0 <= index < len(values):
        raise ValueError(f"class_index must be 0..{len(values) - 1}, got {index}")
    if np.isnan(values[index]):
        raise ValueError(f"{name} of class {index} is not defined: it {reason}")
    return float(values[index])
