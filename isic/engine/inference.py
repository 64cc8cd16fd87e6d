"""Apply checkpoints: what `predict.py` does."""

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import yaml
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from isic.assemble import score_predictions, submit
from isic.data import LesionDataModule
from isic.engine.build import build_data, build_metrics, quiet
from isic.errors import CheckpointError, ConfigError, DataError
from isic.index.metadata import MetadataEncoder
from isic.index.schema import index_hash, sample_rows
from isic.predictions import ensemble, score_line, write_predictions, write_score
from isic.prepare import Rows, has_images
from isic.signatures import check_signatures
from isic.split.making import fold_rows, open_split
from isic.split.split_file import split_hash
from isic.training.checkpoint import load, read
from isic.training.hardware import TrainerOptions
from isic.training.module import LesionClassifier

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> str:
    """`predict.py`: predictions, submission and score in one folder; returns its path."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for key, choices in (
        ("split", ("test", "train", "holdout")),
        ("combine", ("mean", "rank_mean")),
        ("tta", ("none", "d4")),
    ):
        if config[key] not in choices:
            raise ConfigError(f"{key}: expected {' or '.join(choices)}, got {config[key]!r}")
    if config["images"] and config["split"] != "test":
        raise ConfigError(f"images: predicted as test rows, got split={config['split']}")
    if config["ckpt"] == "???":
        raise ConfigError("ckpt: expected a checkpoint, fold or run, got none: ckpt=runs/NAME")
    quiet()
    checkpoints = find_checkpoints(config["ckpt"], runs=Path(config["paths"]["runs"]))
    frames, data, record = [], None, {}
    for path in checkpoints:
        log.info("predicting with %s", path)
        record = read(path)["isic"]
        data = data_of(record, config)
        frames.append(_predict_one(path, data, rows_to_predict(data, record, config), config))
    assert data is not None
    frame = ensemble(frames, method=config["combine"]) if len(frames) > 1 else frames[0]
    return _write(frame, data, record, config, checkpoints)


def find_checkpoints(given: str | Sequence[str], *, runs: Path = Path("runs")) -> list[Path]:
    """Files, fold folders and run folders -> checkpoint files.

    A finished fold gives the checkpoint that was scored. What is not there is looked for by its
    name under `runs`.

    Raises:
        CheckpointError: Nothing there, or a fold that is not finished.
    """
    found = []
    for item in [given] if isinstance(given, str) else given:
        path = Path(item)
        if not path.exists() and (runs / item).exists():
            path = runs / item
        if path.is_dir():
            found += [_scored_checkpoint(fold) for fold in _folds(path)]
        else:
            found.append(path)
    if not found:
        raise CheckpointError(f"ckpt: expected a file, a fold or a run, got {given!r}")
    return found


def _folds(run: Path) -> list[Path]:
    """The numbered folds of a run, else `foldall`; a fold folder stands for itself."""
    if (run / "config.yaml").exists():
        return [run]
    numbered = sorted(p.parent for p in run.glob("fold[0-9]*/config.yaml"))
    if not numbered and (run / "foldall" / "config.yaml").exists():
        return [run / "foldall"]
    if not numbered:
        raise CheckpointError(f"ckpt: {run.resolve()} is neither a run nor a fold: no config.yaml")
    n_folds = yaml.safe_load((numbered[0] / "config.yaml").read_text())["n_folds"]
    if len(numbered) < n_folds:
        log.warning("%s: %d of %d folds are there and averaged", run, len(numbered), n_folds)
    return numbered


def _scored_checkpoint(fold: Path) -> Path:
    if not (fold / "score.json").exists():
        raise CheckpointError(
            f"ckpt: {fold.resolve()} is not finished (no score.json): give its train.py command "
            "again, or name its checkpoint file"
        )
    config = yaml.safe_load((fold / "config.yaml").read_text())
    name = "best" if config["evaluate"] == "best" and config["fold"] != "all" else "last"
    return fold / "checkpoints" / f"{name}.ckpt"


def data_of(record: Mapping[str, Any], config: Mapping[str, Any]) -> LesionDataModule:
    """The data module that a checkpoint was trained with, with this command's overrides."""
    trained = record["config"]
    changed = {k: v for k, v in config["data"].items() if v is not None}
    changed["extra"] = None  # images that were only trained on
    if config["images"]:
        changed["root"] = config["images"]
        changed["index"] = {
            "_target_": "isic.index.unlabelled.build_index",
            "_partial_": True,
            "_convert_": "all",
            "info": record["info"],
            "views": trained["data"].get("views") or [],
        }
    merged = {
        **trained,
        "data": {**trained["data"], **changed, "image_size": record["network"]["image_size"]},
        "fold": "all",
        "paths": config["paths"],
    }
    check_signatures(merged["data"], "data")
    data = build_data(merged)
    if data.metadata:  # what the checkpoint learned of its own training rows
        data.encoder = MetadataEncoder.from_dict(record["metadata"])
    return data


