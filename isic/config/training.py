"""Roots of what learns from images: `train.py` and its sweeps."""

from dataclasses import dataclass
from typing import Any

from isic.config.missing import MISSING


@dataclass
class TrainConfig:
    """`train.py`: one fit of one fold.

    fold: 0..n_folds-1, or `all` to train on every row and validate nothing.
    name: Run name; null means `<data>-<model>-<hash of the config>`.
    evaluate: Which epoch's weights are scored: `last` (fixed schedule) or `best` (optimistic).
    overwrite: Throw away what stands under the same name and fold.
    """

    data: Any = MISSING
    metrics: Any = MISSING
    model: Any = MISSING
    transforms: Any = MISSING
    sampler: Any = MISSING
    loss: Any = MISSING
    mixing: Any = None
    auxiliary: Any = None
    distill: Any = None
    finetune: Any = None
    optim: Any = MISSING
    split: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = MISSING
    logger: Any = MISSING
    paths: Any = MISSING
    fold: Any = 0
    name: str | None = None
    seed: int = 0
    evaluate: str = "last"
    overwrite: bool = False


@dataclass
class SweepConfig(TrainConfig):
    """`sweep.py`: what trials share is `train.py`'s; its `fold` may be a list, `name` is a study's.

    stage: What a trial runs.
    space: Parameter -> values: `isic.search.space`.
    n_trials: Of the whole study, over all workers and restarts.
    n_workers: Processes of this command, each with its own GPU and share of the cores.
    storage: `sqlite:///FILE`, `journal:FILE`, `postgresql://...`; null = a file in the study.
    heartbeat: Seconds between signs of life; after four without one a worker is dead.
    keep_weights: So many of the best trials keep their checkpoints.
    give_up_after: End where a worker's first so many trials fail and none has succeeded.
    """

    stage: str = "train"
    space: Any = MISSING
    pruner: Any = MISSING
    n_trials: int = 50
    n_workers: int = 1
    storage: str | None = None
    heartbeat: float = 15.0
    keep_weights: int = 3
    give_up_after: int = 3
