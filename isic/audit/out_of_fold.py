"""AUC of codes as predictors of a class, out of fold: rates from some groups, scored on others.

Method: codes are encoded by the rate of the class among the training part of `N_FOLDS` folds
(smoothed towards the mean by `SMOOTHING` rows), scored on the other part, AUC one class against the
rest, averaged over the folds by positives. Unit: one row; only counts of codes are looked at.
Trap: a group in two folds would let a column learn its rows by heart.
"""

import numpy as np
from numpy.typing import NDArray

from isic.audit.predictors import Codes

Floats = NDArray[np.float64]

N_FOLDS = 5
SMOOTHING = 10.0


def deal(target: Codes, group: Codes) -> Codes:
    """Return a fold for each row: whole groups, rare classes dealt first. (rows,)"""
    rarity = np.argsort(np.argsort(np.bincount(target)))
    rarest = np.full(group.max() + 1, len(rarity))
    np.minimum.at(rarest, group, rarity[target])
    shuffled = np.random.default_rng(0).permutation(len(rarest))
    order = shuffled[np.argsort(rarest[shuffled], kind="stable")]
    fold_of_group = np.empty(len(order), np.int64)
    fold_of_group[order] = np.arange(len(order)) % N_FOLDS
    return np.asarray(fold_of_group[group])


def contingency(codes: Codes, fold: Codes, target: Codes, n_classes: int) -> Floats:
    """Rows of each code in each fold and class. (codes, N_FOLDS, classes)"""
    shape = (int(codes.max()) + 1, N_FOLDS, n_classes)
    place = fold * n_classes + target
    place += codes.astype(np.int64) * (N_FOLDS * n_classes)
    flat = np.bincount(place, minlength=int(np.prod(shape)))
    return flat.reshape(shape).astype(np.float64)


def out_of_fold_auc(counts: Floats, positive: int) -> float:
    """AUC of the encoded column, the mean over folds by their positives; NaN without any."""
    # (codes, folds)
    hits, rows = counts[:, :, positive], counts.sum(axis=2)
    fit_hits = hits.sum(axis=1, keepdims=True) - hits
    fit_rows = rows.sum(axis=1, keepdims=True) - rows
    prior = fit_hits.sum(axis=0) / np.maximum(fit_rows.sum(axis=0), 1)
    score = (fit_hits + SMOOTHING * prior) / (fit_rows + SMOOTHING)
    aucs = [_auc(score[:, f], hits[:, f], rows[:, f] - hits[:, f]) for f in range(N_FOLDS)]
    weight = hits.sum(axis=0) * ~np.isnan(aucs)
    return float(np.nansum(aucs * weight) / weight.sum()) if weight.any() else float("nan")


def _auc(score: Floats, positives: Floats, negatives: Floats) -> float:
    """Area under the curve of scores that come with counts; ties count half."""
    _, level = np.unique(score, return_inverse=True)
    p, n = np.bincount(level, positives), np.bincount(level, negatives)
    pairs = p.sum() * n.sum()
    return float((p * (np.cumsum(n) - n / 2)).sum() / pairs) if pairs else float("nan")
