"""Roots of what works on tables: stacks, their sweeps, and the runs that are there."""

from dataclasses import dataclass, field
from typing import Any

from isic.config.missing import MISSING
from isic.config.study import StudyConfig


@dataclass
class ResampleConfig:
    """Rows of a training fold drawn again: `isic.stack.Resample`; null leaves a side as it is."""

    over: float | None = 0.003
    under: float | None = 0.01


@dataclass
class StackConfig:
    """`python -m isic stack`: features and image runs -> stacked predictions, score, models.

    runs: Image runs or earlier stacks, names or folders, whose scores are features; [] = none.
    stacker: One or several: `stacker=[lightgbm,catboost]`, averaged.
    selection: Of the features, fitted inside each fold; null keeps them all.
    fold: null = one model a fold; `all` = fit on every row as well, and predict test rows by that.
    name: null means `<data>-stack-<hash of the config>`.
    seed: Of the first model; n_seeds models a stacker and fold.
    combine: `mean` or `rank_mean` over models; null = ranks where all metrics go by order.
    noise: On image scores while training, in units of each one's own deviation.
    early_stopping: Rounds without gain on a part of the training fold; null = all rounds.
    hospitals: Fit once more with each hospital left out, for a score of how it travels.
    on_leak: `error` or `warn` where one fold of a run knows its labels.
    n_jobs: Fits side by side; null = one a core.
    """

    data: Any = MISSING
    metrics: Any = MISSING
    features: Any = MISSING
    selection: Any = None
    stacker: Any = MISSING
    resample: ResampleConfig = field(default_factory=ResampleConfig)
    split: Any = MISSING
    logger: Any = MISSING
    paths: Any = MISSING
    runs: Any = field(default_factory=list)
    fold: Any = None
    name: str | None = None
    seed: int = 0
    n_seeds: int = 3
    combine: str | None = None
    noise: float = 0.0
    early_stopping: int | None = None
    hospitals: bool = False
    on_leak: str = "error"
    n_jobs: int | None = None
    overwrite: bool = False


@dataclass
class SweepStackConfig(StudyConfig, StackConfig):
    """`sweep.py space=stack`: trials share the keys of `isic stack`."""

    stage: str = "stack"


@dataclass
class RunsConfig:
    """`python -m isic runs`: every run, best score first.

    clean: `show` what finished runs hold that no score needs, `delete` it, or null.
    trust: Run code that only a run's config names, where its folds are put together; false = what
        is stored is data.
    """

    paths: Any = MISSING
    clean: str | None = None
    trust: bool = False


@dataclass
class SyncConfig:
    """`python -m isic sync`: send what W&B kept offline.

    timeout: Seconds without a further run sent after which it is given up.
    """

    paths: Any = MISSING
    timeout: float = 300.0
