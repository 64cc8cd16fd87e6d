"""Metrics of one class per row, each `(target (N,) int, probs (N, C) or (N,)) -> float`.

| function | follows |
|---|---|
| `roc_auc` | SIIM-ISIC 2020: area under the ROC curve |
| `balanced_accuracy` | ISIC 2018/2019 official scorer: mean recall; a tied argmax is undecided |
| `macro_dice` | ISIC live scorer for MILK10k: F1 at strict > 0.5, no argmax, empty class 1.0 |
| `macro_f1_argmax` | scikit-learn's macro F1 of the argmax |
| `macro_auc` | mean one-vs-rest ROC AUC |
| `one_class_auc` | SIIM-ISIC 2020 by a classifier of diagnoses: P(melanoma) against melanoma |
| `accuracy` | share of rows whose argmax is right |
| `elementwise_accuracy` | share of the N x C cells on the right side of 0.5; flatters |

Source: github.com/ImageMarkup/isic-challenge-scoring. The trap: third-party macro F1 uses >= 0.5
and 0 for an empty class; both differ from the official rule.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isic.metrics.inputs import Floats, Ints, Metric, binary_scores, class_probs
from isic.metrics.partial_auc import ONE_CLASS, ranked_area

Bools = npt.NDArray[np.bool_]

log = logging.getLogger(__name__)


def roc_auc(target: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Return the area under the ROC curve, ties counted half; ValueError with one class only."""
    positives, negatives = binary_scores(target, probs)
    return ranked_area(positives, negatives, max_miss=1.0)