def rows_to_predict(
    data: LesionDataModule, record: Mapping[str, Any], config: Mapping[str, Any]
) -> pd.DataFrame:
    """The samples that `split` names: test or train rows of the index, or what was held out.

    Raises:
        DataError: None of them has an image, or the split file of the checkpoint is gone.
    """
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
    named = Path(record["split_file"])
    for path in (named, Path(config["paths"]["runs"]) / "splits" / named.name):
        if path.exists() and split_hash(path) == record["split_hash"]:
            table = fold_rows(data.index, open_split(path), held_out=True)
            if not len(table):
                raise DataError(
                    f"split=holdout: {path} holds nothing out; train with split.holdout=0.15 first"
                )
            return table
    raise DataError(
        f"split=holdout: the split file of this checkpoint, {named} with hash "
        f"{record['split_hash']}, is gone or has changed; put it back"
    )


def _predict_one(
    path: Path, data: LesionDataModule, table: pd.DataFrame, config: Mapping[str, Any]
) -> pd.DataFrame:
    classifier = load(path, classes=data.index.info.classes, trust=config["trust"])
    classifier.tta = config["tta"] == "d4"
    options: TrainerOptions = instantiate(config["trainer"])
    arguments = {**options.trainer_arguments(), "devices": 1, "strategy": "auto", "num_nodes": 1}
    trainer = pl.Trainer(
        **arguments,
        logger=False,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    rows = data.rows_of(table)
    return predict_rows(trainer, classifier, data, rows, np.arange(len(rows.table)), fold=-2)


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
    if readable.any():
        loader = data.evaluation_loader(rows, positions[readable])
        trainer.predict(classifier, dataloaders=loader, return_predictions=False)
        assert classifier.last_epoch is not None
        probs[np.flatnonzero(readable)[classifier.last_epoch.row]] = classifier.last_epoch.probs
    table = rows.table.iloc[positions]
    frame = table[["image_id", "lesion_id"]].reset_index(drop=True)
    frame["fold"] = fold
    frame["split"] = table["split"].to_numpy()
    frame["status"] = np.array(["ok", "unreadable", "missing"])[rows.status[positions]]
    for i, name in enumerate(classifier.classes):
        frame[f"prob_{name}"] = probs[:, i]
    return frame


def _output(
    config: Mapping[str, Any], name: str, data: LesionDataModule, checkpoints: Sequence[Path]
) -> Path:
    """`output`, or a folder of its own for these checkpoints, rows and ways to combine them."""
    if config["output"]:
        folder = Path(config["output"])
        if (folder / "config.yaml").exists() or list(folder.glob("fold*")):
            raise ConfigError(f"output: {folder} is a run; its scores stay as they are")
    else:
        parts = [config[key] for key in ("split", "combine", "tta")]
        parts += [str(data.root.resolve()), *(str(p.resolve()) for p in checkpoints)]
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:6]
        runs = Path(config["paths"]["runs"])
        folder = runs / "predictions" / f"{name}-{config['split']}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "score.json").unlink(missing_ok=True)  # of earlier predictions here
    return folder


def _write(
    frame: pd.DataFrame,
    data: LesionDataModule,
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    checkpoints: Sequence[Path],
) -> str:
    """`predictions.parquet`, `submission.csv` for test rows, `score.json` where targets exist."""
    name = record["config"]["name"]
    folder = _output(config, name, data, checkpoints)
    archive = index_hash(data.index.table)
    attributes = {"run": name, "index_hash": archive, "split_hash": record["split_hash"]}
    write_predictions(folder / "predictions.parquet", frame, **attributes)
    log.info("predictions: %s", folder / "predictions.parquet")
    if config["split"] == "test":
        submit(folder / "submission.csv", frame, data.index)
    truth = data.index.table.set_index("image_id")["target"]
    if truth.reindex(frame["image_id"]).notna().any():
        metrics = build_metrics(record["config"])
        result = score_predictions(frame, data.index, metrics, folder=folder / "curves")
        result["checkpoints"] = [str(p) for p in checkpoints]
        result["trained_on_these_rows"] = (
            config["split"] == "train" and archive == record["index_hash"]
        )
        write_score(folder / "score.json", result)
        log.info("score: %s", score_line(result))
        if result["trained_on_these_rows"]:
            log.warning("these rows trained the checkpoints: the score says nothing about new ones")
    return str(folder)
