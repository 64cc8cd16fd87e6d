"""The jobs of a multirun, checked before any of them is started."""

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from isic.cli import CONF, Outcome
from isic.errors import ConfigError
from isic.files import write_text

MASTER = ("hydra.launcher", "hydra/launcher", "hydra.mode", "hydra.sweep", "hydra/sweeper")


@dataclass(frozen=True)
class Jobs:
    """One command, and the overrides of each of its jobs.

    name, task: As `isic.cli.command` takes them.
    flags: Which configs the command reads; its jobs read the same.
    full_trace: Whether the user wants stack traces.
    """

    name: str
    task: str
    flags: list[str]
    overrides: list[list[str]]
    full_trace: bool
    runs: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the processes of the jobs get besides the environment of this one."""
        return {"HYDRA_FULL_ERROR": str(int(self.full_trace))}

    def words(self, number: int) -> list[str]:
        """The command line of a job."""
        return [*self.flags, *self.overrides[number]]

    def names(self) -> list[str]:
        """What each job has of its own, else all that it has."""
        shared = set.intersection(*map(set, self.overrides)) if len(self.overrides) > 1 else set()
        return [" ".join(w for w in job if w not in shared) for job in self.overrides]


def jobs_of(
    task: Any,
    config: DictConfig,
    load: Callable[[DictConfig, list[str]], DictConfig],
    job_overrides: Sequence[Sequence[str]],
) -> Jobs:
    """What Hydra's sweeper asks a launcher for.

    Raises:
        ConfigError: A job wants a fold that its split does not have.
    """
    name, function = vars(task)["command"]
    kept = [o for o in config.hydra.overrides.hydra if not o.startswith(MASTER)]
    overrides = [[*job, *kept] for job in job_overrides]
    check_folds([load(config, list(job)) for job in job_overrides])
    runs = Path(config.paths.runs).resolve()
    return Jobs(
        name, function, _flags(name, config.hydra), overrides, vars(task)["full_trace"], runs
    )


def _flags(name: str, hydra: DictConfig) -> list[str]:
    """`--config-name`, `--config-path` and `--config-dir`, where the command has them."""
    flags = [f"--config-name={hydra.job.config_name}"] if hydra.job.config_name != name else []
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            flags.append(f"--config-dir={source.path}")
        elif source.provider == "main" and source.path != str(CONF):
            flags.append(f"--config-path={source.path}")
    return flags


def check_folds(configs: Sequence[Any]) -> None:
    """Refuse folds that cannot be, where the number of folds is known before data is read."""
    for config in configs:
        fold, n_folds = config.get("fold"), (config.get("split") or {}).get("n_folds")
        if isinstance(fold, int) and isinstance(n_folds, int) and not 0 <= fold < n_folds:
            raise ConfigError(
                f"fold={fold}: there are folds 0 to {n_folds - 1} (split.n_folds={n_folds}). "
                "No job was started."
            )


def write_outcome(file: Path, outcome: Outcome) -> None:
    """Leave for the launcher how a job ended; whole or not at all."""
    write_text(file, json.dumps(asdict(outcome)))


def read_outcome(file: Path, *, job: str, log: Path, code: int) -> Outcome:
    """How a job ended, by its file; by its exit code where it was killed before it wrote one."""
    if file.exists():
        return Outcome(**{**json.loads(file.read_text()), "job": job, "log": str(log)})
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Outcome(job, code, f"ended without a result: {name}", str(log))
