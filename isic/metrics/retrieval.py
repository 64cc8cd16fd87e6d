"""Top-15 retrieval per patient: the secondary prize of ISIC 2024.

Of each patient with a malignancy the 15 highest-scored images are looked at, as a dermatologist
with minutes a patient would. Source: github.com/ISIC-Research/Challenge-2024-Metrics,
`SecondaryMetric-TopNSensitivity.py`, which states three numbers:

| function | its column | what |
|---|---|---|
| `retrieval_sensitivity` | `sensitivity` | share of all malignancies that are among them |
| `patient_retrieval` | `average ranks` | mean over patients of that share; ranked first by this |
| `ranked_retrieval` | `weighted ranks` | the same, weighted by dense rank / 15: breaks ties |

All take `group`, the patient of each row. Equal scores at the cut: the earlier row is in, as there.
The trap: a resample of patients may hold one twice; it is then two patients, not one of twice as
many images, so that `bootstrap_interval` counts patients and never draws their rows anew.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from isic.metrics.inputs import Floats, Ints, Metric, binary_columns
from isic.metrics.resample import unit_numbers

NO_GROUP = "retrieval needs the patient of each row, got no group"
TOP = 15


def retrieval_sensitivity(
    target: npt.ArrayLike, score: npt.ArrayLike, *, group: Any = None, top: int = TOP
) -> float:
    """Share of malignancies among the `top` images of their patients; ValueError without any."""
    return _ratio(retrieval_sensitivity, target, score, group, top)


def patient_retrieval(
    target: npt.ArrayLike, score: npt.ArrayLike, *, group: Any = None, top: int = TOP
) -> float:
    """Mean over patients with a malignancy of the share of theirs among their `top` images."""
    return _ratio(patient_retrieval, target, score, group, top)


def ranked_retrieval(
    target: npt.ArrayLike, score: npt.ArrayLike, *, group: Any = None, top: int = TOP
) -> float:
    """As `patient_retrieval`, each find weighted by its dense rank among the `top`, over `top`."""
    return _ratio(ranked_retrieval, target, score, group, top)


def parts(
    metric: Metric, target: Ints, score: Floats, unit: Ints, *, top: int = TOP
) -> tuple[Floats, Floats]:
    """Numerator and denominator of each patient, (U,): the metric is the ratio of their sums.

    unit: Number of each row's patient, 0..U-1.
    """
    malignant = np.bincount(unit, weights=target).astype(float)  # (U,)
    found = _finds(target, score, unit, top=top, ranked=metric is ranked_retrieval)
    if metric is retrieval_sensitivity:
        return found, malignant
    share = np.divide(found, malignant, out=np.zeros(len(found)), where=malignant > 0)
    return share, (malignant > 0).astype(float)


RETRIEVALS: tuple[Metric, ...] = (retrieval_sensitivity, patient_retrieval, ranked_retrieval)


def _ratio(metric: Metric, target: Any, score: Any, group: Any, top: int) -> float:
    labels, column = binary_columns(target, score)
    if top < 1:
        raise ValueError(f"top must be 1 or more, got {top}")
    if group is None:
        raise ValueError(NO_GROUP)
    numerator, denominator = parts(
        metric, labels, column, unit_numbers(group, len(labels)), top=top
    )
    if not denominator.any():
        raise ValueError("no malignancy in target: there is nothing to retrieve")
    return float(numerator.sum() / denominator.sum())


def _finds(target: Ints, score: Floats, unit: Ints, *, top: int, ranked: bool) -> Floats:
    """Malignancies among each patient's `top` images, (U,); each its dense rank / top if ranked."""
    order = np.lexsort((-score, unit))  # stable: of equal scores the earlier row comes first
    unit, score, target = unit[order], score[order], target[order]
    first = np.r_[True, unit[1:] != unit[:-1]]
    place = np.arange(len(unit)) - np.flatnonzero(first)[np.cumsum(first) - 1]
    kept = place < top
    unit, score, target, first = unit[kept], score[kept], target[kept], first[kept]
    worth = target.astype(float)
    if ranked:
        lower = np.cumsum(first | np.r_[True, score[1:] != score[:-1]])  # falls to the next score
        last = np.flatnonzero(np.r_[first[1:], True])[np.cumsum(first) - 1]
        worth *= (lower[last] - lower + 1) / top
    return np.bincount(unit, weights=worth).astype(float, copy=False)
