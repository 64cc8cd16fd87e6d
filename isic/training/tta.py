"""Test-time augmentation: average the probabilities over several views of each image.

| name | views |
|---|---|
| `d4` | the eight flips and quarter turns of the square |
| `multicrop` | nine ordered crops, 3 x 3, of the image at 1.15 times the network's size |
| `d4_multicrop` | both: 72 |

Source: ordered crops are ISIC 2019's winner's (arXiv 1910.03910), who took 16 and more of a larger
image. Batches come at `loaded_size`, uint8 (B, 3, S, S), and are cut on their device.
All images of a lesion are turned and cut alike: eight passes, not eight for each.
Trap: a network that trained on whole images sees crops a seventh larger than it is used to.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from isic.errors import ConfigError

Network = Callable[[Mapping[str, Tensor]], Tensor]
Views = Callable[[Tensor], Iterator[Tensor]]

NAMES = ("none", "d4", "multicrop", "d4_multicrop")
ZOOM = 1.15
CROPS = 3  # a side


def d4_views(image: Tensor) -> Iterator[Tensor]:
    """The eight flips and quarter turns of square images (B, 3, S, S), the image itself first."""
    for turned in (image, image.transpose(2, 3)):
        for dims in ((), (2,), (3,), (2, 3)):
            yield turned.flip(dims) if dims else turned


def crop_views(image: Tensor, size: int) -> Iterator[Tensor]:
    """Nine crops (B, 3, size, size) of (B, 3, S, S), from edge to edge, row by row."""
    space = image.shape[2] - size
    if space < 0:
        raise ValueError(f"crops of {size} px need larger images, got {image.shape[2]}")
    starts = [round(i * space / (CROPS - 1)) for i in range(CROPS)]
    for top in starts:
        for left in starts:
            yield image[:, :, top : top + size, left : left + size]


def views_of(name: str, size: int) -> Views | None:
    """The views that a `tta=` names, of a network that takes `size` pixels; None for `none`."""
    if name not in NAMES:
        raise ConfigError(f"tta: expected {' or '.join(NAMES)}, got {name!r}")
    if name == "none":
        return None
    return d4_views if name == "d4" else partial(_cropped, size=size, turned=name != "multicrop")


def _cropped(image: Tensor, *, size: int, turned: bool) -> Iterator[Tensor]:
    for crop in crop_views(image, size):
        yield from d4_views(crop) if turned else (crop,)


def loaded_size(name: str, size: int) -> int:
    """Side in pixels that batches are loaded at, for a network that takes `size`."""
    return math.ceil(ZOOM * size) if name.endswith("multicrop") else size


def averaged_logits(
    network: Network, batch: Mapping[str, Tensor], activation: str, views: Views = d4_views
) -> Tensor:
    """Logits (B, K), float64, whose probabilities are the mean over the views' probabilities.

    In logarithms throughout: a mean of probabilities near 1 would be 1, and ranks would tie.
    A softmax's logits also keep the mean of the views' log-sum-exp, which no probability shows.
    """
    images = {k: v for k, v in batch.items() if getattr(v, "ndim", 0) == 4}  # of every view
    turned = zip(*(_laid_out_alike(views(v), v) for v in images.values()), strict=True)
    logits = [network({**batch, **dict(zip(images, x, strict=True))}).double() for x in turned]
    stacked = torch.stack(logits)  # (views, B, K)
    if activation == "softmax":
        scale = stacked.logsumexp(dim=2, keepdim=True)
        return (stacked - scale).logsumexp(dim=0) - math.log(len(logits)) + scale.mean(dim=0)
    positive, negative = logsigmoid(stacked), logsigmoid(-stacked)
    return positive.logsumexp(dim=0) - negative.logsumexp(dim=0)


def _laid_out_alike(views: Iterator[Tensor], image: Tensor) -> Iterator[Tensor]:
    """Views in the memory format of their image: the strides of a turned one are slow."""
    last = image.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    for view in views:
        yield view.contiguous(memory_format=layout)
