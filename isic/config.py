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
    split: `test`, `train`, or `holdout`: what `split.holdout` set aside.
    images: A folder of images to predict in place of an archive's rows.
    combine: `mean` of probabilities, or `rank_mean`.
    tta: `none`, or `d4`: the eight flips and turns, averaged.
    trust: Load a checkpoint whose network class is not of this package.
    output: Folder to write to; null means one of its own under `<runs>/predictions/`.
    """

    ckpt: Any = MISSING
    split: str = "test"
    images: str | None = None
    combine: str = "mean"
    tta: str = "none"
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
class RunsConfig:
    """`python -m isic runs`: every run, best score first."""

    paths: Any = MISSING


SCHEMAS = {
    "train": TrainConfig,
    "predict": PredictConfig,
    "synth": SynthConfig,
    "download": DownloadConfig,
    "check": CheckConfig,
    "runs": RunsConfig,
}
