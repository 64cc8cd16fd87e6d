"""Jobs beside each other on this machine, each a process with its own GPU and share of the cores.

A job that is killed, or runs out of memory, ends alone. Its output goes to a file of its own.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isic.cli import Outcome
from isic.errors import ConfigError
from isic.launchers.jobs import Jobs, read_outcome
from isic.workers import share

log = logging.getLogger(__name__)

MERCY = 60.0  # seconds between SIGTERM and SIGKILL: ranks and W&B are ended first


@dataclass
class Started:
    """A job's process."""

    number: int
    process: subprocess.Popen[bytes]


def launch(jobs: Jobs, options: Mapping[str, Any]) -> list[Outcome]:
    """Run every job, `n_jobs` at a time, and wait for all; those that fail are among the outcomes.

    options: `n_jobs`, and the `folder` of the logs.
    """
    n_jobs = options["n_jobs"]
    if not isinstance(n_jobs, int) or n_jobs < 1:
        raise ConfigError(f"hydra.launcher.n_jobs: expected a number of processes, got {n_jobs!r}")
    launched = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"  # a script may start several
    folder = Path(options["folder"]).resolve() / launched
    folder.mkdir(parents=True, exist_ok=True)
    names, outcomes = jobs.names(), dict[int, Outcome]()
    waiting = list(range(len(names)))
    running: dict[int, Started] = {}
    try:
        while waiting or running:
            for worker in sorted(set(range(n_jobs)) - set(running))[: len(waiting)]:
                number = waiting.pop(0)
                running[worker] = _start(jobs, number, worker, n_jobs, folder)
                log.info("%s: started, log %s", names[number], folder / f"{number}.log")
            for worker in [w for w, job in running.items() if job.process.poll() is not None]:
                job = running.pop(worker)
                outcomes[job.number] = outcome = _outcome(jobs, job, folder)
                log.info("%s: %s", names[job.number], outcome.state)
            time.sleep(0.05)
    finally:
        _end(running.values())
    return [outcomes[number] for number in sorted(outcomes)]


def _start(jobs: Jobs, number: int, worker: int, n_jobs: int, folder: Path) -> Started:
    mine = share(worker, min(n_jobs, len(jobs.overrides)))
    words = [jobs.name, jobs.task, str(folder / f"{number}.json"), *jobs.words(number)]
    with (folder / f"{number}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "isic.launchers", *words],
            env={**os.environ, **jobs.environment, **mine.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=mine.bind,
        )
    return Started(number, process)


def _outcome(jobs: Jobs, job: Started, folder: Path) -> Outcome:
    return read_outcome(
        folder / f"{job.number}.json",
        job=" ".join(jobs.overrides[job.number]),
        log=folder / f"{job.number}.log",
        code=job.process.returncode,
    )


def _end(left: Iterable[Started]) -> None:
    """On Ctrl-C or SIGTERM: the jobs keep their finished epochs."""
    left = list(left)
    for job in left:
        job.process.terminate()
    for job in left:
        try:
            job.process.wait(MERCY)
        except subprocess.TimeoutExpired:  # it waits for a disk, say
            job.process.kill()
