"""One temperature for all logits: the same ranks, other confidence.

Source: Guo et al. 2017 (arXiv 1706.04599), eq. 9: softmax(z / T), T by the likelihood of rows that
did not train. Probabilities are enough: z = log p is a softmax's logits but for a constant of the
row that cancels, and log p - log(1 - p) is a sigmoid's logit exactly.
Unit: (N, C) probabilities; rows that sum to 1 are of a softmax (or of two classes), all others are
of independent sigmoids.
Trap: T of single models is not that of their mean, which is less confident already; read the nested
numbers of `score.json` beside it. A temperature changes no rank within a row, and for sigmoids none
within a class.
"""

import numpy as np
import numpy.typing as npt

from isic.metrics.calibration import expected_calibration_error
from isic.metrics.inputs import class_probs
from isic.predictions.thresholds import nested

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RANGE = (0.05, 20.0)  # of T
TINY = 1e-15  # a probability below counts as this in a likelihood
_SUM = 1e-6


def of_softmax(probs: npt.ArrayLike) -> bool:
    """Whether every row that has probabilities sums to 1."""
    total = np.asarray(probs, np.float64).sum(axis=1)
    return bool((np.abs(total[~np.isnan(total)] - 1) < _SUM).all())


def tempered(probs: npt.ArrayLike, temperature: float, *, softmax: bool) -> Floats:
    """Probabilities (N, C) of the logits over `temperature`; NaN stays NaN, 0 and 1 stay."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    given = np.asarray(probs, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        logit = np.log(given) if softmax else np.log(given) - np.log1p(-given)
        if not softmax:
            return np.asarray(1 / (1 + np.exp(-logit / temperature)))
        shifted = (logit - logit.max(axis=1, keepdims=True)) / temperature
        raised = np.exp(shifted)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def negative_log_likelihood(target: npt.ArrayLike, probs: npt.ArrayLike, *, softmax: bool) -> float:
    """Mean over rows of -log p of the class; of sigmoids, of the sum over all classes' answers."""
    labels, columns = class_probs(target, probs)
    inside = np.clip(columns, TINY, 1 - TINY)
    if softmax:
        return float(-np.log(inside[np.arange(len(labels)), labels]).mean())
    is_class = labels[:, None] == np.arange(columns.shape[1])
    return float(-np.where(is_class, np.log(inside), np.log1p(-inside)).sum(axis=1).mean())


def fit_temperature(target: npt.ArrayLike, probs: npt.ArrayLike, *, softmax: bool) -> float:
    """The T in `RANGE` with the highest likelihood, which has one top in 1 / T."""
    from scipy.optimize import minimize_scalar

    labels, columns = class_probs(target, probs)
    inside = np.clip(np.asarray(columns, np.float64), TINY, 1 - TINY)

    def loss(log_t: float) -> float:
        scaled = tempered(inside, float(np.exp(log_t)), softmax=softmax)
        return negative_log_likelihood(labels, scaled, softmax=softmax)

    found = minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded")
    return float(np.exp(found.x))


def calibration_report(
    target: npt.ArrayLike, probs: npt.ArrayLike, fold: npt.ArrayLike
) -> dict[str, float]:
    """T of all rows; ECE and likelihood as they are, and with T from the other folds."""
    softmax = of_softmax(probs)

    def adjust(labels: Ints, fitted_on: Floats, new: Floats) -> Floats:
        return tempered(new, fit_temperature(labels, fitted_on, softmax=softmax), softmax=softmax)

    scaled = nested(target, probs, fold, adjust)
    return {
        "temperature": fit_temperature(target, probs, softmax=softmax),
        "ece": expected_calibration_error(target, probs),
        "nll": negative_log_likelihood(target, probs, softmax=softmax),
        "ece_nested_temperature": expected_calibration_error(target, scaled),
        "nll_nested_temperature": negative_log_likelihood(target, scaled, softmax=softmax),
    }
