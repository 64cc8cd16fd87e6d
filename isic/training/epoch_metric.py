"""What an epoch's batches said, gathered over all ranks and ordered by row: the input of metrics.

Metrics are computed once on the whole epoch in float64, never averaged over batches. Rows that a
rank saw twice (padding to equal batch counts) count once.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from isic.training.losses import probabilities

log = logging.getLogger(__name__)

Metric = Callable[[NDArray[np.int64], NDArray[np.float64]], float]


@dataclass
class EpochOutputs:
    """Collects (row, target, logits) of each batch; `gather` empties it."""

    row: list[Tensor] = field(default_factory=list)
    target: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)

    def add(self, batch: Mapping[str, Tensor], logits: Tensor) -> None:
        """Keep one batch: row (B,), target (B,), logits (B, K)."""
        self.row.append(batch["row"])
        self.target.append(batch["target"])
        self.logits.append(logits.detach().float())

    def gather(self, activation: str) -> "Epoch":
        """All ranks' rows, each once, in row order. Every rank gets the same answer."""
        row, target, logits = (torch.cat(part) for part in (self.row, self.target, self.logits))
        self.row, self.target, self.logits = [], [], []
        row, target, logits = (_all_ranks(t) for t in (row, target, logits))
        rows, first = np.unique(row.cpu().numpy(), return_index=True)
        logits = logits.cpu()[first]
        probs, energy = probabilities(logits, activation), free_energy(logits, activation)
        return Epoch(rows, target.cpu().numpy()[first], probs.numpy(), energy.numpy())


@dataclass(frozen=True)
class Epoch:
    """row (N,) sorted and unique, target (N,) with -1 where unlabelled, probs (N, C) float64.

    energy: (N,) float64, see `free_energy`.
    """

    row: NDArray[np.int64]
    target: NDArray[np.int64]
    probs: NDArray[np.float64]
    energy: NDArray[np.float64] | None = None

    def score(self, metrics: Mapping[str, Metric]) -> dict[str, float]:
        """Each metric over the labelled rows; NaN, its reason logged, where it is undefined."""
        labelled = self.target >= 0
        target, probs = self.target[labelled], self.probs[labelled]
        if not np.isfinite(probs).all():
            log.warning("the network gave probabilities that are not finite; metrics are NaN")
            return dict.fromkeys(metrics, float("nan"))
        scores = {}
        for name, metric in metrics.items():
            try:
                scores[name] = metric(target, probs)
            except ValueError as error:
                log.warning("%s is undefined: %s", name, error)
                scores[name] = float("nan")
        return scores


def free_energy(logits: Tensor, activation: str) -> Tensor:
    """How little the logits (B, K) say for any class, (B,) float64: higher is less known.

    Of a softmax -log sum exp (Liu et al. 2020, arXiv 2010.03759); of sigmoids the sum of each
    class's, -sum log(1 + exp) (Wang et al. 2021, arXiv 2109.11277).
    """
    wide = logits.double()
    if activation == "softmax":
        return -wide.logsumexp(dim=1)
    return -softplus(wide).sum(dim=1)


@dataclass
class EpochLoss:
    """Sums the batches' losses on their device; nothing waits for it before `mean`."""

    total: Tensor | None = None
    rows: int = 0

    def add(self, loss: Tensor, rows: int) -> None:
        """Take the mean loss of a batch of `rows`."""
        weighted = loss.detach() * rows
        self.total = weighted if self.total is None else self.total + weighted
        self.rows += rows

    def mean(self) -> Tensor:
        """Mean over all rows of all ranks; begins anew."""
        assert self.total is not None
        sums = torch.stack([self.total, torch.full_like(self.total, self.rows)])
        self.total, self.rows = None, 0
        total, rows = _all_ranks(sums[None]).sum(dim=0)
        return torch.as_tensor(total / rows)


def _all_ranks(tensor: Tensor) -> Tensor:
    """Concatenate a tensor of equal shape over the ranks, where there are several."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
