"""One trial: its folds one after another, each a process tree, each epoch told to the pruner."""

import csv
import io
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from isic.checksums import read_json
from isic.errors import IsicError
from isic.search.forks import GLANCE, Jobs, reason, wait_for
from isic.search.options import SearchOptions
from isic.search.slots import run_of
from isic.search.storage import patiently


class Failed(IsicError):
    """The trial failed by its own fault; the message is the reason that the study keeps."""


@dataclass
class Curve:
    """The monitored metric of a training while it grows, from its `metrics.csv`."""

    path: Path
    name: str
    epochs: int = 0  # that were handed out
    _size: int = -1

    def values(self) -> dict[int, float]:
        """Epoch -> value of every whole line; the last one may be being written."""
        if not self.path.exists():
            return {}
        text = self.path.read_text().rpartition("\n")[0]
        rows = csv.reader(io.StringIO(text))
        return {int(float(r[0])): float(r[3]) for r in rows if len(r) == 4 and r[2] == self.name}

    def fresh(self) -> Iterator[tuple[int, float]]:
        """Epochs and values that were not handed out yet."""
        size = self.path.stat().st_size if self.path.exists() else -1
        if size == self._size:
            return
        self._size = size
        for epoch, value in sorted(self.values().items()):
            if epoch >= self.epochs:
                self.epochs = epoch + 1
                yield epoch, value


def run_trial(
    trial: optuna.Trial, config: Mapping[str, Any], search: SearchOptions, jobs: Jobs
) -> float:
    """Train every fold of a trial; the mean of their scores, which the trial keeps beside it.

    Raises:
        optuna.TrialPruned: The pruner ended it; its processes are gone.
        Failed: A fold failed, or its score is no number.
    """
    if not search.folds:
        return _run_stack(trial, config, search, jobs)
    scores: dict[int, float] = {}
    for fold in search.folds:
        scores[fold] = _run_fold(trial, config, search, jobs, fold=fold, before=[*scores.values()])
    values = list(scores.values())
    kept = {
        "scores": {str(k): v for k, v in scores.items()},
        "spread": statistics.stdev(values) if len(values) > 1 else None,
    }
    for key, value in kept.items():
        patiently(partial(trial.set_user_attr, key, value), search.grace)
    return statistics.fmean(values)


def _run_fold(
    trial: optuna.Trial,
    config: Mapping[str, Any],
    search: SearchOptions,
    jobs: Jobs,
    *,
    fold: int,
    before: list[float],
) -> float:
    """The score of one fold; `before`: those of the folds that are done."""
    folder = search.folder / run_of(trial)
    curve = Curve(folder / f"fold{fold}" / "metrics.csv", search.monitor)
    epochs = int(config["trainer"]["max_epochs"])
    log_file = folder / f"fold{fold}.log"
    folder.mkdir(parents=True, exist_ok=True)
    begun = log_file.stat().st_size if log_file.exists() else 0
    lines = {**config["callbacks"], "progress": "lines"}
    fixed = trial_config(config, search, trial, fold=fold, callbacks=lines)
    pid = jobs.start("train", fixed, folder / f"fold{fold}.yaml", log_file)
    code = None
    try:
        while code is None:
            time.sleep(GLANCE)
            code = jobs.poll(pid)
            for epoch, value in curve.fresh():
                mean = statistics.fmean([*before, value])
                step = len(before) * epochs + epoch
                patiently(partial(trial.report, mean, step), search.grace)
                last = epoch + 1 >= epochs and len(before) + 1 == len(search.folds)
                if code is None and not last and patiently(trial.should_prune, search.grace):
                    raise optuna.TrialPruned(f"after epoch {epoch + 1} of fold {fold}")
    finally:
        if code is None:
            jobs.end(pid)
    if code:
        raise Failed(reason(code, log_file, begun))
    return _score(curve, folder / f"fold{fold}" / "score.json")


def _run_stack(
    trial: optuna.Trial, config: Mapping[str, Any], search: SearchOptions, jobs: Jobs
) -> float:
    """The score of a stack over all folds; it has no epochs to prune by."""
    folder = search.folder / run_of(trial)
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "stack.log"
    begun = log_file.stat().st_size if log_file.exists() else 0
    own = trial_config(config, search, trial)
    code = wait_for(jobs, jobs.start("stack", own, folder / "stack.yaml", log_file))
    if code:
        raise Failed(reason(code, log_file, begun))
    return _score(Curve(folder / "metrics.csv", search.monitor), folder / "score.json")


def trial_config(
    config: Mapping[str, Any], search: SearchOptions, trial: optuna.Trial, **own: Any
) -> dict[str, Any]:
    """The config of one job: its folder is the trial's, and W&B knows the study and the number.

    own: What else this job sets, such as its `fold`.
    """
    logger, wandb = config["logger"], config["logger"]["wandb"]
    if wandb:
        tags = [*(wandb.get("tags") or []), search.name, f"trial {trial.number}"]
        told = {"group": wandb.get("group") or search.name, "job_type": "sweep", "tags": tags}
        logger = {**logger, "wandb": {**wandb, **told}}
    name = f"{search.name}/{run_of(trial)}"
    return {**config, **own, "name": name, "overwrite": False, "logger": logger}


def _score(curve: Curve, file: Path) -> float:
    """The monitored metric on every held-out row; the last epoch's where the score has it not."""
    metrics = read_json(file)["metrics"]
    name = curve.name.removeprefix("val/")
    value = metrics[name]["value"] if name in metrics else None
    if name not in metrics:
        values = curve.values()
        value = values[max(values)] if values else None
    if value is None or not math.isfinite(value):
        raise Failed(f"{curve.name} is no number: {value}")
    return float(value)
