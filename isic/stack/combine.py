"""Many models' probabilities of the same rows -> one table: their mean, or the mean of their ranks.

Rank means are ISIC 2024's way: models whose scores are spread differently weigh the same.
Trap: ranks are scores, no probabilities. They are refused for a metric that cuts at 0.5 or takes
the largest class; `ranks_fit` says for which metrics they do.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from isic.errors import ConfigError

Floats = npt.NDArray[np.float64]
METHODS = ("mean", "rank_mean")
# Functions of isic.metrics that see the order of a class's scores and nothing else.
BY_ORDER = frozenset({"partial_auc", "roc_auc", "macro_auc", "one_class_auc"})


def ranked(probs: Floats) -> Floats:
    """Average rank of each class's scores over the rows, (rank - 0.5) / N, in (0, 1); (N, C)."""
    from scipy.stats import rankdata

    scaled: Floats = (rankdata(probs, axis=0) - 0.5) / max(len(probs), 1)
    if probs.shape[1] == 2:
        scaled[:, 0] = 1.0 - scaled[:, 1]  # rounding ties may differ between the two columns
    return scaled


class Mean:
    """A running mean over models, added in one order so that the sum's bits stay the same."""

    def __init__(self, method: str, shape: tuple[int, int]) -> None:
        self._method, self._sum, self._n = method, np.zeros(shape), 0

    def add(self, probs: Floats) -> None:
        """One model's probabilities, (N, C)."""
        self._sum += ranked(probs) if self._method == "rank_mean" else probs
        self._n += 1

    @property
    def value(self) -> Floats:
        """The mean so far, (N, C)."""
        return self._sum / self._n


def chosen_method(asked: str | None, functions: Iterable[str]) -> str:
    """`asked`, or where it is None what fits the metrics: ranks only where all go by order.

    functions: Names of the metric functions.

    Raises:
        ConfigError: An unknown method, or ranks for a metric that needs probabilities.
    """
    functions = list(functions)
    if asked is None:
        return "mean" if set(functions) - BY_ORDER else "rank_mean"
    if asked not in METHODS:
        raise ConfigError(f"combine: expected {' or '.join(METHODS)}, got {asked!r}")
    if asked == "rank_mean":
        refuse_ranks("combine=rank_mean", functions, instead="combine=mean")
    return asked


def refuse_ranks(what: str, functions: Iterable[str], *, instead: str) -> None:
    """Raise ConfigError where a metric looks at more than the order of scores."""
    if cut := sorted(set(functions) - BY_ORDER):
        raise ConfigError(
            f"{what} gives ranks, no probabilities, and {', '.join(cut)} needs probabilities; "
            f"take {instead}"
        )
