"""Mixup and cutmix of a batch on its device: images, targets and weights of pairs of samples.

- mixup: Zhang et al. 2018 (arXiv 1710.09412), `x = lam x_i + (1 - lam) x_j`, lam ~ Beta(a, a)
- cutmix: Yun et al. 2019 (arXiv 1905.04899), a box of x_j in x_i, lam = the share left of x_i

Both are one formula: each pixel is `keep x_i + (1 - keep) x_j`, where keep is lam everywhere, or 0
in the box and 1 outside. Every sample draws its own lam, box and kind; partners are a permutation
of the batch. What is drawn follows from (seed, epoch, batch, rank) and no generator is carried, so
that a resumed run mixes what the uninterrupted one would have mixed. `timm.data.Mixup` draws from
numpy's global generator and takes even batches of class indices only.

Trap: the target must follow the box as it was cut at the border, not the lam that was drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from isic.errors import ConfigError

TARGETS = ("aux_", "teacher")  # floats (B, F) of a batch that a loss reads, and no network


@dataclass(frozen=True)
class Draw:
    """What is drawn for one batch of B samples of S x S pixels, on the CPU.

    partner: (B,) int64.
    share: (B,) float32, of a sample itself in its mix.
    box: (B, 4) int64: top, bottom, left, right of what the partner gives; empty under mixup.
    blend: (B,) float32, weight of a sample's own pixels outside the box; 1 under cutmix.
    """

    partner: Tensor
    share: Tensor
    box: Tensor
    blend: Tensor


class Mixing:
    """Mixes batches while training; the keys of conf/mixing.

    mixup, cutmix: Parameter a of Beta(a, a), 0 leaves that kind out.
    p: Share of the samples that are mixed at all.
    switch: Share of cutmix among them where both are on.
    off_last_epochs: So many epochs at the end see images as they are.
    """

    def __init__(
        self,
        *,
        mixup: float = 0.4,
        cutmix: float = 0.0,
        p: float = 1.0,
        switch: float = 0.5,
        off_last_epochs: int = 0,
        seed: int = 0,
    ) -> None:
        if min(mixup, cutmix, off_last_epochs) < 0 or mixup + cutmix == 0:
            raise ConfigError(
                "mixing: expected mixup and cutmix of 0 or more, one of them above, and "
                f"off_last_epochs of 0 or more, got {mixup}, {cutmix} and {off_last_epochs}"
            )
        if not (0 <= p <= 1 and 0 <= switch <= 1):
            raise ConfigError(f"mixing: expected p and switch in 0..1, got {p} and {switch}")
        self.mixup, self.cutmix, self.p = mixup, cutmix, p
        self.cut_share = switch if mixup and cutmix else float(cutmix > 0)
        self.off_last_epochs, self.seed = off_last_epochs, seed

    def is_on(self, epoch: int, *, epochs: int | None) -> bool:
        """Whether this epoch of so many mixes; without an end none is the last."""
        return epochs is None or epochs < 0 or epoch < epochs - self.off_last_epochs

    def __call__(
        self, batch: Mapping[str, Tensor], *, n_classes: int, epoch: int, index: int, rank: int = 0
    ) -> dict[str, Tensor]:
        """The batch mixed: `target` (B, C) float32 shares of the classes.

        Images, the entries of four dimensions, keep their dtype. `weight` becomes that of the mix,
        and the target its part of each weight, so that a linear loss is exactly the weighted sum of
        both samples' losses. Floats (B, F) are mixed by the share of the image, those of `TARGETS`
        by that of the target. The rest stays. Of several views, those that both samples have are
        mixed: `has_<view>`, as the images in order.

        index: Number of the batch in its epoch.

        Raises:
            ConfigError: A batch without images.
        """
        image = next((v for v in batch.values() if v.ndim == 4), None)
        if image is None:
            raise ConfigError(f"mixing: expected batches with images, got {', '.join(batch)}")
        draw = self.draw(len(image), size=image.shape[-1], key=(epoch, index, rank))
        partner, share, box, blend = (
            t.to(image.device, non_blocking=True)
            for t in (draw.partner, draw.share, draw.box, draw.blend)
        )
        keep = _keep(box, blend, size=image.shape[-1])  # (B, 1, S, S)
        mixed = dict(batch)
        for name, part in _of_views(batch, partner, keep).items():
            mixed[name] = _blended(batch[name], batch[name][partner], part)
        for name, value in batch.items():
            if value.ndim == 2 and value.is_floating_point() and not name.startswith(TARGETS):
                mixed[name] = _blended(value, value[partner], share[:, None])
        if "weight" in batch:
            own, other = share * batch["weight"], (1 - share) * batch["weight"][partner]
            mixed["weight"] = own + other
            share = own / mixed["weight"].clamp(min=torch.finfo(torch.float32).tiny)
        target = functional.one_hot(batch["target"], n_classes).float()  # (B, C)
        mixed["target"] = _blended(target, target[partner], share[:, None])
        for name in (n for n in batch if n.startswith(TARGETS)):
            mixed[name] = _blended(batch[name], batch[name][partner], share[:, None])
        return mixed

    def draw(self, n: int, *, size: int, key: tuple[int, int, int]) -> Draw:
        """What happens to a batch of `n` images of `size` pixels; key: epoch, batch, rank."""
        rng = np.random.default_rng((self.seed, *key))
        partner = rng.permutation(n)
        is_cut, is_mixed = rng.random(n) < self.cut_share, rng.random(n) < self.p
        lam = np.where(is_cut, _beta(rng, self.cutmix, n), _beta(rng, self.mixup, n))
        lam = np.where(is_mixed, lam, 1.0)
        box = _boxes(rng, np.where(is_cut, lam, 1.0), size)
        area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
        blend = np.where(is_cut, 1.0, lam)
        share = np.where(is_cut, 1 - area / size**2, lam)
        return Draw(
            torch.from_numpy(partner),
            torch.from_numpy(share.astype(np.float32)),
            torch.from_numpy(box),
            torch.from_numpy(blend.astype(np.float32)),
        )


def _beta(rng: np.random.Generator, a: float, n: int) -> NDArray[np.float64]:
    return rng.beta(a, a, n) if a else np.ones(n)


def _boxes(rng: np.random.Generator, lam: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Boxes (N, 4) of the area 1 - lam about a centre anywhere, cut at the border."""
    side = np.rint(size * np.sqrt(1 - lam)).astype(np.int64)[:, None]
    start = rng.integers(0, size, (len(lam), 2)) - side // 2
    ends = np.clip(np.stack([start, start + side], axis=2), 0, size)  # (N, 2, 2)
    return np.ascontiguousarray(ends.reshape(-1, 4))


