"""Rows of a pack as batches: `{"image": uint8 (B, 3, H, W), "target": (B,), "row": (B,)}`.

Of several views, `image` is the first, `image_<view>` each other, and `has_<view>` bool (B,) says
of each which rows have it; the others are black.

One call makes a whole batch: images are decoded into one NHWC buffer, of which the tensor is a
channels_last view. Buffers are used again once nothing refers to them any more, since fresh
pages for each batch cost more than the pixels that go into them.

Trap: the seed of a sample is mixed from (seed, epoch, pack row, view) and from nothing else, so
that pixels do not depend on workers, batches, ranks or the order of the epoch.
"""

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from isic.data.seeds import Bits, sample_seeds, view_seeds
from isic.data.transforms import Transform
from isic.errors import DataError
from isic.images.decode import ImageError, Pixels, decode
from isic.images.packfile import OK, Pack

Batch = dict[str, torch.Tensor]
_KEPT = 4  # idle buffers: one being filled, one on its way, two with the consumer


class BufferRing:
    """Arrays of one shape and dtype, handed out again when their last reader has gone."""

    def __init__(self) -> None:
        self._idle: deque[npt.NDArray[Any]] = deque()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """A contiguous array of undefined content, a view into a buffer at least as long."""
        for _ in range(len(self._idle)):
            try:
                buffer = self._idle.popleft()  # atomic: two threads never look at one buffer
            except IndexError:
                break
            if sys.getrefcount(buffer) > _UNSHARED:
                self._idle.append(buffer)
            elif (
                buffer.dtype == dtype and buffer.shape[1:] == shape[1:] and len(buffer) >= shape[0]
            ):
                self._idle.append(buffer)
                return buffer[: shape[0]]
        buffer = np.empty(shape, dtype)
        if len(self._idle) < _KEPT:
            self._idle.append(buffer)
        return buffer[:]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._idle = deque()


def _count_unshared() -> int:
    """What getrefcount says of an array that one local name holds; differs between Pythons."""
    buffer = np.empty(1)
    return sys.getrefcount(buffer)


_UNSHARED = _count_unshared()


class LesionDataset(Dataset[Batch]):
    """Samples (pack row, target) under one transform.

    rows: int64 (N,) rows of the pack.
    target: int64 (N,), -1 where unlabelled.
    columns: Arrays of N rows that batches hold too, under their names: `weight` float32 (N,) of
        each sample's loss, `metadata` float32 (N, M), targets of extra heads and the like.
    views: Packs of the same rows by view, `pack` first, where there are several.
    """

    def __init__(
        self,
        pack: Pack,
        rows: npt.NDArray[np.int64],
        target: npt.NDArray[np.int64],
        *,
        transform: Transform,
        columns: Mapping[str, npt.NDArray[Any]] | None = None,
        views: Mapping[str, Pack] | None = None,
        seed: int = 0,
    ) -> None:
        if len(rows) != len(target):
            raise ValueError(
                f"expected a target a row, got {len(rows)} rows, {len(target)} targets"
            )
        self.pack, self.transform, self.seed = pack, transform, seed
        self.rows = np.ascontiguousarray(rows, np.int64)
        self.target = np.ascontiguousarray(target, np.int64)
        self.columns = {name: np.ascontiguousarray(c) for name, c in (columns or {}).items()}
        if odd := {name: len(c) for name, c in self.columns.items() if len(c) != len(rows)}:
            raise ValueError(f"expected columns of {len(rows)} rows, got {odd}")
        self.views = dict(views or {})
        self._rings = [BufferRing() for _ in range(max(len(self.views), 1))]
        # Processes are the parallelism; OpenCV's thread pool does not survive a fork either.
        cv2.setNumThreads(0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        cv2.setNumThreads(0)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sample_bytes(self) -> int:
        """Of the images of one sample in a batch, all views together, with room for alignment."""
        size, views = self.transform.size, max(len(self.views), 1)
        return views * (size * size * 3 * int(np.dtype(self.transform.dtype).itemsize) + 64)

    def __getitem__(self, batch: tuple[int, Sequence[int]]) -> Batch:
        """As `__getitems__`, for `DataLoader(sampler=..., batch_size=None)`."""
        return self.__getitems__(batch)

    def __getitems__(self, batch: tuple[int, Sequence[int]]) -> Batch:
        """The samples at `positions` of an `(epoch, positions)` pair, in that order."""
        epoch, positions = batch[0], np.array(batch[1], np.int64)  # a copy: it leaves as a tensor
        rows = self.rows[positions]
        seeds = sample_seeds(self.seed, epoch=epoch, rows=rows)
        made = self._of_views(rows, seeds) if self.views else {"image": self._image(rows, seeds)}
        made["target"] = torch.from_numpy(self.target[positions])
        made["row"] = torch.from_numpy(positions)
        made |= {name: torch.from_numpy(c[positions]) for name, c in self.columns.items()}
        return made

    def _image(self, rows: npt.NDArray[np.int64], seeds: Bits) -> torch.Tensor:
        """Images (B, 3, H, W) of the only view."""
        images = self._rings[0].take(self._shape(rows), self.transform.dtype)
        self._fill(self.pack, rows, seeds, images)
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def _of_views(self, rows: npt.NDArray[np.int64], seeds: Bits) -> Batch:
        """Images of each view, and which rows have it."""
        made: Batch = {}
        for i, ((view, pack), ring) in enumerate(zip(self.views.items(), self._rings, strict=True)):
            has, own = pack.status[rows] == OK, view_seeds(seeds, i)
            images = ring.take(self._shape(rows), self.transform.dtype)
            if has.all():
                self._fill(pack, rows, own, images)
            else:
                images[:] = 0
                part = np.empty(self._shape(rows[has]), images.dtype)
                self._fill(pack, rows[has], own[has], part)
                images[has] = part
            made[f"image_{view}" if i else "image"] = torch.from_numpy(images).permute(0, 3, 1, 2)
            made[f"has_{view}"] = torch.from_numpy(has)
        return made

    def _shape(self, rows: npt.NDArray[np.int64]) -> tuple[int, int, int, int]:
        return (len(rows), self.transform.size, self.transform.size, 3)

    def _fill(
        self, pack: Pack, rows: npt.NDArray[np.int64], seeds: Bits, images: npt.NDArray[Any]
    ) -> None:
        """Write the transformed images of pack rows into `images` (B, H, W, 3)."""
        loaded = map(partial(self._load, pack), rows.tolist())
        if hasattr(self.transform, "batch"):
            self.transform.batch(loaded, images, seeds)
        else:
            for image, out, seed in zip(loaded, images, seeds.tolist(), strict=True):
                self.transform(image, out, seed)

    def _load(self, pack: Pack, row: int) -> Pixels:
        """Decoded pixels of a pack row; the datamodule leaves out rows that are not OK."""
        try:
            if pack.pixels is None:
                return decode(pack.encoded(row), min_side=self.transform.min_side, max_pixels=None)
            if pack.status[row] == OK:
                return pack.pixels_of(row)
            raise ImageError(pack.reason(row))
        except ImageError as error:
            # One string: a worker's exception must unpickle, or its batch is waited for in vain.
            raise DataError(
                f"cannot decode {pack.name(row)} (pack row {row}): {error}; "
                "see data.on_bad_image, or download it again"
            ) from None
