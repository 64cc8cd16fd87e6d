"""Processes that train side by side: GPUs of their own, a part of the cores, and no orphans.

For `hydra/launcher=local` and `sweep.py n_workers=`: start a worker with
`env={**os.environ, **share.environment}` and `preexec_fn=share.bind`.
The trap: without shares every process starts as many threads as the machine has cores.
"""

import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from isic.errors import ConfigError

T = TypeVar("T")
TIMEOUT = "ISIC_WORKER_TIMEOUT"  # environment variable, in seconds
PR_SET_PDEATHSIG = 1  # prctl(2): signal to get when the parent dies
RANKED = (
    re.compile(  # variables by which srun and torchrun tell a process that it is one of several
        "SLURM_(PROCID|LOCALID|NODEID|STEP_NUM_TASKS|NTASKS.*)|TORCHELASTIC_.*"
        "|(LOCAL_|GROUP_|NODE_|ROLE_)?RANK|((LOCAL|GROUP|ROLE)_)?WORLD_SIZE|MASTER_(ADDR|PORT)"
    )
)


def worker_timeout() -> float:
    """Seconds that a process waits for an answer of one that works for it, then gives up.

    Generous, as a batch takes less than a second: what is slower hangs, on a dead mount say.

    Raises:
        ConfigError: ISIC_WORKER_TIMEOUT is no positive number.
    """
    text = os.environ.get(TIMEOUT, "900")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{TIMEOUT}: expected seconds, more than 0, got {text!r}")
    return seconds


def answers(stream: IO[Any], seconds: float) -> bool:
    """Wait for data or the end of a pipe; return False where neither comes in `seconds`."""
    waiting = select.poll()
    waiting.register(stream, select.POLLIN)
    return bool(waiting.poll(1000 * seconds))


@dataclass(frozen=True)
class Share:
    """Worker k of n: the numbers of its cores, the names of its GPUs (none: the machine has none).

    With more workers than cores or GPUs, several workers have the same one.
    """

    cores: tuple[int, ...]
    gpus: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the worker's process; threads that the user chose are left alone."""
        threads = os.environ.get("OMP_NUM_THREADS", str(len(self.cores)))
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return {"OMP_NUM_THREADS": threads, **gpus}

    def bind(self) -> None:
        """Keep the process that calls this to the share's cores, and end it with its parent."""
        os.sched_setaffinity(0, self.cores)
        die_with_parent()


def die_with_parent() -> None:
    """This process gets SIGTERM when the one that started it dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def alone() -> dict[str, str]:
    """The environment for a process that is no rank, though the one that starts it may be one."""
    return {key: value for key, value in os.environ.items() if not RANKED.fullmatch(key)}


def slurm_start() -> tuple[str, int] | None:
    """The SLURM job of this process and how often it was started again; None without SLURM.

    A requeued job keeps its number. In an array the number of the task tells its jobs apart.
    """
    get = os.environ.get
    job, task = get("SLURM_ARRAY_JOB_ID", get("SLURM_JOB_ID")), get("SLURM_ARRAY_TASK_ID", "")
    return (f"{job}_{task}", int(get("SLURM_RESTART_COUNT", "0"))) if job else None


def share(worker: int, n_workers: int) -> Share:
    """Share of `worker` (0..n_workers-1) in what this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    return Share(
        cores=tuple(part(cores, worker, n_workers)),
        gpus=tuple(part(visible_gpus(), worker, n_workers)),
    )


def part(things: list[T], worker: int, n_workers: int) -> list[T]:
    """A worker's part of a list: disjoint where there is enough, one of them where there is not.

    >>> [part([0, 1, 2, 3], k, 2) for k in range(2)], [part([7], k, 2) for k in range(2)]
    ([[0, 1], [2, 3]], [[7], [7]])
    """
    if len(things) < n_workers:
        return things[worker % len(things) :][:1] if things else []
    return things[worker * len(things) // n_workers : (worker + 1) * len(things) // n_workers]


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs that this process may use; asks no torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        words = map(str.strip, os.environ["CUDA_VISIBLE_DEVICES"].split(","))
        return [gpu for gpu in words if gpu not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    )
    return asked.stdout.split() if asked.returncode == 0 else []
