"""A study in one file on a shared file system: a lock and an end of file that survive a kill.

Optuna's own journal locks do not fit. The one by a symbolic link asks for the time of its target,
and spins without end where there is none; both break what bears the lock's name by then, so that
two that break at once both hold it, and one that was broken frees the lock of the next. `flock` and
`fcntl` may be local to a machine (Lustre, NFS with `local_lock`). To create a file exclusively is
atomic on NFS from version 3 on, and on every other file system.
"""

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import JournalFileBackend

from isic.checksums import Damaged, crc_of

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds of one and the same lock file, after which its holder counts as dead
RECORD = b'{"op_code"'  # how every line of Optuna's begins
CRC = "crc32c"
_WITHOUT_LINE_END = re.compile(rb'"crc32c":"[0-9a-f]{8}"}.\Z', re.DOTALL)
MEND = "restore the file from a copy, or begin another study: name=, and storage= where it is set"
BLOCK = 65536


class LockFile:
    """A file that is there while one process holds it; its content says which time that is.

    A waiter counts its own sleeps, so that neither the clocks of two machines nor a server that is
    away for minutes make a holder dead.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._mark = path, b""

    def __enter__(self) -> "LockFile":
        """Wait for it."""
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        """Free it."""
        self.release()

    def acquire(self) -> None:
        """Wait until nobody holds it, or its holder is dead."""
        seen, waited, pause = None, 0.0, 0.001
        while not self._created():
            sign = _sign(self.path)
            if sign != seen:
                seen, waited = sign, 0.0
            elif sign and waited > PATIENCE:
                self._break(sign)
            time.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, 0.1)

    def release(self) -> None:
        """Free it, unless it was taken away from a process that was silent for too long."""
        sign = _sign(self.path)
        if sign and sign[0] == self._mark:
            self.path.unlink(missing_ok=True)
        else:
            log.warning("%s was taken over: this process held it for too long", self.path)

    def _created(self) -> bool:
        self._mark = secrets.token_hex(8).encode()
        try:
            file = self.path.open("xb")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(self._mark)
        except BaseException:  # a full disk
            self.path.unlink(missing_ok=True)
            raise
        return True

    def _break(self, sign: tuple[bytes, int]) -> None:
        """Take away a dead process's file; one that took its place meanwhile is put back."""
        aside = self.path.with_name(f"{self.path.name}-{secrets.token_hex(8)}")
        with suppress(FileNotFoundError):
            self.path.rename(aside)
            if _sign(aside) == sign:
                log.warning("%s was left by a dead process", self.path)
            else:
                with suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink()


def _sign(path: Path) -> tuple[bytes, int] | None:
    """Mark and time of a lock file, which no two holders share; None where it is free."""
    try:
        with path.open("rb") as file:
            return file.read(16), os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        with suppress(OSError):  # a link that Optuna's own lock left
            return b"", path.lstat().st_mtime_ns
    return None


class Journal(JournalFileBackend):
    """Optuna's file of one record a line; half a record that a kill or a full disk left is cut.

    Optuna appends to it, and the line that comes of it makes every later one unreadable. Each
    record ends with its checksum, a key that Optuna's own reader passes over.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._place = path.with_name(f"{path.name}.lock")
        with path.open("rb") as file:
            _whole_size(file)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from a number on, up to the last whole line.

        Raises:
            Damaged: One of them is not as it was written.
        """
        number = log_number_from if log_number_from in self._log_number_offset else 0
        with open(self._file_path, "rb") as file:
            size = os.fstat(file.fileno()).st_size  # others may append meanwhile
            file.seek(self._log_number_offset[number])
            for line in file:
                if not line.endswith(b"\n") or file.tell() > size:
                    return
                record = _record(line, f"{self._file_path}, line {number + 1}")
                self._log_number_offset[number + 1] = file.tell()
                if number >= log_number_from:
                    yield record
                number += 1

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Write whole records behind the last whole one."""
        text = "".join(_line(log) for log in logs)
        with LockFile(self._place), open(self._file_path, "a+b") as file:
            file.truncate(_whole_size(file))
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def _line(record: dict[str, Any]) -> str:
    """A record as a line, its checksum the last key."""
    text = json.dumps(record, separators=(",", ":"))
    return f'{text[:-1]},"{CRC}":"{crc_of(text.encode()):08x}"}}\n'


def _record(line: bytes, where: str) -> dict[str, Any]:
    """Return the content of a line, without its checksum if it has one."""
    if not line.startswith(RECORD) and CRC.encode() not in line:
        raise ValueError(f"expected a line that begins with {RECORD.decode()}: {where}")
    try:
        record: dict[str, Any] = json.loads(line)
        crc = record.pop(CRC, None)
    except (ValueError, AttributeError, TypeError) as error:
        raise Damaged(f"{where}: no record of a study: {error}; {MEND}") from None
    text = json.dumps(record, separators=(",", ":")).encode()
    if crc is not None and crc != f"{crc_of(text):08x}":
        raise Damaged(f"{where} has changed since it was written: its checksum differs; {MEND}")
    return record


def _whole_size(file: BinaryIO) -> int:
    """Bytes up to the end of the last whole line; refuses the end of what is no journal."""
    end = size = file.seek(0, os.SEEK_END)
    tail = b""
    while end and b"\n" not in tail:
        begin = max(0, end - BLOCK)
        file.seek(begin)
        tail, end = file.read(end - begin) + tail, begin
    torn = tail[tail.rfind(b"\n") + 1 :]
    if len(torn) == size and not RECORD.startswith(torn[: len(RECORD)]):
        raise ValueError(f"expected a line that begins with {RECORD.decode()}")
    if _WITHOUT_LINE_END.search(torn):  # no kill leaves that
        raise Damaged(f"{file.name} has changed since it was written: the last line; {MEND}")
    return size - len(torn)
