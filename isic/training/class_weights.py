"""How much a row of each class counts, from the class counts of what an epoch shows.

Scale: the mean weight over the rows of an epoch is 1, so that a balanced loss is as large as a
plain one and the learning rate need not change.

Trap: a class without rows (the ninth class of ISIC 2019, a rare class in a small fold) must not
divide by zero, nor take part in the scale. It gets the largest weight of the others: a short epoch
may lack a class that a later one shows.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from isic.errors import ConfigError

Balance = Literal["none", "inverse", "sqrt", "effective"]


def check_balance(balance: str, *, beta: float) -> None:
    """Refuse a name that is none of `Balance`, and a beta outside (0, 1).

    Raises:
        ConfigError: Names the choices.
    """
    if not 0 < beta < 1:
        raise ConfigError(f"loss.beta: expected a number in (0, 1), got {beta}")
    if balance not in get_args(Balance):
        raise ConfigError(f"loss.balance: expected {', '.join(get_args(Balance))}, got {balance!r}")


def class_weights(
    class_counts: Sequence[int], *, balance: Balance, beta: float = 0.9999
) -> list[float]:
    """Weight of a row of each class, (C,).

    balance: `inverse` = 1 / n, every class counts the same in sum; `sqrt` = 1 / sqrt(n), half way;
        `effective` = (1 - beta) / (1 - beta^n), the effective number of samples of Cui et al. 2019
        (arXiv 1901.05555, eq. 2; the paper tries beta 0.9, 0.99, 0.999 and 0.9999).
    """
    counts = np.asarray(class_counts, np.float64)
    if balance == "none" or not counts.any():
        return [1.0] * len(counts)
    present = counts > 0
    n = counts[present]
    if balance == "effective":
        raw = (1 - beta) / -np.expm1(n * np.log(beta))
    else:
        raw = n ** (-1.0 if balance == "inverse" else -0.5)
    scaled = raw * n.sum() / (raw @ n)
    weights = np.full(len(counts), scaled.max())
    weights[present] = scaled
    return [float(w) for w in weights]


def positive_weights(
    class_counts: Sequence[int], *, power: float = 1.0, clip: float | None = None
) -> list[float]:
    """Weight of a positive under one sigmoid a class: (negatives / positives)^power, at most clip.

    One number for two classes (the positive class is index 1), else one a class. Without a
    positive, or without a negative, there is nothing to balance: the largest of the others, else 1.
    """
    total = sum(class_counts)
    positives = class_counts[1:] if len(class_counts) == 2 else class_counts
    ratios = [((total - n) / n) ** power if 0 < n < total else None for n in positives]
    limit = float("inf") if clip is None else clip
    known = [min(r, limit) for r in ratios if r is not None]
    absent = max(known, default=1.0)
    return [absent if r is None else min(r, limit) for r in ratios]
