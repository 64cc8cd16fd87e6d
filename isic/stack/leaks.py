"""A fold in which an image model knows the labels it should not: found by its own scores.

A stack trusts out-of-fold scores. Where one fold was predicted by a model that trained on it, a
stacker learns from that fold to trust the score more than it may anywhere else. What can be seen of
it is that this fold alone is ranked far better. For each labelled row of a class, its placement is
the share of the fold's other rows that score above it (their mean is 1 - AUC). A fold is refused
where its placements are lower than those of the other folds by chance of less than `ALPHA` over all
folds, classes and runs (Mann-Whitney, one-sided, which is sound for few positives), and where
1 - AUC is less than `SHARE` of the others' as well, which folds that merely differ do not reach.
Trap: a leak in every fold alike cannot be seen here; hashes of split and archive stand against it.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from isic.errors import DataError

log = logging.getLogger(__name__)

ALPHA = 1e-3  # a false alarm in a thousand stacks, were folds alike
SHARE = 0.125  # of 1 - AUC; folds of one honest run differ by less, even where hospitals do
FEWEST = 5  # rows of a class in a fold, below which nothing is said

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def placements(score: Floats, positive: npt.NDArray[np.bool_]) -> Floats:
    """Of each positive row, the share of the negative ones that score above it (ties half)."""
    negative = np.sort(score[~positive])
    above = len(negative) - np.searchsorted(negative, score[positive], side="right")
    ties = np.searchsorted(negative, score[positive], side="right") - np.searchsorted(
        negative, score[positive], side="left"
    )
    return np.asarray((above + ties / 2) / max(len(negative), 1))


def suspicious_folds(
    score: Floats, positive: npt.NDArray[np.bool_], fold: Ints, *, alpha: float
) -> list[str]:
    """What is said of each fold whose rows are ranked too well, of one score and class.

    Rows with NaN scores do not count.
    """
    from scipy.stats import mannwhitneyu

    known = np.isfinite(score)
    placed = {
        int(k): placements(score[rows], positive[rows])
        for k in np.unique(fold)
        if not positive[rows := known & (fold == k)].all()  # without others none is above
    }
    said = []
    for k, own in placed.items():
        rest = [p for other, p in placed.items() if other != k]
        others = np.concatenate(rest) if rest else own[:0]
        if min(len(own), len(others)) < FEWEST or own.mean() >= SHARE * others.mean():
            continue
        chance = float(mannwhitneyu(own, others, alternative="less").pvalue)
        if chance < alpha:
            said.append(
                f"fold {k} has AUC {1 - own.mean():.4f} over {len(own)} rows of the class, the "
                f"others {1 - others.mean():.4f} over {len(others)} (p = {chance:.1g})"
            )
    return said


def check_folds_alike(
    scores: Mapping[str, Floats],
    target: Ints,
    fold: Ints,
    classes: Sequence[str],
    *,
    on_leak: str = "error",
) -> None:
    """Refuse image runs with a fold that knows its labels.

    scores: Run -> probabilities (N, C) of the held-out rows.
    target: (N,) class number, -1 = unlabelled.
    on_leak: `error`, or `warn` to go on.

    Raises:
        DataError: Names run, class, fold and both AUCs.
    """
    labelled = target >= 0
    columns = range(1, 2) if len(classes) == 2 else range(len(classes))
    alpha = ALPHA / max(len(scores) * len(columns) * len(np.unique(fold)), 1)
    said = [
        f"{run}, class {classes[c]}: {text}"
        for run, probs in scores.items()
        for c in columns
        for text in suspicious_folds(
            probs[labelled, c], target[labelled] == c, fold[labelled], alpha=alpha
        )
    ]
    if not said:
        return
    message = (
        "out-of-fold scores of one fold know the labels: "
        + "; ".join(said)
        + ". Was that fold predicted by a model that trained on it? Train it again, or go on as "
        "it is with on_leak=warn"
    )
    if on_leak == "error":
        raise DataError(message)
    log.warning("%s", message)
