"""A pack in the making: what a killed packer had done is there for the next one.

`.<pack>.partial` holds header and payload as the pack will, `.<pack>.journal` a line for every few
seconds of work: the rows that it adds, the CRC-32C of their bytes, and its own. Payload is fsynced
before the line that speaks of it; both files are cut back to the last line that holds.

Trap: a line that is whole proves nothing about bytes that another writer, or a power cut, has
changed since. They are read again and compared before work goes on.
"""

import errno
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
from filelock import Timeout

from isic.files import FORGOTTEN, file_lock
from isic.images.convert import Row
from isic.images.packfile import HEADER_BYTES, PackWriter
from isic.images.sources import Ref

log = logging.getLogger(__name__)

COMMIT_SECONDS = 2.0  # of work that a kill may cost; an fsync for each chunk would cost more
_FORM = 1  # of the journal


class _Commit(NamedTuple):
    """A line of the journal: rows that were on the disk when it was written."""

    length: list[int]
    status: list[int]
    reason: list[str]
    crc: int  # of the rows' bytes, end to end


class PartialPack:
    """The pack `path` of `images` while it is written, by one process at a time, under its lock.

    Entered, `done` rows are there already; `add` the others in order, then `finish`. Left by an
    error, what is on the disk stays for the next packer, except where the disk is full.
    """

    def __init__(self, path: Path, images: Sequence[Ref], *, side: int) -> None:
        self.path, self._images, self._side = path, images, side
        self._partial, self._journal = beside(path, "partial"), beside(path, "journal")
        self._head = {"form": _FORM, "pack": path.name, "rows": len(images)}
        self._pending = _Commit([], [], [], 0)
        self._committed = 0

    @property
    def done(self) -> int:
        """Rows written so far, by whomever."""
        return len(self._writer)

    @property
    def status(self) -> list[int]:
        """Of each row written so far: OK, UNREADABLE or MISSING."""
        return self._writer.status

    def __enter__(self) -> "PartialPack":
        commits = list(self._found())
        mode = "r+b" if commits else "w+b"
        self._file: BinaryIO = self._partial.open(mode)  # type: ignore[assignment]
        self._lines: BinaryIO = self._journal.open(mode)  # type: ignore[assignment]
        self._writer = PackWriter(self._file, side=self._side)
        self._lines.write(_line(self._head))
        for commit, sums in commits:
            self._lines.write(_line(commit))
            for length, status, reason, crc in zip(*commit[:3], sums, strict=True):
                name = self._images[self.done]
                self._writer.restore(name, length, crc, status=status, reason=reason)
        self._lines.truncate()
        self._writer.go_on()
        self._committed, self._next = self.done, time.monotonic() + COMMIT_SECONDS
        if commits:
            log.info("%s: going on after %s that an earlier packer has done", self.path, self._said)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._file, self._lines):
            with suppress(OSError):  # a full disk is met again by what the buffer still holds
                file.close()
        if error is None:
            return
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or not self._committed:
            self._discard()
        else:
            log.warning(
                "%s: stopped after %s; the same command goes on from there", self.path, self._said
            )

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows, and now and then see to it that they stay."""
        crc = self._pending.crc
        for data, status, reason in rows:
            self._writer.add(self._images[self.done], data, status=status, reason=reason)
            self._pending.length.append(len(data))
            self._pending.status.append(status)
            self._pending.reason.append(reason)
            crc = google_crc32c.extend(crc, data)
        self._pending = self._pending._replace(crc=crc)
        if time.monotonic() >= self._next:
            self._commit()
            self._next = time.monotonic() + COMMIT_SECONDS

    def finish(self) -> None:
        """Make the pack whole and give it its name."""
        self._writer.finish()
        _sync(self._file)
        os.replace(self._partial, self.path)
        _sync_folder(self.path.parent)
        self._journal.unlink()

    def _commit(self) -> None:
        _sync(self._file)
        self._lines.write(_line(self._pending))
        _sync(self._lines)
        self._committed += len(self._pending.length)
        self._pending = _Commit([], [], [], 0)

    def _discard(self) -> None:
        self._journal.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)

    @property
    def _said(self) -> str:
        return f"{self._committed:,} of {len(self._images):,} images"

    def _found(self) -> Iterator[tuple[_Commit, list[int]]]:
        """What an earlier packer's journal says and its payload bears out, with each row's CRC."""
        if not (self._journal.exists() and self._partial.exists()):
            return
        lines = self._journal.read_bytes().splitlines(keepends=True)
        if not lines or _content(lines[0]) != self._head:
            log.warning("%s: no journal of this pack; packing starts anew", self._journal)
            return
        with self._partial.open("rb") as file:
            file.seek(HEADER_BYTES)
            for line in lines[1:]:
                content = _content(line)
                if content is None:  # written while its writer was killed
                    return
                commit = _Commit(*content)
                sums, crc = _sums_of(file, commit.length)
                if crc != commit.crc:
                    log.warning("%s: not as its journal says; some rows again", self._partial)
                    return
                yield commit, sums


def beside(path: Path, kind: str) -> Path:
    """A packer's own file. One name, not a random one: whoever takes over must find it."""
    return path.with_name(f".{path.name}.{kind}")


def remove_forgotten(cache_root: Path) -> None:
    """Delete what packers left more than a day ago and none has taken up since, and say so.

    Its key may never be asked for again: that of an archive or an option that has changed.
    """
    for partial in cache_root.glob(".*.partial"):
        pack = partial.with_name(partial.stem.removeprefix("."))
        try:
            if time.time() - partial.stat().st_mtime < FORGOTTEN:
                continue
            with file_lock(pack.with_name(f"{pack.name}.lock"), timeout=0):
                size = partial.stat().st_size
                beside(pack, "journal").unlink(missing_ok=True)
                partial.unlink()
        except (Timeout, OSError):  # a packer is at it, or the file is another user's
            continue
        log.info("removed %s (%.2f GB), which an interrupted packer left", partial, size / 1e9)


def _line(content: Any) -> bytes:
    text = json.dumps(content).encode()
    return b"%08x %s\n" % (google_crc32c.value(text), text)


def _content(line: bytes) -> Any:
    """What `_line` was made of; None where it is not whole."""
    crc, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or crc != b"%08x" % google_crc32c.value(text):
        return None
    return json.loads(text)


def _sums_of(file: BinaryIO, lengths: Sequence[int]) -> tuple[list[int], int]:
    """The CRC of each row that comes next, and of all of them end to end."""
    sums, crc = [], 0
    for length in lengths:
        row = file.read(length)
        sums.append(google_crc32c.value(row))
        crc = google_crc32c.extend(crc, row)
    return sums, crc


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
