"""What a sweep is asked to do: the keys of conf/sweep.yaml that are no settings of a trial."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isic.errors import ConfigError
from isic.names import checked_name

PASSWORD = re.compile(r"[\w+]+://[^:/?]*:(.*)@|[?&]password=([^&]*)")


@dataclass(frozen=True)
class SearchOptions:
    """How much is tried, where it is kept, and what counts as good.

    name: Of the study; its folder is `<runs>/<name>`.
    n_trials: Of the whole study, over all workers and restarts. A trial that failed by its own
        fault counts; one whose worker died does not, it is run again.
    n_workers: Processes of this command; each has its GPU and its share of the cores.
    storage: `sqlite:///FILE`, `journal:FILE` or `postgresql://...`; None is a file in the folder.
    folds: Scored in each trial; the objective is the mean over them. Empty: the stage has its own.
    monitor, direction: The metric, as in `val/auc`, and `maximize` or `minimize`.
    heartbeat: Seconds between signs of life; after four of them without one a worker is dead.
    keep_weights: So many of the best trials keep their checkpoints.
    give_up_after: End where this worker's first so many trials fail, and no other one succeeded.
    """

    name: str
    folder: Path
    stage: str
    n_trials: int
    n_workers: int
    storage: str | None
    folds: tuple[int, ...]
    monitor: str
    direction: str
    seed: int
    heartbeat: float
    keep_weights: int
    give_up_after: int

    def __post_init__(self) -> None:
        """Refuse values that would quietly mean something else."""
        checked_name(self.name)
        for key, least in (("n_trials", 1), ("n_workers", 1), ("give_up_after", 1)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key}: expected {least} or more, got {getattr(self, key)}")
        if self.keep_weights < 0:
            raise ConfigError(f"keep_weights: expected 0 or more, got {self.keep_weights}")
        if not self.heartbeat >= 0.1:
            raise ConfigError(f"heartbeat: expected seconds, 0.1 or more, got {self.heartbeat}")

    @property
    def grace(self) -> float:
        """Seconds without a sign of life after which a worker counts as dead."""
        return 4 * self.heartbeat


def check_password(storage: str | None) -> None:
    """Refuse an address with a password in it, as it was typed, before anything keeps it.

    Hydra writes the words of a multirun to a file for all to read, and a shell keeps them, too.
    """
    found = PASSWORD.search(storage or "")
    if found and "${" not in found[0]:
        raise ConfigError(
            "storage: expected an address without a password, as postgresql://USER@HOST/DATABASE: "
            "it would be kept in files and shown to others. It belongs in ~/.pgpass or PGPASSWORD, "
            "or in a variable of your own: storage='postgresql://USER:${oc.env:NAME}@HOST/DATABASE'"
        )


def search_options(config: Mapping[str, Any], *, name: str) -> SearchOptions:
    """The options of a composed `conf/sweep.yaml`."""
    trains = config["stage"] == "train"
    metrics = config["metrics"]
    if metrics["mode"] not in ("min", "max"):
        raise ConfigError(f"metrics.mode: expected min or max, got {metrics['mode']!r}")
    if not trains and metrics["monitor"].removeprefix("val/") not in metrics["functions"]:
        raise ConfigError(
            f"metrics.monitor: a stack has no epochs; expected one of "
            f"{', '.join(f'val/{m}' for m in metrics['functions'])}, got {metrics['monitor']!r}"
        )
    return SearchOptions(
        name=name,
        folder=Path(config["paths"]["runs"]).resolve() / name,
        stage=config["stage"],
        folds=_folds(config["fold"]) if trains else (),
        monitor=metrics["monitor"],
        direction="maximize" if metrics["mode"] == "max" else "minimize",
        seed=config["seed"],
        **{
            key: config[key]
            for key in "n_trials n_workers storage heartbeat keep_weights give_up_after".split()
        },
    )


def _folds(fold: Any) -> tuple[int, ...]:
    """`0` or `[0, 1, 2]`; whether the split has them is known when it is read."""
    folds = list(fold) if isinstance(fold, list | tuple) else [fold]
    if not folds or any(isinstance(k, bool) or not isinstance(k, int) or k < 0 for k in folds):
        raise ConfigError(f"fold: expected a number, or a list as fold=[0,1,2], got {fold!r}")
    if len({*folds}) < len(folds):
        raise ConfigError(f"fold: expected each fold once, got {fold!r}")
    return tuple(folds)
