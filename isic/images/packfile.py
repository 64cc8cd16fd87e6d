"""The pack's file: one header, the images' bytes end to end, then tables with a row an image.

Layout, little-endian: header (`_HEADER`, padded to 4,096 bytes), payload (encoded bytes, or
uint8 (N, S, S, 3) where the pack holds pixels), tail (start int64, length int64, status uint8,
name end int64, CRC-32C of the row's bytes uint32, names UTF-8, reasons JSON). Version 1 has no CRC.

A file is taken for whole when its size is the one in the header and the digest over header and
tail holds. Its payload is compared row by row: when the file is opened, so that a damaged one is
made again, of up to `CHECKED_AT_ONCE` bytes and of pixels, which memory holds and every epoch reads
(16 GB/s, then a quarter of what a transform costs is not spent on each); else when a row is first
read (1 % of what its decoding costs, once a process).
Trap: a worker that meets a damaged row can only end the command. It removes the pack, so that the
same command makes a new one.
"""

import hashlib
import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from isic.checksums import Damaged, RowSums, crc_of
from isic.images.decode import Pixels

OK, UNREADABLE, MISSING = 0, 1, 2
PAGE_BYTES = 4096
HEADER_BYTES = PAGE_BYTES  # so that pixels begin on a page
TAIL_ROW_BYTES = 8 + 8 + 1 + 8 + 4  # of the tail, besides the names
CHECKED_AT_ONCE = 1 << 26  # bytes, 64 MB: 5 to 40 ms, by the number of rows
_HEADER = struct.Struct("<8sIIQQQ16s")  # magic, version, pixel side, rows, tail, size, digest
_MAGIC, _VERSION = b"ISICPACK", 2
_WITHOUT_SUMS = 1  # version of packs up to 0.1


class Pack:
    """A memory-mapped pack; row i is the i-th image that it was built from.

    `status` is uint8 (N,): OK, UNREADABLE or MISSING. `pixels` is uint8 (N, S, S, 3), or None
    in a pack of encoded bytes. Pickles as its path, so that workers share the pages.
    """

    status: npt.NDArray[np.uint8]
    pixels: Pixels | None
    _sums: RowSums | None

    def __init__(self, path: str | Path) -> None:
        self._checked = False  # whether every row was compared with its checksum
        self._open(Path(path), verify=True)
        if self._sums and (self.pixels is not None or self.nbytes <= CHECKED_AT_ONCE):
            for row in range(len(self)):
                if not self._sums.same(row, self._row(row)):
                    raise ValueError(f"{path}: the checksum of {self.name(row)} differs")
            self._checked = True

    def __len__(self) -> int:
        return len(self.status)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "checked": self._checked}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._checked = state["checked"]
        self._open(state["path"], verify=False)

    def __repr__(self) -> str:
        kind = "encoded" if self.pixels is None else f"{self.pixels.shape[1]} px pixels"
        return f"Pack({str(self.path)!r}: {len(self):,} rows, {kind}, {self.nbytes / 1e9:.2f} GB)"

    def encoded(self, row: int) -> npt.NDArray[np.uint8]:
        """The stored bytes of a row, a view into the file; empty where the image is missing.

        Raises:
            Damaged: They are not what was written; the file is removed.
        """
        data = self._row(row)
        if self._sums and not self._sums.same(row, data):
            raise self._damaged(row)
        return data

    def _row(self, row: int) -> npt.NDArray[np.uint8]:
        start = int(self._start[row])
        return self._bytes[start : start + int(self._length[row])]

    def pixels_of(self, row: int) -> Pixels:
        """The pixels of a row, uint8 (S, S, 3), of a pack that holds them. Raises as `encoded`."""
        assert self.pixels is not None
        side = self.pixels.shape[1]
        return self.encoded(row).reshape(side, side, 3)

    def name(self, row: int) -> str:
        """The reference that the row was built from: `folder/name.jpg` or `file.hdf5#<id>`."""
        start = int(self._name_end[row - 1]) if row > 0 else 0
        return bytes(self._names[start : int(self._name_end[row])]).decode()

    def reason(self, row: int) -> str:
        """Why the row is not OK, or what had to be guessed where it is; empty for most."""
        return self._reasons.get(str(int(row)), "")

    @property
    def reasons(self) -> dict[int, str]:
        """Those of all rows that have one."""
        return {int(row): reason for row, reason in self._reasons.items()}

    def _damaged(self, row: int) -> Damaged:
        with suppress(OSError):  # a cache that may not be written to
            self.path.unlink()
        mend = "it is made again" if not self.path.exists() else "delete it"
        return Damaged(
            f"{self.path} has changed since it was written: the checksum of {self.name(row)} (row "
            f"{row}) differs. Give the same command again: {mend}"
        )

    def warm(self) -> None:
        """Read a byte of every page: later reads meet no page fault. Takes as long as the disk."""
        self._bytes[::PAGE_BYTES].max(initial=0)

    def _open(self, path: Path, *, verify: bool) -> None:
        self.path = path
        # A plain view: slicing np.memmap itself runs Python code at every item.
        self._bytes: npt.NDArray[np.uint8] = np.memmap(path, np.uint8, "r").view(np.ndarray)
        self.nbytes = len(self._bytes)
        if self.nbytes < HEADER_BYTES:
            raise ValueError(f"{path}: shorter than a pack's header")
        header = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())
        magic, version, side, rows, tail, size, digest = header
        known = version in (_WITHOUT_SUMS, _VERSION)
        if magic != _MAGIC or not known or size != self.nbytes:
            raise ValueError(f"{path}: no whole pack of version {_VERSION}")
        if verify and _digest(header[:-1], self._bytes[tail:]) != digest:
            raise ValueError(f"{path}: its tables do not match their digest")
        self._read_tail(tail, rows, with_sums=version != _WITHOUT_SUMS)
        self.pixels = None
        if side:
            end = HEADER_BYTES + rows * side * side * 3
            self.pixels = self._bytes[HEADER_BYTES:end].reshape(rows, side, side, 3)

    def _read_tail(self, at: int, rows: int, *, with_sums: bool) -> None:
        self._start = np.frombuffer(self._bytes, "<i8", rows, at)
        self._length = np.frombuffer(self._bytes, "<i8", rows, at + 8 * rows)
        self.status = np.frombuffer(self._bytes, np.uint8, rows, at + 16 * rows)
        self._name_end = np.frombuffer(self._bytes, "<i8", rows, at + 17 * rows)
        names = at + (TAIL_ROW_BYTES - 4) * rows
        self._sums = None
        if with_sums:
            sums = np.frombuffer(self._bytes, "<u4", rows, names)
            self._sums = RowSums(sums, checked=self._checked)
            names += sums.nbytes
        names_end = names + (int(self._name_end[-1]) if rows else 0)
        self._names = self._bytes[names:names_end]
        self._reasons: dict[str, str] = json.loads(bytes(self._bytes[names_end:]))


