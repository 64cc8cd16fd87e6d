"""Where metrics go: `metrics.csv` always, W&B where it is wanted, see `isic.dashboard`.

Trainings never depend on W&B: what it gets is written to disk, and another process sends it.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from isic.dashboard import close_run, is_on, open_run, tolerated
from isic.files import write_text


@dataclass(frozen=True)
class LoggerOptions:
    """The keys of conf/logger; `wandb` is None for CSV only."""

    log_every_n_steps: int = 10
    wandb: Mapping[str, Any] | None = None

    def build(self, folder: Path, *, name: str, fold: str, config: Mapping[str, Any]) -> list[Any]:
        """The loggers of one run, first rank only; call it after the run's folder exists."""
        loggers: list[Any] = [MetricsTable(folder / "metrics.csv")]
        if self.wandb is not None and is_on(self.wandb) and _is_first_rank():
            with tolerated():
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
        text = io.StringIO(newline="")
        csv.writer(text).writerows(kept)
        write_text(self.path, text.getvalue())


def _is_first_rank() -> bool:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def _wandb_logger(
    folder: Path, name: str, fold: str, config: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """A W&B logger around a run that was made here, so that no step of it can block."""
    from pytorch_lightning.loggers import WandbLogger

    class Tolerated(WandbLogger):
        """One whose service may die: SLURM signals it, the kernel picks it for its memory."""

        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            with tolerated():
                super().log_metrics(metrics, step)

    run = open_run(folder, options, group=name, name=f"{name}-fold{fold}", config=config)
    run.define_metric("*", step_metric="trainer/global_step")
    return Tolerated(experiment=run)


def finish(loggers: Sequence[Any], exit_code: int) -> None:
    """End the W&B run; two runs of one process would otherwise be merged into one."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            close_run(logger.experiment, exit_code)
