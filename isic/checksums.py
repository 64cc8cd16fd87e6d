"""Checksums of caches and results: a flipped bit is an error, never another number.

Three forms, none of which depends on what the file is about:

| form | where the checksum is | used for |
|---|---|---|
| seal | in the file itself, eight hex digits behind `MARK` | JSON, YAML, parquet, npy |
| sum file | `<name>.sha256` beside it, as `sha256sum -c` reads it | CSVs that other programs read |
| rows | a table of CRC-32C, one for each row of a large file | packs, checked when first read |

A seal is the CRC-32C of all bytes of the file, its own digits taken as zeros: the writer leaves
`BLANK` anywhere in the first 4 KiB or the last MiB, and `fill_in` puts the digits there. It goes
where the file goes, alone or with its folder. Zip files (checkpoints) carry a CRC-32 of each member
from birth: `check_zip` compares it, which torch does not.

Cost: 0.1 ms/MB in memory (15 GB/s and more on one core), 0.2 ms/MB for zip files; what has to come
from the disk is read for its own sake a moment later.
Traps: files of earlier versions have no checksum and are taken as they are. A flipped bit in the
mark itself makes the file one of these, which changes no number. CRC-32C finds accidents: who edits
a file and its checksum is not stopped.
"""

import hashlib
import json
import mmap
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import yaml

from isic.errors import DataError

MARK = b"isic-crc32c:"
BLANK = "isic-crc32c:00000000"
KEY = "checksum"  # of a JSON file, its first
SUM_FILE = ".sha256"
_SEAL = re.compile(re.escape(MARK) + rb"([0-9a-f]{8})")
_HEAD, _TAIL = 4096, 1 << 20  # bytes in which a seal is looked for
_BYTES_OF_ZEROS = b"00000000"


class Damaged(DataError, ValueError):
    """A file is not as it was written. Whoever can make it again catches this as ValueError."""

    def __str__(self) -> str:
        """Return the message without the stack trace that torch puts before a worker's."""
        return super().__str__().rpartition("Damaged: ")[2].rstrip()


def sealed(content: bytes) -> bytes:
    """Return `content` with the digits of its `BLANK` filled in."""
    at = _seal_at(content)
    assert at is not None, "the writer leaves BLANK near the beginning or the end"
    return content[:at] + b"%08x" % _crc(content, at) + content[at + 8 :]


def fill_in(file: IO[bytes]) -> None:
    """Seal a file that was just written through `file` and holds `BLANK`."""
    file.flush()
    with open(file.name, "rb") as written, _mapped(written) as content:
        at = _seal_at(content)
        assert at is not None, "the writer leaves BLANK near the beginning or the end"
        digits = b"%08x" % _crc(content, at)
    file.seek(at)
    file.write(digits)
    file.seek(0, 2)


def check(path: Path | str, *, mend: str = "") -> None:
    """Compare a file with its seal; do nothing where it has none.

    mend: What to do about it, for the message.

    Raises:
        Damaged: The seal does not hold.
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        if file.seek(0, 2) == 0:  # nothing to map; readers say that it is empty
            return
        with _mapped(file) as content:
            _compare(content, path, mend)


def checked_bytes(path: Path | str, *, mend: str = "") -> bytes:
    """Read a small file whose seal, where it has one, holds. Raises as `check`."""
    content = Path(path).read_bytes()
    _compare(content, path, mend)
    return content


def sealed_json(content: Mapping[str, Any], **options: Any) -> str:
    """Return a JSON object with its seal under `KEY`, on a line of its own where indented."""
    text = json.dumps({KEY: BLANK, **content}, **options) + "\n"
    return sealed(text.encode()).decode()


def read_json(path: Path | str, *, mend: str = "") -> Any:
    """Read a JSON file whose seal, where it has one, holds; without it.

    Raises:
        Damaged: The seal does not hold.
        ValueError: No JSON.
        OSError: The file cannot be read.
    """
    content = json.loads(checked_bytes(path, mend=mend))
    if isinstance(content, dict):
        content.pop(KEY, None)
    return content


def sealed_yaml(text: str) -> str:
    """Return a YAML text with its seal in a comment on the first line."""
    return sealed(f"# {KEY}: {BLANK}\n{text}".encode()).decode()


def read_yaml(path: Path | str) -> Any:
    """Read a YAML file whose seal, where it has one, holds.

    By libyaml where it is there: a grid typed again reads the configs of all runs.

    Raises:
        Damaged: The seal does not hold, or it is no YAML.
        OSError: The file cannot be read.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(checked_bytes(path), Loader=loader)
    except yaml.YAMLError as error:
        raise Damaged(f"{path} cannot be read: {error}; restore it from a copy") from None