def holds_metadata(path: Path) -> bool:
    """Return whether a file is a pack of an earlier release, which kept EXIF with the pixels."""
    try:
        with path.open("rb") as file:
            magic, version = _HEADER.unpack(file.read(_HEADER.size))[:2]
    except (OSError, struct.error):
        return False
    return bool(magic == _MAGIC and version == _WITHOUT_SUMS)


class PackWriter:
    """Writes a pack row by row into an open file; `finish` makes it whole.

    Where the file holds rows already, `restore` names them first, and writing goes on after them.
    """

    def __init__(self, file: BinaryIO, *, side: int = 0) -> None:
        self._file, self._side = file, side
        self._at = HEADER_BYTES
        self._length: list[int] = []
        self._sums: list[int] = []
        self._names: list[bytes] = []
        self._reasons: dict[str, str] = {}
        self.status: list[int] = []
        file.seek(0)
        file.write(bytes(HEADER_BYTES))

    def __len__(self) -> int:
        return len(self.status)

    def add(self, name: str | None, data: bytes, *, status: int = OK, reason: str = "") -> None:
        """Append one row."""
        self._file.write(data)
        self.restore(name, len(data), crc_of(data), status=status, reason=reason)

    def restore(self, name: str | None, length: int, crc: int, *, status: int, reason: str) -> None:
        """A row whose bytes the file holds.

        crc: CRC-32C of these bytes.
        """
        if reason:
            self._reasons[str(len(self))] = reason
        self._at += length
        self._length.append(length)
        self._sums.append(crc)
        self.status.append(status)
        self._names.append((name or "").encode())

    def go_on(self) -> None:
        """Cut off what the file holds after the rows restored; the next row goes there."""
        self._file.truncate(self._at)
        self._file.seek(self._at)

    def finish(self) -> None:
        """Write tables and header; the caller fsyncs and renames."""
        rows = len(self._length)
        length = np.array(self._length, "<i8")
        start = HEADER_BYTES + np.concatenate([[0], np.cumsum(length)[:-1]]).astype("<i8")[:rows]
        name_end = np.cumsum([len(name) for name in self._names], dtype="<i8")
        tail = b"".join(
            [start.tobytes(), length.tobytes(), bytes(self.status), name_end.tobytes()]
            + [self._sum_table()]
            + self._names
            + [json.dumps(self._reasons).encode()]
        )
        self._file.write(tail)
        fields = (_MAGIC, _VERSION, self._side, rows, self._at, self._at + len(tail))
        self._file.seek(0)
        self._file.write(_HEADER.pack(*fields, _digest(fields, tail)))

    def _sum_table(self) -> bytes:
        return np.array(self._sums, "<u4").tobytes()


def _digest(fields: tuple[Any, ...], tail: bytes | npt.NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(repr(fields).encode() + bytes(tail), digest_size=16).digest()
