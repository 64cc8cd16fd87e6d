"""Files that are whole or not there, and locks that die with their holder.

Trap: a writer that is killed leaves its temporary file. Each holds a lock on it while it writes, so
that the next process that writes to the folder knows which ones nobody writes any more.
"""

import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from isic.checksums import sum_file, sum_line
from isic.errors import IsicError

log = logging.getLogger(__name__)

PREFIX = ".tmp-"  # of files that are being written
JUST_MADE = 5.0  # seconds after which its writer has locked a temporary file
FORGOTTEN = 86400.0  # seconds without a byte, where the file system has no locks: nobody writes it
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # NFS without lockd, FUSE, Lustre noflock


@contextmanager
def file_lock(path: Path, *, timeout: float = -1) -> Iterator[None]:
    """Hold the lock file `path`, whose folder is there; wait `timeout` seconds, -1 for ever.

    The kernel frees the lock of a killed holder.

    Raises:
        filelock.Timeout: Another process holds it.
        IsicError: The file system has no locks.
    """
    from filelock import FileLock

    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=timeout, poll_interval=0.1)
    except (OSError, NotImplementedError) as error:
        number = getattr(error, "errno", errno.ENOSYS)  # Timeout is an OSError of another number
        if number not in NO_LOCKS:
            raise
        raise IsicError(
            f"{path}: the file system of this folder has no locks (errno {number}, "
            f"{os.strerror(number)}), without which two processes would write the same files. "
            "Set ISIC_RUNS_ROOT and ISIC_CACHE_ROOT to folders on a disk that has them, or let the "
            "administrator mount this one with locks (NFS: lockd, or the option local_lock=flock)"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def waiting_lock(path: Path, doing: str) -> Iterator[bool]:
    """Hold the lock file `path`; wait for its holder and say so once. Gives whether it waited.

    Raises:
        IsicError: The file system has no locks.
    """
    from filelock import Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(path, timeout=0))
            waited = False
        except Timeout:
            log.info("waiting for another process that is %s", doing)
            stack.enter_context(file_lock(path))
            waited = True
        yield waited


def overwrites(asked: bool, *, waited: bool, folder: Path) -> bool:
    """Return whether `overwrite=true` counts: not for what was made while this process waited."""
    if asked and waited:
        log.warning(
            "%s: another process was at it while this one waited; overwrite=true leaves what it "
            "made, the same command again overwrites it",
            folder,
        )
    return asked and not waited


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under `path` whole or not at all.

    Temporary name in the same folder (a rename across file systems is a copy, which can tear),
    fsync, rename. What a killed process leaves begins with `PREFIX` and goes when the next process
    writes to the folder. Process ids are those of one machine or container alone: two that write
    the same file at once differ by the random part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_once(path.parent.resolve(), os.getpid())
    temporary = path.with_name(f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        with temporary.open("wb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_summed(path: Path, text: str) -> None:
    """Write a text file whole, with its `checksums.sum_file`: for what other programs read."""
    # The checksum comes first: a file without one counts as written by an earlier version.
    write_text(sum_file(path), sum_line(path, text.encode()))
    write_text(path, text)


@lru_cache(maxsize=1024)
def _remove_left_once(folder: Path, process: int) -> None:
    """A listing a folder and process: a folder of results is written to many times."""
    remove_left(folder)


def remove_left(folder: Path) -> None:
    """Delete the temporary files of dead writers in a folder, and say which."""
    with suppress(OSError):
        for path in folder.glob(f"{PREFIX}*"):
            if _is_left(path):
                path.unlink(missing_ok=True)
                log.info("removed %s, which an interrupted process left half written", path)


def _is_left(path: Path) -> bool:
    """Return whether nobody writes a temporary file any more."""
    try:
        with path.open("rb") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:
                return age > FORGOTTEN
            return age > JUST_MADE
    except OSError:  # gone, or not ours to read
        return False
