"""Several workers of one command on one machine, each with its own GPU and share of the cores."""

import logging
import multiprocessing
import os
import sys
from pathlib import Path

from isic.errors import IsicError
from isic.search.forks import Forks, die_with_parent
from isic.search.loop import Sweep, work
from isic.search.slots import n_taken

log = logging.getLogger(__name__)

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def work_together(this: Sweep, devices_each: int) -> None:
    """Run `n_workers` workers until the study has all trials; one that dies is not missed.

    devices_each: GPUs of a trial.

    Raises:
        IsicError: Every worker failed.
    """
    with this.joined() as (_, study):
        if n_taken(study) < this.search.n_trials:
            forks = Forks(this.search.stage)
            try:
                this.make_ready(study, forks)
            finally:
                forks.close()
    n = this.search.n_workers
    context = multiprocessing.get_context("fork")  # nothing here holds a thread or a connection
    members = [
        context.Process(target=_member, args=(this, place(i, n, devices_each))) for i in range(n)
    ]
    try:
        for member in members:
            member.start()
        for member in members:
            member.join()
    finally:
        for member in members:
            if member.is_alive():
                member.terminate()
        for member in members:
            member.join()
    codes = [m.exitcode for m in members]
    if all(codes):
        raise IsicError(f"all {n} workers failed (exit codes {codes}); see above")
    if any(codes):
        log.warning("%d of %d workers failed; the others did their part", sum(map(bool, codes)), n)


def _member(this: Sweep, environment: tuple[dict[str, str], set[int]]) -> None:
    """One worker process."""
    variables, cores = environment
    die_with_parent()
    os.environ.update(variables)
    os.sched_setaffinity(0, cores)
    try:
        work(this, ready=True)
    except IsicError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def place(number: int, n_workers: int, devices_each: int) -> tuple[dict[str, str], set[int]]:
    """Environment and cores of a worker.

    Cores are bound, not only counted: loaders and decoders ask how many they may use. Where there
    are fewer cores than workers, they are shared in turn, and so are GPUs.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = cores[number::n_workers] or [cores[number % len(cores)]]
    variables = dict.fromkeys(THREADS, str(len(share)))
    if gpus := visible_gpus():
        own = [gpus[(number * devices_each + j) % len(gpus)] for j in range(devices_each)]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(own))
    return variables, set(share)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES lists, else the machine's GPUs by number; CUDA is not started."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [word.strip() for word in given.split(",") if word.strip() not in ("", "-1")]
    found = [p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*")]
    return [str(i) for i in range(len(found))]
