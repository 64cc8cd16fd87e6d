"""Typed roots of the commands: one dataclass a command, registered with Hydra as `NAME_schema`.

A key that no dataclass here and no yaml in `conf/` declares is refused at compose time. Group nodes
are `Any`: their keys come from the yaml that is chosen, and a test binds each to its `_target_`.
"""

from dataclasses import dataclass, field
from typing import Any

MISSING: Any = "???"


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
class PredictDataConfig:
    """What of the data may differ from what the checkpoint was trained with; null = the same."""

    root: str | None = None
    batch_size: int | None = None
    num_workers: Any = None
    on_bad_image: str | None = None
    missing_images: str | None = None


@dataclass
class PredictConfig:
    """`predict.py`: checkpoints -> predictions, submission, score.

    ckpt: A checkpoint file, fold folder or run folder, or a list of them.
    stack: In place of `ckpt`, the folder of a stack, with its image runs beside it.
    split: `test`, `train`, or `holdout`: what `split.holdout` set aside.
    images: A folder of images to predict in place of an archive's rows.
    combine: `mean` of probabilities, or `rank_mean`, where no official metric cuts at 0.5.
    tta: Averaged over: `d4`, the eight flips and turns; `multicrop`, nine crops of a larger image;
        `d4_multicrop`, both; `none`.
    calibrate: `temperature` of the run's out-of-fold rows, or `none`.
    decide: What the submission says over 0.5: `thresholds` of the run's out-of-fold rows a class,
        `argmax` one class a row, `none` the probabilities.
    unknown: Column UNK of the submission, where no training row has that class: `max_prob`,
        `energy`, or `none`, what the network says.
    trust: Load a checkpoint whose network class is not of this package.
    output: Folder to write to; null means one of its own under `<runs>/predictions/`.
    """

    ckpt: Any = MISSING
    stack: str | None = None
    split: str = "test"
    images: str | None = None
    combine: str = "mean"
    tta: str = "none"
    calibrate: str = "none"
    decide: str = "none"
    unknown: str = "none"
    trust: bool = False
    output: str | None = None
    data: PredictDataConfig = field(default_factory=PredictDataConfig)
    trainer: Any = MISSING
    paths: Any = MISSING


@dataclass
class SynthConfig:
    """`python -m isic synth`: a generated archive in the official layout.

    n_images: Train images; of milk10k, train lesions with two images each.
    n_test: Test images, or lesions; null is a tenth of n_images.
    image_size: Side of every square image in pixels; null draws frames as the archive has them.
    images: False writes the tables alone.
    """

    data: Any = MISSING
    generator: Any = MISSING
    paths: Any = MISSING
    n_images: int = 2000
    n_test: int | None = None
    image_size: int | None = None
    images: bool = True
    seed: int = 0


@dataclass
class DownloadDataConfig:
    """Where a download goes."""

    root: Any = MISSING


@dataclass
class RetryConfig:
    """How often and how slowly a request is made again: `isic.acquire.download.http.Patience`."""

    attempts: int = 6
    base: float = 1.0
    longest: float = 60.0
    timeout: float = 30.0


@dataclass
class DownloadConfig:
    """`python -m isic download`: images, metadata and licences of the ISIC Archive.

    query: In the archive's own language, passed on as it is; null = every image.
    collections: A collection's number or a list of them, e.g. [70, 425]; empty = all.
    limit: At most so many images; null = all.
    n_workers: Images at once.
    api: Address of the API, version 2.
    """

    data: DownloadDataConfig = field(default_factory=DownloadDataConfig)
    paths: Any = MISSING
    query: str | None = None
    collections: Any = field(default_factory=list)
    limit: int | None = None
    n_workers: int = 8
    api: str = "https://api.isic-archive.com/api/v2"
    retry: RetryConfig = field(default_factory=RetryConfig)


@dataclass
class CheckConfig:
    """`python -m isic check`: is the archive whole, and what would give the label away?

    images: Read and decode every image; False looks at the tables alone.
    overlap: Look for images that show the same, which takes as long again.
    output: Folder for `report.md` and `fingerprint.json`; null means one of its own under
        `<runs>/checks/`.
    """

    data: Any = MISSING
    paths: Any = MISSING
    images: bool = True
    overlap: bool = True
    output: str | None = None


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
class PseudoDataConfig:
    """Where the predicted images lie now; null = where they were predicted."""

    root: str | None = None


@dataclass
class PseudoConfig:
    """`python -m isic pseudo`: confident predictions as a CSV for `data.extra`.

    predictions: A folder of `predict.py`, or a run with `test.parquet`.
    min_confidence: The highest probability of a row, at least.
    classes: Labels to take; null = all.
    max_per_class: The most confident of each label; null = all.
    weight: Of each row's loss.
    output: The CSV; null means `pseudo.csv` beside the predictions.
    """

    predictions: Any = MISSING
    min_confidence: float = 0.9
    classes: Any = None
    max_per_class: int | None = None
    weight: float = 1.0
    output: str | None = None
    data: PseudoDataConfig = field(default_factory=PseudoDataConfig)
    paths: Any = MISSING


@dataclass
class SweepStackConfig(StackConfig):
    """`sweep.py space=stack`: trials share the keys of `isic stack`; the rest as in SweepConfig."""

    stage: str = "stack"
    space: Any = MISSING
    pruner: Any = MISSING
    n_trials: int = 50
    n_workers: int = 1
    storage: str | None = None
    heartbeat: float = 15.0
    keep_weights: int = 3
    give_up_after: int = 3


@dataclass
class RunsConfig:
    """`python -m isic runs`: every run, best score first.

    clean: `show` what finished runs hold that no score needs, `delete` it, or null.
    """

    paths: Any = MISSING
    clean: str | None = None


@dataclass
class SyncConfig:
    """`python -m isic sync`: send what W&B kept offline.

    timeout: Seconds without a further run sent after which it is given up.
    """

    paths: Any = MISSING
    timeout: float = 300.0


SCHEMAS = {
    "train": TrainConfig,
    "predict": PredictConfig,
    "synth": SynthConfig,
    "download": DownloadConfig,
    "check": CheckConfig,
    "pseudo": PseudoConfig,
    "runs": RunsConfig,
    "sync": SyncConfig,
    "stack": StackConfig,
    "sweep": SweepConfig,
    "sweep_stack": SweepStackConfig,
}
