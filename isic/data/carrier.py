"""Batches from loader processes, handed over in memory that they share with their parent.

One anonymous mapping, made before the fork, is divided into slots; each process has some of its
own. It copies the images of a batch into a free slot and sends the slot's number and the small
arrays through a pipe. The receiver gets tensors that lie in the slot, which is free again when the
last of them has gone. Where no slot is free, the batch goes through the pipe as it is.

Trap: torch's own way needs room in /dev/shm (64 MB in a container), a socket whose path is shorter
than 108 characters (TMPDIR) and an open file for each tensor; where one is missing, a thread of the
loader process prints a trace, the batch is lost and the training waits for ever.
"""

import mmap
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

SMALL = 1 << 15  # bytes of a tensor that is sent by value: less than a page fault or two costs
AHEAD = 2  # batches that torch asks of each process before it has the first
PAGE = mmap.PAGESIZE


class _Place(NamedTuple):
    """Offset of a tensor in a slot, and the order of its dimensions in memory."""

    offset: int
    shape: tuple[int, ...]  # in the order of `dims`
    dims: tuple[int, ...]  # of the tensor, the outermost in memory first
    dtype: np.dtype[Any]


class Carrier:
    """A `collate_fn` whose batches, dictionaries of tensors, cross from a process in shared memory.

    workers: Processes that will be forked.
    batch_bytes: Size of the largest batch's images.
    """

    def __init__(self, workers: int, batch_bytes: int) -> None:
        self.workers, self.batch_bytes = workers, batch_bytes
        # Each process has two batches on their way; some more are with the consumer.
        self.slots = AHEAD + -(-3 // workers)
        self.slot_bytes = -(-max(batch_bytes, 1) // PAGE) * PAGE
        self._memory = mmap.mmap(-1, PAGE * -(-workers * self.slots // PAGE) + self._bytes(workers))
        self._taken: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8, workers * self.slots)
        self._start = len(self._memory) - self._bytes(workers)
        self._owner = os.getpid()
        _CARRIERS[id(self)] = self

    def anew(self) -> "Carrier":
        """Another one of the same size: two sets of processes must not share their slots."""
        return Carrier(self.workers, self.batch_bytes)

    def _bytes(self, workers: int) -> int:
        return workers * self.slots * self.slot_bytes

    def __call__(self, batch: Mapping[str, Tensor]) -> "Parcel":
        """The batch, ready to be sent; called in the loader process."""
        info = get_worker_info()
        assert info is not None
        large = {name: t for name, t in batch.items() if t.nbytes > SMALL}
        small = {name: t for name, t in batch.items() if name not in large}
        free = (s for s in self._own(info.id) if not self._taken[s])
        size = sum(_padded(t.nbytes) for t in large.values())
        if not large or size > self.slot_bytes or (slot := next(free, None)) is None:
            return Parcel(self, _by_value(batch), {}, None)
        return Parcel(self, _by_value(small), self._placed(large, slot), slot)

    def _own(self, worker: int) -> range:
        return range(worker * self.slots, (worker + 1) * self.slots)

    def _placed(self, large: Mapping[str, Tensor], slot: int) -> dict[str, _Place]:
        """Copy tensors into a slot."""
        self._taken[slot] = 1
        places, offset = {}, 0
        for name, tensor in large.items():
            dims, source = _as_it_lies(tensor)
            place = _Place(offset, source.shape, dims, source.dtype)
            np.copyto(self._array(slot, place), source)
            places[name], offset = place, offset + _padded(tensor.nbytes)
        return places

    def _array(self, slot: int, place: _Place) -> NDArray[Any]:
        start = self._start + slot * self.slot_bytes + place.offset
        count = int(np.prod(place.shape))
        return np.frombuffer(self._memory, place.dtype, count, start).reshape(place.shape)

    def received(self, places: Mapping[str, _Place], slot: int) -> dict[str, Tensor]:
        """The tensors in a slot, which is free again when none of them is left."""
        left = len(places)

        def gone() -> None:
            nonlocal left
            left -= 1
            # A process that was forked meanwhile holds the same arrays, but not the slot.
            if not left and os.getpid() == self._owner:
                self._taken[slot] = 0

        tensors = {}
        for name, place in places.items():
            array = self._array(slot, place)
            weakref.finalize(array, gone).atexit = False
            tensors[name] = _tensor(place.dims, array)
        return tensors


class Parcel(NamedTuple):
    """A batch on its way; unpickled, it is a dictionary of tensors again."""

    carrier: Carrier
    small: "dict[str, _Lying]"
    places: dict[str, _Place]
    slot: int | None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _unpacked, (id(self.carrier), self.small, self.places, self.slot)


def _unpacked(
    carrier: int,
    small: Mapping[str, "_Lying"],
    places: Mapping[str, _Place],
    slot: int | None,
) -> dict[str, Tensor]:
    tensors = {name: _tensor(*lying) for name, lying in small.items()}
    return tensors if slot is None else tensors | _CARRIERS[carrier].received(places, slot)


_CARRIERS: "weakref.WeakValueDictionary[int, Carrier]" = weakref.WeakValueDictionary()


_Lying = tuple[tuple[int, ...], NDArray[Any]]  # dimensions in memory order, the array in it


def _by_value(tensors: Mapping[str, Tensor]) -> dict[str, _Lying]:
    """Copies: the buffers that they lie in are used again."""
    lying = {name: _as_it_lies(tensor) for name, tensor in tensors.items()}
    return {name: (dims, array.copy()) for name, (dims, array) in lying.items()}


def _as_it_lies(tensor: Tensor) -> _Lying:
    """A view whose dimensions are in the order in which they lie in memory: NHWC of images."""
    stride = tensor.stride()
    dims = tuple(sorted(range(tensor.dim()), key=lambda d: -stride[d]))
    return dims, tensor.permute(dims).numpy()


def _tensor(dims: tuple[int, ...], array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array).permute(*np.argsort(dims).tolist())


def _padded(size: int) -> int:
    """Tensors begin at a multiple of 64 bytes."""
    return -(-size // 64) * 64
