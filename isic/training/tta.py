"""Test-time augmentation: average the probabilities over the eight views of a square image.

All images of a lesion are turned alike: eight passes, not eight for each.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Network = Callable[[Mapping[str, Tensor]], Tensor]


def d4_views(image: Tensor) -> Iterator[Tensor]:
    """The eight flips and quarter turns of square images (B, 3, S, S), the image itself first."""
    for turned in (image, image.transpose(2, 3)):
        for dims in ((), (2,), (3,), (2, 3)):
            yield turned.flip(dims) if dims else turned


def averaged_logits(network: Network, batch: Mapping[str, Tensor], activation: str) -> Tensor:
    """Logits (B, K), float64, whose probabilities are the mean over the views' probabilities.

    In logarithms throughout: a mean of probabilities near 1 would be 1, and ranks would tie.
    """
    images = {k: v for k, v in batch.items() if getattr(v, "ndim", 0) == 4}  # of every view
    turned = zip(*map(d4_views, images.values()), strict=True)
    logits = [network({**batch, **dict(zip(images, x, strict=True))}).double() for x in turned]
    stacked = torch.stack(logits)  # (8, B, K)
    if activation == "softmax":
        return stacked.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))
    positive, negative = logsigmoid(stacked), logsigmoid(-stacked)
    return positive.logsumexp(dim=0) - negative.logsumexp(dim=0)
