"""Where a study is kept, and the lock under which workers take its trials.

| storage | for | lock | signs of life |
|---|---|---|---|
| `sqlite:///FILE` | one machine, the default | a lock file beside it | Optuna's heartbeat |
| `journal:FILE` | a shared file system | a file beside it (`journal`) | files beside the journal |
| `postgresql://...` | any number of machines | an advisory lock of the database | the heartbeat |

SQLite locks are unreliable on network file systems: use a journal there.
"""

import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import optuna
from optuna.storages import JournalStorage, RDBStorage

from isic.checksums import Damaged
from isic.errors import ConfigError, IsicError
from isic.files import file_lock
from isic.search.journal import Journal, LockFile
from isic.search.options import SearchOptions

log = logging.getLogger(__name__)

PATIENCE = 20  # seconds that a worker waits for another's write to SQLite
REACH = 5  # seconds to a server's first answer
AGAIN = 1.0  # seconds between two calls to a storage that is away
AWAY = (optuna.exceptions.StorageInternalError, OSError)  # a database's errors; a file's

T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """An open storage.

    shown: Its address without a password.
    lock: Enters what one worker at a time may do.
    stamps: Folder of the workers' signs of life; None where the database keeps them.
    """

    storage: optuna.storages.BaseStorage
    shown: str
    lock: Callable[[], AbstractContextManager[Any]]
    stamps: Path | None = None

    def close(self) -> None:
        """Leave no connection to a process that is forked from this one."""
        if isinstance(self.storage, RDBStorage):
            self.storage.remove_session()
            self.storage.engine.dispose()


def patiently(call: Callable[[], T], grace: float) -> T:
    """What a storage answers; one that restarts, or is full, is asked for `grace` seconds.

    Raises:
        IsicError: No answer for so long; other workers count this one as dead by then.
    """
    since = None
    while True:
        try:
            return call()
        except AWAY as error:
            if since is None:
                since = time.monotonic()
                log.info("the storage does not answer; asking again for %g s", grace)
            elif time.monotonic() - since > grace:
                raise IsicError(
                    f"the storage does not answer for {grace:g} s ({error.__cause__ or error}); "
                    "the same command goes on"
                ) from error
        time.sleep(AGAIN)


def open_store(search: SearchOptions, *, lost: Callable[..., None]) -> Store:
    """Open the storage of a study, or say why it cannot be had.

    lost: Called with study and trial for each trial that the heartbeat gave up.

    Raises:
        ConfigError: An address of another kind, no answer, no permission, a lock that stays.
    """
    url = search.storage or f"sqlite:///{search.folder / 'study.db'}"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # the last two: importance of few trials, which is said with a path and no advice
    texts = ["heartbeat", "Heartbeat", "JournalStorage", "is experimental"]
    texts += ["Some regimes", "number of trials is too small"]
    for text in texts:
        warnings.filterwarnings("ignore", f".*{text}.*")
    if url.startswith("journal:"):
        return _journal(Path(url.removeprefix("journal:")).absolute())
    if url.startswith("sqlite:///"):
        return _sqlite(url, search, lost)
    if url.startswith(("postgresql://", "postgresql+psycopg://")):
        return _postgresql(url, search, lost)
    raise ConfigError(
        f"storage: expected sqlite:///FILE, journal:FILE or postgresql://USER@HOST/DATABASE, "
        f"got {url.rpartition('@')[2]}"
    )


def _journal(path: Path) -> Store:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(Journal(path))
        stamps = path.with_name(f"{path.name}.workers")
        claiming = path.with_name(f"{path.name}.claim.lock")
        stamps.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"storage: {path}: {error.strerror}") from None
    except Damaged:
        raise
    except (ValueError, KeyError) as error:
        raise ConfigError(f"storage: {path} is no journal of Optuna: {error}") from None
    return Store(storage, f"journal:{path}", lambda: LockFile(claiming), stamps)


def _sqlite(url: str, search: SearchOptions, lost: Callable[..., None]) -> Store:
    import sqlite3

    path = Path(url.removeprefix("sqlite:///")).absolute()
    if not search.storage:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(path, timeout=REACH)
        connection.execute("BEGIN IMMEDIATE")  # fails where another program holds the file
        connection.rollback()
        connection.close()
    except sqlite3.Error as error:
        locked = "locked" in str(error)
        hint = "end the program that holds it" if locked else "its folder must exist, be writable"
        raise ConfigError(f"storage: {path}: {error}; {hint}, or give another storage=") from None
    waits = {"connect_args": {"timeout": PATIENCE}}
    lock = path.with_name(f"{path.name}.lock")
    with file_lock(lock):  # two processes would race to make the tables
        storage = _tables(_sqlite_url(path), f"sqlite:///{path}", waits, search, lost)
    return Store(storage, f"sqlite:///{path}", lambda: file_lock(lock))


def _sqlite_url(path: Path) -> str:
    """The address that SQLAlchemy and Optuna take for this file, whatever its path holds.

    What stands behind a `?` would be options. SQLAlchemy decodes `%3F` from 2.1 on; before, SQLite
    itself does, of a URI. Optuna takes braces for fields to fill in.
    """
    from sqlalchemy.engine import make_url

    plain, encoded = f"sqlite:///{path}", f"sqlite:///{quote(str(path))}"
    found = [url for url in (plain, encoded) if make_url(url).database == str(path)]
    url = found[0] if found else f"sqlite:///file:{quote(str(path))}?uri=true"
    return url.replace("{", "{{").replace("}", "}}")


def _postgresql(url: str, search: SearchOptions, lost: Callable[..., None]) -> Store:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        import psycopg
    except ImportError:
        raise ConfigError("storage: PostgreSQL needs `pip install 'isic[cluster]'`") from None
    place = url.rpartition("@")[2]  # a password stands before it
    try:
        address = make_url(url).set(drivername="postgresql+psycopg")
    except (ValueError, ArgumentError) as error:
        raise ConfigError(
            "storage: expected postgresql://USER@HOST:PORT/DATABASE, got "
            f"{place} ({str(error).replace(url, place)})"
        ) from None
    if "@" in (address.host or ""):
        raise ConfigError(f"storage: write an @ in a user or a password as %40; got ...@{place}")
    shown = address.render_as_string(hide_password=True).replace("+psycopg", "")
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    key = int.from_bytes(hashlib.sha256(search.name.encode()).digest()[:7], "big")

    @contextmanager
    def lock(key: int = key) -> Iterator[None]:
        # of a connection: the database frees it when the holder dies
        with psycopg.connect(plain, connect_timeout=REACH, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", (key,))
            yield

    try:
        with lock(0):  # two processes would race to make the tables
            waits = {"connect_args": {"connect_timeout": REACH}}
            storage = _tables(
                address.render_as_string(hide_password=False), shown, waits, search, lost
            )
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"storage: {shown} cannot be reached: {reason}") from None
    return Store(storage, shown, lock)


def _tables(
    url: str, shown: str, engine: dict[str, Any], search: SearchOptions, lost: Callable[..., None]
) -> RDBStorage:
    """Optuna's tables in a database, with its heartbeat."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(
            url,
            engine_kwargs=engine,
            heartbeat_interval=max(1, round(search.heartbeat)),
            grace_period=max(2, round(search.grace)),
            heartbeat_stale_trial_callback=lost,
        )
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConfigError(f"storage: {shown} holds no study of Optuna: {reason}") from None
