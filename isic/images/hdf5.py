"""Images stored in HDF5 as one scalar dataset an id: |S, |V, uint8 vectors, variable length.

Source: `train-image.hdf5` of ISIC 2024 (SLICE-3D) holds 401,059 JPEG byte strings at the top
level, named by isic_id. Bytes come out as stored, undecoded.

Trap: h5py's `file[id][()]` costs 120 us and more for a 3 KB string, and a file opened afresh for
each item 2 ms. Here HDF5 only tells where the bytes of a fixed-length dataset lie, and they are
read from the file itself, in two thirds of the low-level read's time; still read once, into a pack.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5s, h5t

from isic.errors import DataError
from isic.images.limits import MAX_PIXELS, ImageError, refuse_bytes

_FIXED = (h5t.STRING, h5t.OPAQUE, h5t.INTEGER)  # bytes as |S, |V or uint8


class Hdf5Images:
    """An open HDF5 file of encoded images; `read(id)` gives bytes, or None where it has no `id`."""

    def __init__(self, path: str | Path, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        try:
            self._file = h5py.File(path, "r")
            self._name = h5f.get_name(self._file.id)
            # a block of the user's own in front would move every offset
            self._plain = None if self._file.userblock_size else os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise DataError(f"no HDF5 file at {path}; check data.root") from error
        except OSError as error:
            if refused := lock_refused(path, error):
                raise refused from error
            message = f"expected a whole HDF5 file at {path}, got: {error}; download it again"
            raise DataError(message) from error

    def __len__(self) -> int:
        return len(self._file)

    def __enter__(self) -> "Hdf5Images":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._plain is not None:
            os.close(self._plain)

    def read(self, image_id: str) -> bytes | None:
        """The stored bytes; b"" for an empty string, which HDF5 can only store as one NUL.

        Raises:
            ImageError: The bytes lie in another file, which anyone can make a store name.
        """
        try:
            dataset: Any = h5d.open(self._file.id, image_id.encode())
        except KeyError:
            _refuse_lost_link(self._file, image_id)
            return None
        if (held_by := h5f.get_name(dataset)) != self._name:
            raise ImageError(_elsewhere(self._name, image_id, f"a link to {held_by!r}"))
        data = self._in_place(dataset)
        if data is None:
            _refuse_foreign_storage(dataset, self._name, image_id)
            self._refuse_bomb(dataset)
            data = _through_hdf5(dataset)
        return b"" if data == b"\0" else data

    def _in_place(self, dataset: Any) -> bytes | None:
        """The bytes where the file holds them as they are; None for any other layout."""
        offset, kind = dataset.get_offset(), dataset.get_type()  # no offset: chunked or compact
        if self._plain is None or offset is None or kind.get_class() not in _FIXED:
            return None
        if kind.get_class() == h5t.STRING and kind.is_variable_str():
            return None
        size = dataset.get_storage_size()
        refuse_bytes(size, "a dataset", self._max_pixels)
        data = os.pread(self._plain, size, offset)
        return data if len(data) == size else None

    def _refuse_bomb(self, dataset: Any) -> None:
        """By what it says that it will take: zeros compress a thousandfold."""
        rows = prod(dataset.shape)
        creation = dataset.get_create_plist()
        if creation.get_layout() == h5d.CHUNKED:  # inflated whole, however little of it is used
            rows = max(rows, prod(creation.get_chunk()))
        refuse_bytes(rows * dataset.dtype.itemsize, "a dataset", self._max_pixels)


def lock_refused(path: str | Path, error: OSError) -> DataError | None:
    """Where a file does not open because of its lock, what to do; the file itself is whole."""
    if not (found := re.search(r"unable to lock file, errno = (\d+)", str(error))):
        return None
    number = int(found[1])
    if number in (errno.EAGAIN, errno.EACCES):
        return DataError(
            f"{path} is locked: another program has it open for writing. End that program; where "
            "none writes to it, HDF5_USE_FILE_LOCKING=FALSE in front of the command reads it anyway"
        )
    return DataError(
        f"{path}: its file system has no locks (errno {number}, {os.strerror(number)}): "
        "HDF5_USE_FILE_LOCKING=FALSE in front of the command reads it without"
    )


def _refuse_lost_link(file: h5py.File, image_id: str) -> None:
    """An id whose link leads to a file that is not there is no id that the store lacks."""
    with suppress(KeyError):
        if isinstance(file.get(image_id, getlink=True), h5py.ExternalLink):
            raise ImageError(_elsewhere(h5f.get_name(file.id), image_id, "a link to another file"))


def _refuse_foreign_storage(dataset: Any, store: bytes, image_id: str) -> None:
    """HDF5 would open whatever file a dataset names for its bytes, from /etc as well."""
    made = dataset.get_create_plist()
    if made.get_external_count() or made.get_layout() == h5d.VIRTUAL:
        raise ImageError(_elsewhere(store, image_id, "external storage"))


def _elsewhere(store: bytes, image_id: str, what: str) -> str:
    return (
        f"{image_id} of {os.fsdecode(store)} is {what}, expected bytes in the store itself; copy "
        "the bytes into it"
    )


def _through_hdf5(dataset: Any) -> bytes:
    """Whatever the layout: variable length, chunked, compressed."""
    if dataset.dtype.kind == "O":  # variable length: only the high level knows how
        return bytes(h5py.Dataset(dataset)[()])
    # Numpy strips trailing NULs from |S on conversion; the raw buffer keeps every byte.
    stored = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, stored)
    return stored.tobytes()


def read_images(path: str | Path, ids: Iterable[str]) -> Iterator[bytes | None]:
    """Yield the bytes of each id in turn, None where the file does not hold it."""
    with Hdf5Images(path) as images:
        for image_id in ids:
            yield images.read(image_id)
