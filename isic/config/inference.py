"""Roots of what applies checkpoints: `predict.py` and `isic pseudo`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isic.config.missing import MISSING


@dataclass
class AppliedIndexConfig:
    """Options to read the archive that a model is applied to; null = as the one it was trained on.

    ids: `exact` or `normalised`: see `isic.index.id_spellings`.
    """

    ids: str | None = None


def applied_index(trained: Mapping[str, Any], told: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config node of a model's reader, with what a command says of another archive's ids."""
    return {**trained, **{key: value for key, value in (told or {}).items() if value is not None}}


@dataclass
class PredictDataConfig:
    """What of the data may differ from what the checkpoint was trained with; null = the same."""

    root: str | None = None
    index: AppliedIndexConfig = field(default_factory=AppliedIndexConfig)
    batch_size: int | None = None
    num_workers: Any = None
    on_bad_image: str | None = None
    missing_images: str | None = None
    max_megapixels: float | None = None


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
    trust: Run code that only a checkpoint or a stack names; false = what is stored is data.
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
class PseudoDataConfig:
    """Where the predicted images lie now; null = where they were predicted."""

    root: str | None = None
    index: AppliedIndexConfig = field(default_factory=AppliedIndexConfig)


@dataclass
class PseudoConfig:
    """`python -m isic pseudo`: confident predictions as a CSV for `data.extra`.

    predictions: A folder of `predict.py`, or a run with `test.parquet`.
    min_confidence: The highest probability of a row, at least.
    classes: Labels to take; null = all.
    max_per_class: The most confident of each label; null = all.
    weight: Of each row's loss.
    trust: Run code that only the run's config names; false = what is stored is data.
    output: The CSV; null means `pseudo.csv` beside the predictions.
    """

    predictions: Any = MISSING
    min_confidence: float = 0.9
    classes: Any = None
    max_per_class: int | None = None
    weight: float = 1.0
    trust: bool = False
    output: str | None = None
    data: PseudoDataConfig = field(default_factory=PseudoDataConfig)
    paths: Any = MISSING
