"""`python -m isic pseudo`: confident predictions of test images or of a folder, as `data.extra`."""

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from isic.config.inference import applied_index
from isic.config.paths import located_data
from isic.config.shapes import ARCHIVE, PLACES, read_stored
from isic.config.stored import Stored
from isic.errors import ConfigError, DataError
from isic.files import write_summed
from isic.index.folder.files import image_names, safe_ids
from isic.index.schema import Index, index_hash
from isic.predictions import read_predictions
from isic.predictions.pseudo import confident, pseudo_rows
from isic.prepare import open_index
from isic.streams import show

log = logging.getLogger(__name__)

AGAIN = "Predict again with predict.py, from a run that is whole"
TRAINED = {"data": ARCHIVE | {"views?": (type(None), [str])}, "paths?": PLACES}
"""What is read of the run's config."""


@dataclass(frozen=True)
class Predicted:
    """A predictions table, the config of its run, and where its images lie.

    images: A plain folder was predicted, not an archive.
    """

    frame: pd.DataFrame
    trained: Stored
    root: Path
    images: bool


def pseudo(cfg: DictConfig) -> str:
    """Write the CSV, which `train.py data.extra=` takes; returns its path."""
    folder = _folder(str(cfg.predictions), Path(cfg.paths.runs))
    predicted = _predicted(folder, trust=cfg.trust)
    root = Path(cfg.data.root).resolve() if cfg.data.root else predicted.root
    chosen = confident(
        predicted.frame,
        min_confidence=cfg.min_confidence,
        classes=list(cfg.classes) if cfg.classes else None,
        max_per_class=cfg.max_per_class,
    )
    images = (
        _folder_images(root, predicted.trained.config)
        if predicted.images
        else _archive_images(root, predicted, Path(cfg.paths.cache), cfg.data.index)
    )
    run = str(predicted.frame.attrs["run"])
    rows = pseudo_rows(chosen, images, folder=root, run=run, weight=cfg.weight)
    path = Path(cfg.output or folder / "pseudo.csv").absolute()
    write_summed(path, rows.to_csv(index=False, lineterminator="\n"))
    counts = ", ".join(f"{n:,} {label}" for label, n in chosen["label"].value_counts().items())
    log.info("%d of %d rows taken: %s", len(chosen), len(predicted.frame), counts or "none")
    show(f"written to {path}; to train with it: train.py {shlex.quote(f'data.extra={path}')}")
    return str(path)


def _folder(given: str, runs: Path) -> Path:
    """A folder of predict.py or a run, by path or by its name under the runs.

    Raises:
        ConfigError: Nothing of the kind there.
    """
    for path in (Path(given), runs / given, runs / "predictions" / given):
        if (path / "predictions.parquet").exists() or (path / "test.parquet").exists():
            return path
    raise ConfigError(
        f"predictions: expected a folder of predict.py, or a run with test.parquet, got {given}; "
        "first predict.py ckpt=runs/NAME, or with images=DIR"
    )


def _predicted(folder: Path, *, trust: bool) -> Predicted:
    """The table of `folder`, and where it came from.

    Raises:
        DataError: The run that made it is gone, or a file says something else than it should.
        CheckpointError: The run's config names code, and nobody answers for it.
    """
    if (folder / "predictions.parquet").exists():
        frame = read_predictions(folder / "predictions.parquet")
        shape = {"config": str, "root": str, "images": bool}
        source = read_stored(folder / "source.json", shape, mend=AGAIN)
        config = Path(source["config"])
        root, images = Path(source["root"]), bool(source["images"])
    else:
        frame, config = read_predictions(folder / "test.parquet"), _any_config(folder)
        root, images = None, False
    if not config.is_file():
        raise DataError(f"the run that predicted {folder} is gone: no {config}. {AGAIN}")
    trained = Stored(read_stored(config, TRAINED, mend=AGAIN), str(config), trust)
    trained.check(imports=False)  # the rest of it becomes nothing here
    there = Path(located_data(trained.config)["root"]).resolve()
    return Predicted(frame, trained, root or there, images)


def _any_config(run: Path) -> Path:
    """The config of one of a run's folds, or of the fold itself."""
    return next(iter(sorted(run.glob("fold*/config.yaml"))), run / "config.yaml")


def _archive_images(
    root: Path, predicted: Predicted, cache: Path, told: Mapping[str, Any]
) -> pd.DataFrame:
    """The test images of the archive that was predicted.

    told: What `data.index` says of its ids.

    Raises:
        DataError: Another archive lies there now.
    """
    trained = predicted.trained
    reader = applied_index(located_data(trained.config)["index"], told)
    builder = trained.make("data.index", reader)
    index: Index = open_index(builder, root, cache_root=cache)
    if index_hash(index.table) != predicted.frame.attrs.get("index_hash"):
        raise DataError(
            f"{root} holds another archive than the one that was predicted; name that one's "
            "folder with data.root=DIR"
        )
    images = index.table[index.table["split"] == "test"].copy()
    images.attrs["row_unit"] = index.info.row_unit
    return images


def _folder_images(root: Path, config: Mapping[str, Any]) -> pd.DataFrame:
    """The images of a plain folder, named as `isic.index.unlabelled` names them."""
    names, _ = image_names(root)
    columns: dict[str, Any] = {"image_id": safe_ids(names), "image": names, "lesion_id": pd.NA}
    table = pd.DataFrame(columns).astype("string")
    views = config["data"].get("views")
    return table.assign(view=views[0]) if views else table