def sum_file(path: Path) -> Path:
    """Return the place of a file's checksum beside it."""
    return path.with_name(path.name + SUM_FILE)


def sum_line(path: Path, content: bytes) -> str:
    """Return the content of `sum_file(path)`, as `sha256sum` would write it."""
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"


def holds(path: Path) -> bool:
    """Return whether a file is as its sum file says, or has none."""
    try:
        line = sum_file(path).read_text(errors="replace")
    except FileNotFoundError:
        return True
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return line.partition(" ")[0].lower() == digest


def check_sum(path: Path) -> None:
    """Raise Damaged where a file is not as its sum file says."""
    if path.exists() and not holds(path):
        raise Damaged(
            f"{path} has changed since it was written: its checksum in {sum_file(path).name} "
            "differs; give the command again that made it, or delete the checksum to use the file "
            "as it is"
        )


def check_zip(path: Path | str) -> str:
    """Return what is wrong with the members of a stored zip file, empty where nothing is.

    Readers differ in whom they believe where two headers contradict each other, so that anything
    but stored members of one size is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type or member.compress_size != member.file_size:
                    return f"the entry of {member.filename!r} in its directory is damaged"
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        return f"no whole zip archive: {error}"
    return f"the checksum of {bad!r} differs" if bad else ""


def crc_of(data: bytes | npt.NDArray[np.uint8], crc: int = 0) -> int:
    """Return the CRC-32C of bytes, or what it becomes of `crc` with them behind."""
    return int(google_crc32c.extend(crc, data))


class RowSums:
    """The CRC-32C of each row of a large file, compared when a row is first read.

    Unit: uint32 (N,). A process remembers what it has compared, one byte a row: 0.4 MB for 401,059
    rows. A row that was compared once costs a look at that byte.
    """

    def __init__(self, sums: npt.NDArray[np.uint32], *, checked: bool = False) -> None:
        self._sums = sums
        self._checked = bytearray(b"\1" * len(sums) if checked else len(sums))

    def same(self, row: int, data: npt.NDArray[np.uint8]) -> bool:
        """Return whether `data` is what was written as `row`."""
        if self._checked[row]:
            return True
        if google_crc32c.value(data) != self._sums[row]:
            return False
        self._checked[row] = 1
        return True


def _mapped(file: IO[bytes]) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _seal_at(content: bytes | mmap.mmap) -> int | None:
    """Offset of the digits; None in a file without a seal."""
    found = _SEAL.search(content[:_HEAD])
    if found:
        return found.start(1)
    start = max(0, len(content) - _TAIL)
    ends = list(_SEAL.finditer(content[start:]))
    return start + ends[-1].start(1) if ends else None


def _crc(content: bytes | mmap.mmap, at: int) -> int:
    with memoryview(content) as view:
        crc = crc_of(np.frombuffer(view[:at], np.uint8))
        crc = crc_of(_BYTES_OF_ZEROS, crc)
        return crc_of(np.frombuffer(view[at + 8 :], np.uint8), crc)


def _compare(content: bytes | mmap.mmap, path: Path | str, mend: str) -> None:
    at = _seal_at(content)
    if at is None or content[at : at + 8] == b"%08x" % _crc(content, at):
        return
    if not mend:
        mend = "restore it from a copy, or delete it and give the command again that made it"
        if Path(path).suffix in (".json", ".yaml"):
            mend += f"; to use what you edited on purpose, delete its line `{KEY}`"
    raise Damaged(f"{path} has changed since it was written: its checksum differs; {mend}")