def macro_auc(target: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Mean one-vs-rest ROC AUC over the classes present; the absent ones are logged."""
    labels, columns = class_probs(target, probs)
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(ONE_CLASS)
    _name_absent("macro_auc", np.bincount(labels, minlength=columns.shape[1]))
    return float(np.mean([roc_auc(labels == c, columns[:, c]) for c in present]))


def one_class_auc(target: npt.ArrayLike, probs: npt.ArrayLike, *, class_index: int) -> float:
    """Area under the ROC curve of one class against all others; ValueError where one is absent."""
    return roc_auc(*one_class(target, probs, class_index))


def one_class(target: npt.ArrayLike, probs: npt.ArrayLike, index: int) -> tuple[Ints, Floats]:
    """Is it class `index`, (N,) of 0 and 1, and the probability of it, (N,)."""
    labels, columns = class_probs(target, probs)
    if not 0 <= index < columns.shape[1]:
        raise ValueError(f"class_index must be 0..{columns.shape[1] - 1}, got {index}")
    return (labels == index).astype(np.int64), np.ascontiguousarray(columns[:, index])


def balanced_accuracy(target: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Mean recall over the classes present; a row whose highest score is tied counts as wrong."""
    labels, columns = class_probs(target, probs)
    _name_absent("balanced_accuracy", np.bincount(labels, minlength=columns.shape[1]))
    return TALLIES[balanced_accuracy](labels, columns)


def macro_dice(target: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Macro F1 by the MILK10k rule: strict > 0.5 per class, 1.0 where a class never occurs."""
    return TALLIES[macro_dice](target, probs)


def macro_f1_argmax(target: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Macro F1 of the argmax (first wins ties) over classes that occur in target or prediction."""
    return TALLIES[macro_f1_argmax](target, probs)


def accuracy(target: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Share of rows whose argmax (first wins ties) is the target."""
    return TALLIES[accuracy](target, probs)


def elementwise_accuracy(target: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Share of the N x C cells where `probability > 0.5` says what the target says.

    What multi-label code prints as accuracy: of 11 classes, predicting nothing at all has 10 / 11.
    """
    return TALLIES[elementwise_accuracy](target, probs)


@dataclass(frozen=True)
class Tally:
    """A metric that only depends on how many rows fall into each cell of a table.

    cells: (target (N,), probs (N, C)) -> cell numbers (N, M); every row falls into M cells.
    finish: (counts (..., cells), those of the whole sample (cells,), C) -> metric (...). The counts
        may be those of a resample, which may have drawn no row of a class.
    """

    cells: Callable[[Ints, Floats], Ints]
    finish: Callable[[Floats, Floats, int], Floats]

    def __call__(self, target: npt.ArrayLike, probs: npt.ArrayLike) -> float:
        """Score one sample."""
        labels, columns = class_probs(target, probs)
        cells = self.cells(labels, columns).ravel()
        counts = np.bincount(cells, minlength=n_cells(columns)).astype(float)
        return float(self.finish(counts, counts, columns.shape[1]))


def n_cells(probs: Floats) -> int:
    """Cells of the larger of the two tables, so that one size fits every tally."""
    n_classes = int(probs.shape[1])
    return max(n_classes * (n_classes + 1), 4 * n_classes)


def _decided(target: Ints, probs: Floats) -> Ints:
    """Cell (true class, predicted class); predicted class C stands for a tie."""
    n_classes, highest = probs.shape[1], probs.max(axis=1, keepdims=True)
    tied = np.count_nonzero(probs == highest, axis=1) > 1
    label = np.where(tied, n_classes, probs.argmax(axis=1))
    cell: Ints = target * (n_classes + 1) + label
    return cell[:, None]


def _first_highest(target: Ints, probs: Floats) -> Ints:
    """Cell (true class, argmax)."""
    cell: Ints = target * (probs.shape[1] + 1) + probs.argmax(axis=1)
    return cell[:, None]


def _over_half(target: Ints, probs: Floats) -> Ints:
    """One cell a class: 4 x class + 2 x (is target) + (score > 0.5)."""
    number = np.arange(probs.shape[1])
    cells: Ints = 4 * number + 2 * (target[:, None] == number) + (probs > 0.5)
    return cells


def _confusion(counts: Floats, n_classes: int) -> Floats:
    """View counts as (..., true class, predicted class or tie)."""
    wanted = counts[..., : n_classes * (n_classes + 1)]
    return wanted.reshape(*counts.shape[:-1], n_classes, n_classes + 1)


def over_classes(values: Floats, drawn: Bools, whole: Floats, counted: Bools) -> Floats:
    """Mean over the same classes in every resample, (...): those that the score itself averages.

    A class that a resample drew no row of says nothing there, and leaving it out would make an
    interval of other classes than the value's; it counts with what it has over all rows. A resample
    that drew no class at all has no mean: NaN.

    values, drawn: (..., C), of resamples. whole, counted: (C,), of all rows.
    """
    filled = np.where(drawn, values, whole)
    mean: Floats = np.where(counted, filled, 0.0).sum(axis=-1) / counted.sum()
    return np.where((drawn & counted).any(axis=-1), mean, np.nan)


def _mean_recall(counts: Floats, whole: Floats, n_classes: int) -> Floats:
    recall, rows = _recall(counts, n_classes)
    recall_whole, rows_whole = _recall(whole, n_classes)
    return over_classes(recall, rows > 0, recall_whole, rows_whole > 0)


def _recall(counts: Floats, n_classes: int) -> tuple[Floats, Floats]:
    """Recall of each class, 0 without rows, and its rows; (..., C) each."""
    table = _confusion(counts, n_classes)
    hits, rows = np.diagonal(table, axis1=-2, axis2=-1), table.sum(axis=-1)
    recall: Floats = np.divide(hits, rows, out=np.zeros(rows.shape), where=rows > 0)
    return recall, rows


def _mean_f1(counts: Floats, whole: Floats, n_classes: int) -> Floats:
    f1, rows, _ = _f1(counts, n_classes)
    f1_whole, rows_whole, size_whole = _f1(whole, n_classes)
    # predicted, yet nobody's: its F1 is 0 wherever it is counted, also where no row drew it
    nobodys = (rows_whole == 0) & (size_whole > 0)
    return over_classes(f1, (rows > 0) | nobodys, f1_whole, size_whole > 0)


def _f1(counts: Floats, n_classes: int) -> tuple[Floats, Floats, Floats]:
    """F1 of each class, its rows, and rows and predictions together; (..., C) each."""
    table = _confusion(counts, n_classes)
    twice_hits, rows = 2.0 * np.diagonal(table, axis1=-2, axis2=-1), table.sum(axis=-1)
    size = rows + table.sum(axis=-2)[..., :n_classes]
    f1: Floats = np.divide(twice_hits, size, out=np.zeros(size.shape), where=size > 0)
    return f1, rows, size


def _share_right(counts: Floats, whole: Floats, n_classes: int) -> Floats:
    table = _confusion(counts, n_classes)
    right: Floats = np.trace(table, axis1=-2, axis2=-1) / table.sum(axis=(-2, -1))
    return right


def _mean_dice(counts: Floats, whole: Floats, n_classes: int) -> Floats:
    """The official 1.0 is for a class that nobody has, not for one that a resample did not draw."""
    dice, rows = _dice(counts, n_classes)
    dice_whole, rows_whole = _dice(whole, n_classes)
    nobodys = rows_whole == 0
    return over_classes(dice, (rows > 0) | nobodys, dice_whole, np.ones(n_classes, dtype=bool))


def _dice(counts: Floats, n_classes: int) -> tuple[Floats, Floats]:
    """Dice of each class, 1 where it neither occurs nor is predicted, and its rows; (..., C)."""
    table = _halves(counts, n_classes)
    twice_hits = 2.0 * table[..., 3]
    size = twice_hits + table[..., 1] + table[..., 2]
    dice: Floats = np.divide(twice_hits, size, out=np.ones(size.shape), where=size > 0)
    return dice, table[..., 2:].sum(axis=-1)


def _share_of_cells(counts: Floats, whole: Floats, n_classes: int) -> Floats:
    table = _halves(counts, n_classes)
    right: Floats = table[..., [0, 3]].sum(axis=(-2, -1)) / table.sum(axis=(-2, -1))
    return right


def _halves(counts: Floats, n_classes: int) -> Floats:
    """View counts as (..., class, 2 x (is target) + (score > 0.5))."""
    return counts[..., : 4 * n_classes].reshape(*counts.shape[:-1], n_classes, 4)


def averaged_classes(metric: Metric, target: Ints, probs: Floats) -> Bools | None:
    """Return the classes that a macro metric averages, (C,); None for other metrics.

    metric: As it is in this module, not wrapped in a `partial`.
    """
    labels, columns = class_probs(target, probs)
    has_rows: Bools = np.bincount(labels, minlength=columns.shape[1]) > 0
    if metric in (macro_auc, balanced_accuracy):
        return has_rows
    if metric is macro_f1_argmax:
        said = np.bincount(columns.argmax(axis=1), minlength=columns.shape[1])
        return has_rows | (said > 0)
    return np.ones_like(has_rows) if metric is macro_dice else None


def _name_absent(name: str, rows: Floats | Ints) -> None:
    """Log the classes without a row: their number is part of what the mean means."""
    absent = np.flatnonzero(rows == 0).tolist()
    if absent:
        log.warning("%s: no rows of class %s in target; averaged over the others", name, absent)


TALLIES: dict[Metric, Tally] = {
    balanced_accuracy: Tally(_decided, _mean_recall),
    macro_f1_argmax: Tally(_first_highest, _mean_f1),
    accuracy: Tally(_first_highest, _share_right),
    macro_dice: Tally(_over_half, _mean_dice),
    elementwise_accuracy: Tally(_over_half, _share_of_cells),
}