def _keep(box: Tensor, blend: Tensor, *, size: int) -> Tensor:
    """Weight of the sample's own pixels, (B, 1, S, S)."""
    at = torch.arange(size, device=box.device)
    top, bottom, left, right = box[:, :, None].unbind(1)  # (B, 1) each
    rows, columns = (at >= top) & (at < bottom), (at >= left) & (at < right)  # (B, S)
    inside = rows[:, :, None] & columns[:, None, :]
    return torch.where(inside, 0.0, blend[:, None, None])[:, None]


def _of_views(batch: Mapping[str, Tensor], partner: Tensor, keep: Tensor) -> dict[str, Tensor]:
    """`keep` for the images of each view; all of a sample's own where one of the pair has none."""
    images = [name for name, value in batch.items() if value.ndim == 4]
    has = [value for name, value in batch.items() if name.startswith("has_")]
    if not has:
        return dict.fromkeys(images, keep)
    both = [(h & h[partner])[:, None, None, None] for h in has]
    return {k: torch.where(b, keep, 1.0) for k, b in zip(images, both, strict=True)}


def _blended(own: Tensor, other: Tensor, keep: Tensor) -> Tensor:
    """`keep own + (1 - keep) other` in dtype and memory format of `own`."""
    if own.is_floating_point():
        return torch.lerp(own, other, (1 - keep).to(own.dtype))
    mixed = own.float().lerp_(other.float(), 1 - keep)
    return mixed.round_().to(own.dtype)
