"""Test-time augmentation: average the probabilities over the eight views of a square image."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Network = Callable[[Mapping[str, Tensor]], Tensor]


def d4_views(image: Tensor) -> Iterator[Tensor]:
    """The eight flips and quarter turns of square images (B, 3, S, S), the image itself first."""
    for turned in (image, image.transpose(2, 3)):
        for dims in ((), (2,), (3,), (2, 3)):
            yield turned.flip(dims) if dims else turned


def averaged_logits(network: Network, batch: Mapping[str, Tensor], activation: str) -> Tensor:
    """Logits (B, K) whose probabilities are the mean over the views' probabilities."""
    total: Tensor | None = None
    views = 0
    for view in d4_views(batch["image"]):
        logits = network({**batch, "image": view}).double()  # (B, K)
        probs = logits.softmax(dim=1) if activation == "softmax" else logits.sigmoid()
        total = probs if total is None else total + probs
        views += 1
    assert total is not None
    mean = total / views
    return mean.log() if activation == "softmax" else torch.logit(mean)
