"""How much one feature says of the class: ANOVA F, mutual information, chi2. All features at once.

Unit: (N, F) values and (N,) classes -> (F,) scores, larger = more. A missing value is the median of
its feature. Same numbers as scikit-learn's `f_classif` and `chi2` (on values scaled to 0..1);
mutual information is that of quantile bins, in nats, linear in rows where scikit-learn's search for
neighbours is not.
Trap: chi2 takes values for counts, so it depends on their scale: 0..1 here, as is usual.
"""

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Target = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

BINS = 32


def anova_f(values: Matrix, target: Target) -> Scores:
    """Variance between classes over that within; NaN for a constant feature.

    Within is at least rounding, so that a feature that tells the classes apart has a finite score.
    """
    classes, code = np.unique(target, return_inverse=True)
    size = np.bincount(code).astype(np.float64)
    scores = np.full(values.shape[1], np.nan)
    for i in range(values.shape[1]):
        x = filled(values[:, i])
        if not len(x) or x.min() == x.max():
            continue
        x = x - x.mean()
        total = np.bincount(code, x)
        between = (total * total / size).sum()
        whole = (x * x).sum()
        within = max(whole - between, np.finfo(np.float64).eps * whole)
        scores[i] = between / within * (len(x) - len(classes)) / (len(classes) - 1)
    return scores


def mutual_information(values: Matrix, target: Target) -> Scores:
    """Between the feature, in at most 32 bins of equal numbers of rows, and the class; nats."""
    classes, code = np.unique(target, return_inverse=True)
    scores = np.zeros(values.shape[1])
    for i in range(values.shape[1]):
        x = filled(values[:, i])
        edges = np.unique(np.quantile(x, np.linspace(0, 1, BINS + 1)[1:-1]))
        place = np.searchsorted(edges, x, side="left")
        joint = np.bincount(place * len(classes) + code, minlength=BINS * len(classes))
        share = joint.reshape(-1, len(classes)) / len(x)
        alone = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
        some = share > 0
        scores[i] = max(float((share[some] * np.log(share[some] / alone[some])).sum()), 0.0)
    return np.where(scores < 1e-12, 0.0, scores)  # independent up to rounding


def chi2(values: Matrix, target: Target) -> Scores:
    """Of each feature's sum by class against that of equal shares; NaN for a constant one."""
    _, code = np.unique(target, return_inverse=True)
    share = np.bincount(code) / len(code)
    scores = np.full(values.shape[1], np.nan)
    for i in range(values.shape[1]):
        x = filled(values[:, i])
        low, high = x.min(), x.max()
        if low == high:
            continue
        observed = np.bincount(code, (x - low) / (high - low))
        expected = share * observed.sum()
        scores[i] = ((observed - expected) ** 2 / expected).sum()
    return scores


def filled(column: npt.NDArray[np.float32]) -> Scores:
    """float64 with the median where it is missing, 0 where nothing is known."""
    x = column.astype(np.float64)
    missing = np.isnan(x)
    if missing.any():
        x[missing] = np.median(x[~missing]) if not missing.all() else 0.0
    return x
