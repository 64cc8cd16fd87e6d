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
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5s, h5t

from isic.errors import DataError

_FIXED = (h5t.STRING, h5t.OPAQUE, h5t.INTEGER)  # bytes as |S, |V or uint8


class Hdf5Images:
    """An open HDF5 file of encoded images; `read(id)` gives bytes, or None where it has no `id`."""

    def __init__(self, path: str | Path) -> None:
        try:
            self._file = h5py.File(path, "r")
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
        """The stored bytes; b"" for an empty string, which HDF5 can only store as one NUL."""
        try:
            dataset: Any = h5d.open(self._file.id, image_id.encode())
        except KeyError:
            return None
        data = self._in_place(dataset)
        if data is None:
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
        data = os.pread(self._plain, size, offset)
        return data if len(data) == size else None


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
