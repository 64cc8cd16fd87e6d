"""A dataset and its sampler as a loader: how many processes, whose random numbers, which memory.

Trap: a loader without a generator of its own draws one number from torch's global one for each new
iterator, after the epoch was seeded unless it is the first of a resumed run: dropout would differ
from there on.
"""

import errno
import logging
import multiprocessing
import os
import re
import signal
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch.utils.data import DataLoader

from isic.data.carrier import Carrier
from isic.data.dataset import LesionDataset
from isic.errors import ConfigError, IsicError
from isic.streams import warn_once
from isic.workers import TIMEOUT, worker_timeout

log = logging.getLogger(__name__)

STOPPED = 10.0  # seconds in which torch may take down processes that were killed
_ON_DISK = "What was finished is on disk: the same command goes on from there."


class BatchLoader(DataLoader[Any]):
    """A loader whose processes cannot keep their consumer waiting for ever.

    Raises:
        IsicError: While iterating: a process was killed, or gave no batch for `timeout` seconds;
            or what it raised itself, in its words.
    """

    def __iter__(self) -> Any:
        """Batches; the processes start with the first iteration and stay for the next ones."""
        if not self.num_workers:
            return super().__iter__()
        return self._watched()

    def _watched(self) -> Iterator[Any]:
        if self._iterator is None and isinstance(self.collate_fn, Carrier):
            self.collate_fn = self.collate_fn.anew()
        _RUNNING.add(self)
        try:
            yield from super().__iter__()
        except IsicError as error:
            raise type(error)(_own_words(error)) from None
        except (RuntimeError, OSError) as error:
            workers = getattr(self._iterator, "_workers", ())
            ended = {p.pid: p.exitcode for p in workers if p.exitcode}
            if not (reason := worker_failure(error, ended)):
                raise
            self.end()
            raise IsicError(reason) from None

    def end(self) -> None:
        """Kill the processes: one that is stopped or waits for a disk does not hear SIGTERM.

        Torch's handler of SIGCHLD would tell of the first dead one again at the end of each other.
        """
        iterator, self._iterator = self._iterator, None
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
        try:
            for process in getattr(iterator, "_workers", ()):
                with suppress(OSError):
                    os.kill(process.pid, signal.SIGKILL)
            # in a thread: it waits without end for one that reads half a message of a killed worker
            stop = getattr(iterator, "_shutdown_workers", lambda: None)
            thread = threading.Thread(target=stop, daemon=True)
            thread.start()
            thread.join(STOPPED)
        finally:
            if in_main:
                signal.signal(signal.SIGCHLD, before)


_RUNNING: "weakref.WeakSet[BatchLoader]" = weakref.WeakSet()


def end_processes() -> None:
    """Kill the processes of every loader, after one of them has failed."""
    for running in list(_RUNNING):
        running.end()


def _own_words(error: IsicError) -> str:
    """Return the message of a loader process, without the trace that torch puts around it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    return text.rpartition(f"{type(error).__name__}: ")[2].strip()


def worker_failure(error: BaseException, ended: Mapping[int, int] | None = None) -> str:
    """Return what an error of torch means for loader processes; empty for any other error.

    ended: Exit code by process id of those that have ended, negative for a signal.
    """
    text, ended = str(error), dict(ended or {})
    if told := re.search(r"worker \(pid\(?s?\)? (\d+)[^)]*\) (is killed by signal|exit)", text):
        pid = int(told[1])
        code = ended.get(pid, -signal.SIGKILL if told[2].startswith("is") else 1)
        how, why = _of_exit_code(code, re.search(r"by signal: ([\w ]+)", text))
        return f"loader process {pid} {how}: {why}. {_ON_DISK}"
    if "DataLoader timed out" in text:
        return (
            f"no batch came from the loader processes for {worker_timeout():g} s: the disk of the "
            f"pack hangs, or images take longer ({TIMEOUT}=SECONDS waits longer). {_ON_DISK}"
        )
    if "Pin memory thread" in text:
        return f"the thread that takes batches from the loader processes ended. {_ON_DISK}"
    if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE):
        what = os.strerror(error.errno)
        return f"a loader process cannot be started: {what}; lower data.num_workers (ulimit -n, -u)"
    return ""


def _of_exit_code(code: int, named: re.Match[str] | None) -> tuple[str, str]:
    """Return how a process ended, and the likely cause."""
    if code >= 0:
        return f"ended with code {code}", "what it printed, if anything, is above"
    name = named[1].strip() if named else signal.strsignal(-code)
    if -code == signal.SIGBUS or name == "Bus error":
        return f"was killed ({name})", "the pack was cut short, or its disk does not answer"
    cause = "memory ran out, most likely; lower data.num_workers or data.batch_size"
    return f"was killed ({name})", cause


def batch_loader(
    dataset: LesionDataset,
    sampler: Any,
    *,
    workers: int,
    seed: int,
    pinned: bool,
    batch_size: int = 64,
) -> Any:
    """Batches of `dataset` in the order of `sampler`, whose items are whole batches.

    batch_size: Images of the largest batch.
    """
    forked: dict[str, Any] = {}
    if workers and _can_start():
        forked = {
            "num_workers": workers,
            "persistent_workers": True,
            "multiprocessing_context": "fork",  # processes that share the carrier's memory
            "collate_fn": Carrier(workers, batch_size * dataset.sample_bytes),
            "timeout": worker_timeout(),
        }
    return BatchLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        generator=torch.Generator().manual_seed(seed),
        pin_memory=pinned,
        **forked,
    )


def _can_start() -> bool:
    """Return whether loader processes can be started: their locks are files of /dev/shm.

    Said where not; this process then decodes by itself.
    """
    try:
        multiprocessing.get_context("fork").Queue()
    except (OSError, ImportError) as error:
        warn_once(
            log,
            "data.num_workers: no loader processes, this one decodes by itself: a lock in /dev/shm "
            f"cannot be made ({error}). Make it writable, or larger: docker run --shm-size=1g",
        )
        return False
    return True


def worker_count(asked: int | str, *, ranks: int, on_gpu: bool) -> int:
    """Loader processes of this one: as asked; `auto` is its share of the cores but one, up to 8.

    On a CPU of up to four cores it is 0, as decoding takes them from the training; beside a GPU
    at least 1, which would else wait while its own process decodes.

    ranks: That share this process's cores, see `ranks_beside`.
    """
    if asked != "auto":
        return int(asked)
    cores = len(os.sched_getaffinity(0))
    if not on_gpu and cores <= 4:
        return 0
    return max(int(on_gpu), min(8, cores // ranks - 1))


def ranks_beside(trainer: pl.Trainer | None) -> int:
    """Ranks whose affinity is this process's too: torchrun's; srun gives each cores of its own."""
    if trainer is None:
        return 1
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return 1 if isinstance(environment, SLURMEnvironment) else trainer.num_devices


def check_workers(asked: int | str) -> None:
    """Raise ConfigError where `data.num_workers` is neither a number nor `auto`."""
    if asked != "auto" and not str(asked).isdecimal():
        raise ConfigError(f"data.num_workers: expected a number or auto, got {asked!r}")


def check_share(fraction: float) -> None:
    """Raise ConfigError where `data.fraction` is no share."""
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise ConfigError(f"data.fraction: expected a share in (0, 1], got {fraction}")


def check_counts(**counts: int | None) -> None:
    """Raise ConfigError where a key of `data` is neither None nor a number from 1 on."""
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"data.{key}: expected a whole number from 1 on, got {value!r}")
