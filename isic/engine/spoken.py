"""What a run says: its first lines, its entry on a dashboard."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic import dashboard
from isic.data import LesionDataModule
from isic.engine.settle import say_loss
from isic.images.decode import decode, fit
from isic.images.packfile import OK
from isic.models.summary import in_words
from isic.predictions import probabilities
from isic.prepare import Rows
from isic.runs import RunFolder
from isic.training.hardware import TrainerOptions
from isic.training.module import LesionClassifier

log = logging.getLogger(__name__)


def announce(
    config: Mapping[str, Any],
    data: LesionDataModule,
    classifier: LesionClassifier,
    options: TrainerOptions,
    folder: RunFolder,
) -> None:
    """The first lines of a run: every default that was taken, in plain words."""
    use, info = data.positions, data.index.info
    counts = ", ".join(f"{n} {c}" for n, c in zip(data.class_counts, info.classes, strict=True))
    part = (
        f", {len(use['val'])} of them (partial) while training" if data.partial_validation else ""
    )
    test = data.index.table["split"] == "test"
    if test.any() and data.test_rows is None:
        log.warning("no test image under %s: there will be no submission", data.root)
    log.info("run     %s", folder.path)
    log.info("data    %s: %d training rows (%s)", data.root, len(use["train"]), counts)
    log.info("fold    %s, %d rows held out%s", config["fold"], len(use["held_out"]), part)
    log.info("split   %s", data.split.path)
    for pack in data.train_rows.packs:
        log.info("pixels  %s", pack.path)
    if data.encoder:
        sizes = len(data.encoder.columns), len(data.encoder.names)
        log.info("known   %s: %d columns, %d features", ", ".join(data.metadata), *sizes)
    for head in data.heads:
        kind = f"{len(head.classes)} classes" if head.classes else "a number"
        log.info("learnt  %s beside the label: %s", head.name, kind)
    log.info(
        "model   %s, %s, pretrained=%s, %d px",
        config["model"].get("backbone", type(classifier.network).__name__),
        in_words(classifier.network, data.image_size),
        *(config["model"].get("pretrained"), data.image_size),
    )
    say_loss(config["loss"], info)
    log.info(
        "device  %s, batch %d, %d epochs", options.describe(), data.batch_size, options.max_epochs
    )


def log_result(loggers: Sequence[Any], folder: RunFolder, result: Mapping[str, Any]) -> None:
    """Score, resources, curves and predictions to W&B, where it is on."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            dashboard.log_result(logger.experiment, folder.path, result)


def log_mistakes(loggers: Sequence[Any], rows: Rows, frame: pd.DataFrame, n: int = 16) -> None:
    """The `n` held-out images whose true class got the least probability, to W&B.

    These are patients' images: called only with `logger.wandb.images=true`.
    """
    from pytorch_lightning.loggers import WandbLogger

    table = rows.table.reset_index(names="row").set_index("image_id").loc[frame["image_id"]]
    row, target = table["row"].to_numpy(), table["target"].to_numpy(dtype=np.int64)
    confidence = probabilities(frame)[np.arange(len(frame)), target]  # NaN sorts last
    worst = [i for i in np.argsort(confidence)[:n].tolist() if np.isfinite(confidence[i])]
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            images = [
                wandb.Image(
                    _thumbnail(rows, int(row[i])),
                    caption=f"{frame['image_id'].iat[i]}: class {target[i]}, p={confidence[i]:.3f}",
                )
                for i in worst
            ]
            logger.experiment.log({"oof/mistakes": images})


def _thumbnail(rows: Rows, row: int, side: int = 128) -> NDArray[np.uint8]:
    """A packed image, of the first view that is there, at one size, uint8 (side, side, 3)."""
    pack = next(pack for pack in rows.packs if pack.status[row] == OK)
    packed = pack.pixels is not None
    image = pack.pixels_of(row) if packed else decode(pack.encoded(row), max_pixels=None)
    return fit(image, side)
