"""Where metrics go: `metrics.csv` always, W&B where it is wanted, offline unless told otherwise.

Trainings never depend on W&B: no prompt, no wait of more than `INIT_TIMEOUT`, and a server that
cannot be reached means an offline run and a line that says so.
"""

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

log = logging.getLogger(__name__)

INIT_TIMEOUT = 20  # seconds


@dataclass(frozen=True)
class LoggerOptions:
    """The keys of conf/logger; `wandb` is None for CSV only."""

    log_every_n_steps: int = 10
    wandb: Mapping[str, Any] | None = None

    def build(self, folder: Path, *, name: str, fold: str, config: Mapping[str, Any]) -> list[Any]:
        """The loggers of one run, first rank only; call it after the run's folder exists."""
        loggers: list[Any] = [MetricsTable(folder / "metrics.csv")]
        if self.wandb is not None and self.wandb["mode"] != "disabled" and _is_first_rank():
            loggers.append(_wandb_logger(folder, name, fold, config, self.wandb))
        return loggers


class MetricsTable(Logger):
    """`metrics.csv`, one value a row (epoch, step, name, value); survives kill and resume."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Lightning wants one."""
        return ""

    @property
    def version(self) -> str:
        """Lightning wants one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config lies beside the table already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row a metric."""
        epoch = metrics.get("epoch", "")
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["epoch", "step", "name", "value"])
            writer.writerows([epoch, step, k, v] for k, v in metrics.items() if k != "epoch")

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Drop the rows that a killed process wrote after the checkpoint that is resumed from."""
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            rows = [r for r in csv.reader(file) if len(r) == 4]
        kept = rows[:1] + [r for r in rows[1:] if r[1].isdigit() and int(r[1]) < step]
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            csv.writer(file).writerows(kept)
        temporary.replace(self.path)


def _is_first_rank() -> bool:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def _wandb_logger(
    folder: Path, name: str, fold: str, config: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """A W&B logger around a run that was made here, so that no step of it can block."""
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    arguments: dict[str, Any] = {
        "project": options["project"],
        "entity": options.get("entity"),
        "group": name,
        "name": f"{name}-fold{fold}",
        "job_type": "train",
        "tags": list(options.get("tags") or []),
        "id": _run_id(folder),
        "resume": "allow",
        "dir": str(folder),
        "config": dict(config),
        "settings": wandb.Settings(
            init_timeout=INIT_TIMEOUT, silent=True, console="off", disable_git=True
        ),
    }
    mode = options["mode"]
    if _has_no_key(mode):
        log.warning("W&B: WANDB_MODE=online, but no API key is set; going on offline")
        mode = "offline"
    try:
        run = wandb.init(mode=mode, **arguments)
    except Exception as error:
        log.warning("W&B: no answer (%s); going on offline", error)
        run = wandb.init(mode="offline", **arguments)
    run.define_metric("*", step_metric="trainer/global_step")
    return WandbLogger(experiment=run)


def _has_no_key(mode: str) -> bool:
    """Whether an online run would have to ask for a key."""
    if mode != "online" or os.environ.get("WANDB_API_KEY"):
        return False
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return not (netrc.exists() and "wandb" in netrc.read_text())


def _run_id(folder: Path) -> str:
    """The same id for every continuation of a run, kept in its folder."""
    import secrets

    path = folder / "wandb-id.txt"
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


def finish(loggers: Sequence[Any], exit_code: int) -> None:
    """End the W&B run; two runs of one process would otherwise be merged into one."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=exit_code)
