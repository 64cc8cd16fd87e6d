"""Expected calibration error: does a probability of 0.8 come true in 8 of 10 rows?

Guo et al. 2017 (arXiv 1706.04599), eq. 3: top-label, 15 bins of equal width, L1. A row's confidence
is its highest probability, it is right where that is the target's; within a bin both are averaged,
and the gaps are weighted by rows. Bins are (0, 1/15], (1/15, 2/15], ...

The trap: equal-width bins of a rare disease: nearly all rows lie in the last bin, where 0.1 % of
error hides every malignancy. Read it beside the AUC, never alone.
"""

import numpy as np
import numpy.typing as npt

from isic.metrics.inputs import Floats, Ints, class_probs

N_BINS = 15


def expected_calibration_error(
    target: npt.ArrayLike, probs: npt.ArrayLike, *, n_bins: int = N_BINS
) -> float:
    """Mean gap between confidence and accuracy over bins of confidence, 0..1.

    Raises:
        ValueError: A score outside 0..1, which is no probability; malformed input.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be 1 or more, got {n_bins}")
    labels, columns = class_probs(target, probs)
    if columns.min() < 0 or columns.max() > 1:
        raise ValueError(
            f"calibration is of probabilities in 0..1, got {columns.min()} to {columns.max()}"
        )
    number, gap = binned_gaps(labels, columns, n_bins=n_bins)
    return float(np.abs(np.bincount(number, weights=gap)).sum() / len(labels))


def binned_gaps(target: Ints, probs: Floats, *, n_bins: int = N_BINS) -> tuple[Ints, Floats]:
    """Bin of each row, and its 0/1 for right minus its confidence, (N,) each."""
    confidence = probs.max(axis=1)
    edges = np.linspace(0, 1, n_bins + 1)
    number: Ints = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    return number, (probs.argmax(axis=1) == target) - confidence
