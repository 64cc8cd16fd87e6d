"""Jobs on a SLURM cluster through submitit: one array, requeued where it is preempted or timed out.

Before its time limit a job gets submitit's signal and puts itself back into the queue; SLURM does
the same with one that is preempted or whose node dies. Either way the same command starts again
and goes on after its last epoch on disk. SIGTERM alone ends nothing: SLURM sends it first.
The trap: `sacct` is not everywhere, and submitit waits for ever for a job that left no result. Here
a job is over when it wrote its outcome, or is no longer in `squeue`.
"""

import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from isic.cli import Outcome, outcome_of
from isic.errors import ConfigError
from isic.launchers.jobs import Jobs, read_outcome, write_outcome

log = logging.getLogger(__name__)

POLL = 2.0  # seconds between looks at the files of outcomes
ASK = 15.0  # seconds between questions to the controller
GRACE = 60.0  # seconds that a shared file system may take to show an outcome
PREEMPTION = 600.0  # seconds that SLURM may leave between SIGTERM and SIGKILL
SRUN = (
    "export SLURM_KILL_BAD_EXIT=1",  # a rank that fails ends those that wait for it
    "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",  # srun does not take it over since 22.05
)


@dataclass
class ArrayJob:
    """What a node runs: picklable, and what submitit asks for another start."""

    name: str
    task: str
    overrides: Sequence[str]

    def __call__(self) -> None:
        """Run the job in the process that srun started; the first rank leaves how it ended."""
        import submitit

        environment = submitit.JobEnvironment()
        asked = _note_signals()
        outcome = outcome_of(self.name, self.task, self.overrides)
        if outcome.exit_code and asked:
            _await_the_end(environment.global_rank, asked)
        if environment.global_rank == 0:
            write_outcome(outcome_file(environment.paths.folder, environment.job_id), outcome)
        if outcome.exit_code:  # sacct, and the other ranks, are to know
            sys.exit(outcome.exit_code)

    def checkpoint(self) -> Any:
        """The same again: what was learnt lies in the run's folder."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _note_signals() -> list[int]:
    """SIGTERM and SIGUSR2 as they come, before submitit's handlers see them.

    SLURM may send SIGUSR2 twice, and ends loaders with it, of which torch's handler tells by an
    error: neither is to come into the middle of a requeue.
    """
    asked: list[int] = []

    def noted(before: Any, number: int, frame: Any) -> None:
        asked.append(number)
        again = signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            before(number, frame)
        finally:
            signal.signal(number, again)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, partial(noted, signal.getsignal(number)))
    return asked


def _await_the_end(rank: int, asked: Sequence[int]) -> None:
    """A job that SLURM is about to end did not fail: the signal met its loaders and W&B, too.

    One that leaves by itself before SLURM ends it might not be requeued.
    """
    log.info("SLURM ends this job; it goes on where SLURM starts it again")
    if rank == 0 and signal.SIGUSR2 in asked:
        signal.raise_signal(signal.SIGUSR2)  # requeues, where scontrol failed the first time
    time.sleep(PREEMPTION)
    sys.exit(128 + signal.SIGTERM)


def outcome_file(folder: Path, job_id: str) -> Path:
    """Where a job leaves how it ended."""
    return folder / f"{job_id}_outcome.json"


def launch(jobs: Jobs, options: Mapping[str, Any]) -> list[Outcome]:
    """Submit every job as one array and wait for all; failed ones are among the outcomes.

    options: The keys of conf/hydra/launcher/slurm.yaml.

    Raises:
        ConfigError: No SLURM here, no submitit, or a value that sbatch refuses.
    """
    check_ranks(jobs.name, parameters(options))
    executor = _executor(options)
    from submitit.core.utils import FailedJobError

    numbers = range(len(jobs.overrides))
    array = [ArrayJob(jobs.name, jobs.task, jobs.words(number)) for number in numbers]
    with _variables(jobs.environment):  # sbatch hands this process's environment on
        try:
            submitted = executor.submit_array(array)
        except FailedJobError as error:
            raise ConfigError(f"hydra/launcher=slurm: sbatch refused: {error}") from None
    main = submitted[0].job_id.partition("_")[0]
    log.info("submitted %d jobs as %s, logs in %s", len(array), main, submitted[0].paths.folder)
    try:
        return _wait(jobs, [(job.job_id, job.paths) for job in submitted])
    except BaseException:
        log.info("the jobs go on; scancel %s ends them", main)
        raise


def check_ranks(name: str, submitted: Mapping[str, Any]) -> None:
    """Refuse several tasks a job where they are no ranks: each would do the same work at once."""
    tasks = submitted["nodes"] * submitted["ntasks_per_node"]
    if name != "train" and tasks > 1:
        gpus = submitted.get("gpus_per_node")
        more = f" hydra.launcher.gpus_per_node={gpus}" if gpus else ""
        raise ConfigError(
            f"hydra/launcher=slurm: {tasks} tasks a job (trainer.devices, trainer.num_nodes), and "
            f"{name} expects one: only train.py runs as ranks. Give hydra.launcher.nodes=1 "
            f"hydra.launcher.tasks_per_node=1{more}. No job was started."
        )


def _executor(options: Mapping[str, Any]) -> Any:
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ConfigError(
            "hydra/launcher=slurm: no sbatch and srun on this machine. Type the command on a login "
            "node of the cluster, or use hydra/launcher=local."
        )
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise ConfigError("hydra/launcher=slurm needs: pip install -e '.[cluster]'") from None
    executor = SlurmExecutor(
        Path(options["folder"]).resolve(), max_num_timeout=options["max_requeues"]
    )
    executor.update_parameters(**parameters(options))
    return executor


def parameters(options: Mapping[str, Any]) -> dict[str, Any]:
    """The launcher's keys as submitit's parameters; a task is a rank, a GPU belongs to a task.

    Raises:
        ConfigError: `trainer.devices=auto`: a login node does not know what the others have.
    """
    tasks, gpus = options["tasks_per_node"], options["gpus_per_node"]
    if tasks == "auto" and not isinstance(gpus, int):
        raise ConfigError(
            "hydra/launcher=slurm: say how many devices a node has: trainer.devices=4"
        )
    tasks = gpus if tasks == "auto" else int(tasks)
    if gpus == "auto":
        gpus = None if options["accelerator"] == "cpu" else tasks
    memory = {"mem": f"{options['mem_gb']}GB"} if options["mem_gb"] else {}
    return memory | {
        "job_name": "isic",
        "time": options["timeout_min"],
        "nodes": options["nodes"],
        "ntasks_per_node": tasks,
        "cpus_per_task": options["cpus_per_task"],
        **({"gpus_per_node": gpus} if gpus else {}),
        "array_parallelism": options["array_parallelism"],
        "signal_delay_s": options["signal_delay_s"],
        "stderr_to_stdout": True,
        "setup": [*SRUN, *options["setup"]],
        "additional_parameters": {"requeue": True, **options["sbatch"]},
    }


def _wait(jobs: Jobs, submitted: Sequence[tuple[str, Any]]) -> list[Outcome]:
    """Until every job wrote its outcome, or left the queue without one."""
    names, pending = jobs.names(), dict(enumerate(submitted))
    outcomes: dict[int, Outcome] = {}
    watch = Queue([job_id for job_id, _ in submitted])
    while pending:
        for number, (job_id, paths) in list(pending.items()):
            file = outcome_file(paths.folder, job_id)
            if not file.exists() and not watch.lost(job_id):
                continue
            job = " ".join(jobs.overrides[number])
            outcomes[number] = read_outcome(file, job=job, log=paths.stdout, code=1)
            log.info("%s: %s", names[number], outcomes[number].state)
            del pending[number]
        if pending:
            watch.look(names)
            time.sleep(POLL)
    return [outcomes[number] for number in sorted(outcomes)]


class Queue:
    """What `squeue` says of the array's jobs: seldom asked, and believed after a while only."""

    def __init__(self, job_ids: Sequence[str]) -> None:
        self.job_ids = list(job_ids)
        self.main = job_ids[0].partition("_")[0]
        self.states: dict[str, str] = {}
        self.missed: dict[str, float] = {}
        self._asked = -math.inf

    def look(self, names: Sequence[str]) -> None:
        """Ask again where it is time, and say what changed."""
        now = time.monotonic()
        if now - self._asked < ASK:
            return
        self._asked, states = now, queued(self.main)
        if states is None:
            return
        for job_id, name in zip(self.job_ids, names, strict=True):
            state = states.get(job_id, "")
            if state and state != self.states.get(job_id):
                log.info("%s: %s (%s)", name, state.lower(), job_id)
            if state:
                self.missed.pop(job_id, None)
            else:
                self.missed.setdefault(job_id, now)
        self.states = states

    def lost(self, job_id: str) -> bool:
        """Whether a job has been out of the queue for so long that no outcome is on its way."""
        return time.monotonic() - self.missed.get(job_id, math.inf) > GRACE


def queued(main: str) -> dict[str, str] | None:
    """State of each job of an array that is in the queue; None where the controller is silent."""
    asked = subprocess.run(
        ["squeue", "--noheader", "--array", f"--jobs={main}", "--format=%i|%T"],
        capture_output=True,
        text=True,
    )
    if asked.returncode:
        return {} if "Invalid job id" in asked.stderr else None
    return dict(line.split("|") for line in asked.stdout.split())


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
