"""One checkpoint and rows of an archive, or a folder of images -> a predictions table."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from hydra.utils import instantiate
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from numpy.typing import NDArray
from pytorch_lightning.callbacks import RichProgressBar

from isic.config.targets import targets_of
from isic.data import LesionDataModule
from isic.engine.trained import NUMBERED, fold_config, kept_split, side_of
from isic.engine.unlike_training import say_unlike_training
from isic.errors import CheckpointError, DataError
from isic.index.schema import refuse_untrained, sample_rows
from isic.predictions.origin import with_images
from isic.predictions.table import ENERGY
from isic.predictions.unknown import UNKNOWN
from isic.prepare import Rows, has_images
from isic.split.making import fold_rows, open_split
from isic.training.checkpoint import load
from isic.training.failures import memory_explained
from isic.training.hardware import TrainerOptions
from isic.training.module import LesionClassifier
from isic.training.tta import views_of

log = logging.getLogger(__name__)


def find_checkpoints(
    given: str | Sequence[str], *, runs: Path = Path("runs"), key: str = "ckpt"
) -> list[Path]:
    """Files, fold folders and run folders -> checkpoint files.

    A finished fold gives the checkpoint that was scored. What is not there is looked for by its
    name under `runs`. `key` is the option that names them, for messages.

    Raises:
        CheckpointError: Nothing there, or a fold that is not finished.
    """
    found = []
    for item in [given] if isinstance(given, str) else given:
        path = Path(item)
        if not path.exists() and (runs / item).exists():
            path = runs / item
        if path.is_dir():
            found += [_scored_checkpoint(fold, key) for fold in _folds(path, key)]
        elif path.is_file():
            found.append(path)
        else:
            raise CheckpointError(
                f"{key}: expected a file, a fold or a run, got {item}: neither {path.absolute()} "
                f"nor {(runs / item).absolute()} is there; python -m isic runs lists what is"
            )
    if not found:
        raise CheckpointError(f"{key}: expected a file, a fold or a run, got {given!r}")
    return found


def _folds(run: Path, key: str) -> list[Path]:
    """The numbered folds of a run, else `foldall`; a fold folder stands for itself."""
    if (run / "config.yaml").exists():
        if "stacker" in fold_config(run, key, {}):
            mend = f"predict.py stack={run}" if key == "ckpt" else "name a run that has checkpoints"
            raise CheckpointError(f"{key}: {run.resolve()} is a stack: {mend}")
        return [run]
    numbered = sorted(p.parent for p in run.glob("fold[0-9]*/config.yaml"))
    if not numbered and (run / "foldall" / "config.yaml").exists():
        return [run / "foldall"]
    if not numbered:
        raise CheckpointError(f"{key}: {run.resolve()} is neither a run nor a fold: no config.yaml")
    n_folds = fold_config(numbered[0], key, NUMBERED)["n_folds"]
    if len(numbered) < n_folds and key == "ckpt":
        log.warning("%s: %d of %d folds are there and averaged", run, len(numbered), n_folds)
    return numbered


def _scored_checkpoint(fold: Path, key: str) -> Path:
    if not (fold / "score.json").exists():
        raise CheckpointError(
            f"{key}: {fold.resolve()} is not finished (no score.json): give its train.py command "
            f"again{', or name its checkpoint file' if key == 'ckpt' else ''}"
        )
    config = fold_config(fold, key)
    name = "best" if config["evaluate"] == "best" and config["fold"] != "all" else "last"
    if not (fold / "checkpoints").exists():
        raise CheckpointError(
            f"{key}: {fold.resolve()} has a score and no weights: a sweep keeps those of its best "
            "trials (keep_weights). Train with the settings of its config.yaml, under another name"
        )
    return fold / "checkpoints" / f"{name}.ckpt"


def rows_to_predict(
    data: LesionDataModule, record: Mapping[str, Any], config: Mapping[str, Any]
) -> pd.DataFrame:
    """The samples that `split` names: test or train rows of the index, or what was held out.

    Raises:
        DataError: None of them has an image, or the split file of the checkpoint is gone.
    """
    if config["split"] != "test":
        refuse_untrained(data.index)
    if config["split"] == "holdout":
        table = _held_out(data, record, config)
    else:
        samples = sample_rows(data.index)
        table = samples[samples["split"] == config["split"]].reset_index(drop=True)
    if not has_images(data.index, table, data.views):
        raise DataError(
            f"split={config['split']}: no image of that part lies under {data.root.resolve()}; "
            f"download them: {data.index.download}"
        )
    return table


def _held_out(
    data: LesionDataModule, record: Mapping[str, Any], config: Mapping[str, Any]
) -> pd.DataFrame:
    """The rows that the checkpoint's own split file holds out: nothing was trained on them."""
    path = kept_split(record, runs=Path(config["paths"]["runs"]))
    if path is None:
        raise DataError(
            f"split=holdout: the split file of this checkpoint, {record.get('split_file')} with "
            f"hash {record.get('split_hash')}, is gone or has changed; restore it from a copy"
        )
    table = fold_rows(data.index, open_split(path), held_out=True)
    if not len(table):
        raise DataError(
            f"split=holdout: {path} holds nothing out; train with split.holdout=0.15 first"
        )
    return table


