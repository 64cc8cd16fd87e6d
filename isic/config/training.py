"""Roots of what learns from images: `train.py` and its sweeps."""

from dataclasses import dataclass
from typing import Any

from isic.config.missing import MISSING
from isic.config.study import StudyConfig


@dataclass
class TrainConfig:
    """`train.py`: one fit of one fold.

    fold: 0..n_folds-1, or `all` to train on every row and validate nothing.
    name: Run name; null means `<data>-<model>-<hash of the config>`.
    evaluate: Which epoch's weights are scored: `last` (fixed schedule) or `best` (optimistic).
    overwrite: Throw away what stands under the same name and fold.
    trust: Run code that only a teacher's checkpoint names; false = what is stored is data.
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
    trust: bool = False


@dataclass
class SweepConfig(StudyConfig, TrainConfig):
    """`sweep.py`: what trials share is `train.py`'s; its `fold` may be a list, `name` is a study's.

    stage: What a trial runs.
    """

    stage: str = "train"
