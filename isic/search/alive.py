"""Who runs a trial, and whether that process still lives.

A trial bears its worker's stamp, `host/pid/start`. On the same host a dead process is seen at once;
elsewhere by signs of life: Optuna's heartbeat in a database, a file that is touched on a shared
file system. Process ids come round again, hence the start time; two containers may share a
host name, hence the boot and the pid namespace in it.
"""

import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from isic.search.storage import Store


@dataclass(frozen=True)
class Stamp:
    """A process: its machine as seen from inside, its id, and when it started, in clock ticks."""

    host: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.start}"

    @classmethod
    def read(cls, text: str) -> "Stamp":
        """Read what `str` wrote."""
        host, pid, start = text.rsplit("/", 2)
        return cls(host, int(pid), int(start))

    @classmethod
    def of_this_process(cls) -> "Stamp":
        """That of the caller."""
        return cls(this_host(), os.getpid(), start_of(os.getpid()) or 0)


def this_host() -> str:
    """Host name, boot and pid namespace: where a process id means the same process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return f"{socket.gethostname()}-{boot}-{namespace}"


def start_of(pid: int) -> int | None:
    """Clock ticks since boot at which a process began; None where there is none, or a zombie."""
    try:
        # the name of a process stands in parentheses and may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_dead(worker: Stamp, store: Store, grace: float) -> bool:
    """Whether a worker is known to be dead; on another host a database tells by itself."""
    if worker.host == this_host():
        return start_of(worker.pid) != worker.start
    if store.stamps is None:
        return False
    try:
        last = _file(store.stamps, worker).stat().st_mtime
    except FileNotFoundError:
        return True
    return _now(store.stamps) - last > grace


def _file(stamps: Path, worker: Stamp) -> Path:
    return stamps / str(worker).replace("/", "-")


def _now(stamps: Path) -> float:
    """The file system's time: the clocks of two machines differ."""
    probe = stamps / f".now-{this_host()}-{os.getpid()}"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now


class SignsOfLife(threading.Thread):
    """Says every few seconds that this worker lives, and that it is at its trial."""

    def __init__(self, store: Store, interval: float) -> None:
        super().__init__(daemon=True)
        self.store, self.interval, self.stamp = store, interval, Stamp.of_this_process()
        self._ended = threading.Event()
        self._trial_id: int | None = None

    def at(self, trial: optuna.Trial) -> None:
        """Speak for this trial from now on, at once for the first time."""
        self._trial_id = trial._trial_id
        self._speak()

    def between_trials(self) -> None:
        """Speak for no trial."""
        self._trial_id = None

    def run(self) -> None:
        """Speak until the end."""
        while not self._ended.wait(self.interval):
            with suppress(Exception):  # a database that restarts, say: the next one gets through
                self._speak()

    def end(self) -> None:
        """Speak no more, and leave no file behind."""
        self._ended.set()
        self.join(timeout=5)
        if self.store.stamps:
            _file(self.store.stamps, self.stamp).unlink(missing_ok=True)

    def _speak(self) -> None:
        if self.store.stamps:
            _file(self.store.stamps, self.stamp).touch()
        elif self._trial_id is not None and isinstance(self.store.storage, RDBStorage):
            self.store.storage.record_heartbeat(self._trial_id)