def predict_checkpoint(
    path: Path, data: LesionDataModule, record: Mapping[str, Any], config: Mapping[str, Any]
) -> pd.DataFrame:
    """One checkpoint's predictions of the rows that `split` names."""
    table = rows_to_predict(data, record, config)
    trust, named = bool(config["trust"]), targets_of(config)
    classifier = load(path, classes=data.index.info.classes, trust=trust, named=named)
    classifier.tta = views_of(config["tta"], side_of(path, record))
    options: TrainerOptions = instantiate(config["trainer"])
    trainer = lone_trainer(options, progress=sys.stderr.isatty())
    options.lay_out(classifier.network)
    rows = data.rows_of(table)
    say_unlike_training(data, table, record)
    return predict_rows(trainer, classifier, data, rows, np.arange(len(rows.table)), fold=-2)


def lone_trainer(options: TrainerOptions, *, progress: bool = False) -> pl.Trainer:
    """A trainer of this process alone, also inside a SLURM job or as one rank of several."""
    options.set_matmul_precision()
    arguments = {**options.trainer_arguments(), "devices": 1, "strategy": "auto", "num_nodes": 1}
    return pl.Trainer(
        **arguments,
        plugins=[LightningEnvironment()],
        logger=False,
        enable_progress_bar=progress,
        # Lightning's own would draw on standard output, where results go
        callbacks=[RichProgressBar(console_kwargs={"stderr": True})] if progress else None,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


def predict_rows(
    trainer: pl.Trainer,
    classifier: LesionClassifier,
    data: LesionDataModule,
    rows: Rows,
    positions: NDArray[np.int64],
    *,
    fold: int,
) -> pd.DataFrame:
    """Predictions of some rows, one table row each in their order; NaN where no image is."""
    readable = rows.readable[positions]
    probs = np.full((len(positions), len(classifier.classes)), np.nan)
    energy = np.full(len(positions), np.nan)
    if readable.any():
        device = trainer.strategy.root_device
        loader = data.evaluation_loader(rows, positions[readable], device=device)
        asked = {
            "data.batch_size": data.batch_size,
            "trainer.precision": trainer.precision,
            "data.image_size": data.image_size,
        }
        with memory_explained(asked):
            trainer.predict(classifier, dataloaders=loader, return_predictions=False)
        assert (epoch := classifier.last_epoch) is not None
        place = np.flatnonzero(readable)[epoch.row]
        probs[place], energy[place] = epoch.probs, epoch.energy
    table = rows.table.iloc[positions]
    frame = table[["image_id", "lesion_id"]].reset_index(drop=True)
    frame["fold"] = fold
    frame["split"] = table["split"].to_numpy()
    frame["status"] = np.array(["ok", "unreadable", "missing"])[rows.status[positions]]
    seen = data.views or data.index.info.views[:1]
    frame = with_images(frame, table, data.index, views=seen)
    for i, name in enumerate(classifier.classes):
        frame[f"prob_{name}"] = probs[:, i]
    if UNKNOWN in classifier.classes:
        frame[ENERGY] = energy
    return frame
