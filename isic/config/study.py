"""What every sweep asks for, whatever its trials run."""

from dataclasses import dataclass
from typing import Any

from isic.config.missing import MISSING


@dataclass
class StudyConfig:
    """The keys of a study.

    space: Parameter -> values: `isic.search.space`.
    n_trials: Of the whole study, over all workers and restarts.
    n_workers: Processes of this command, each with its own GPU and share of the cores.
    storage: `sqlite:///FILE`, `journal:FILE`, `postgresql://...`; null = a file in the study.
    heartbeat: Seconds between signs of life; after four without one a worker is dead.
    keep_weights: So many of the best trials keep their checkpoints.
    give_up_after: End where a worker's first so many trials fail and none has succeeded.
    """

    space: Any = MISSING
    pruner: Any = MISSING
    n_trials: int = 50
    n_workers: int = 1
    storage: str | None = None
    heartbeat: float = 15.0
    keep_weights: int = 3
    give_up_after: int = 3
