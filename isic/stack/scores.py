"""Image runs (or earlier stacks) read as inputs: checked against archive, split and test rows.

A run gives `prob_<class>` of every sample: out of fold for train rows, the mean of its folds for
test rows. Source: `runs/<name>/fold<k>/oof.parquet` and `test.parquet`.
Trap: a run trained on another split file predicts rows that its own models saw in this one's
training; it is refused by the hash, however alike the files look.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.index.schema import Index, index_hash, sample_rows
from isic.predictions import assemble_oof, probabilities, read_predictions, read_score
from isic.predictions.scorecard import SELECTED
from isic.predictions.table import prob_columns
from isic.split.options import Split
from isic.stack.leaks import check_folds_alike

log = logging.getLogger(__name__)


def find_run(name: str, *, runs_root: Path) -> Path:
    """The folder of a run given by name or path. Raises ConfigError where there is none."""
    for folder in (runs_root / name, Path(name)):
        if folder.is_dir():
            return folder.resolve()
    found = [*runs_root.glob("*/oof.parquet"), *runs_root.glob("*/fold*")]
    there = sorted({p.parent.name for p in found})
    raise ConfigError(
        f"runs: no run {name} under {runs_root.resolve()}; there are {first_five(there) or 'none'}"
    )


def read_oof(run: Path, *, archive: str, split: Split, classes: Sequence[str]) -> pd.DataFrame:
    """The out-of-fold predictions of a run, every row that validates once.

    Raises:
        DataError: Gaps, overlaps, another archive, split or set of classes.
    """
    frame = assemble_oof(run)
    made, wanted = frame.attrs["index_hash"], archive
    if made != wanted:
        raise DataError(
            f"{run} was trained on another archive: its rows have hash {made}, these {wanted}; "
            "check data= and data.root, or train it on these rows"
        )
    if frame.attrs["split_hash"] != split.hash:
        raise DataError(
            f"{run} was trained on the folds of {frame.attrs['split_file']} "
            f"({frame.attrs['split_hash']}), this stack would use {split.path} ({split.hash}): "
            "give the folds= and split.* keys of that training, or split.file=FILE"
        )
    if tuple(frame.attrs["classes"]) != tuple(classes):
        raise DataError(
            f"{run} has the classes {', '.join(frame.attrs['classes'])}, the archive "
            f"{', '.join(classes)}"
        )
    return frame


def read_test(run: Path, samples: pd.DataFrame) -> pd.DataFrame | None:
    """The test predictions of a run for the test samples; None where it made none.

    Raises:
        DataError: Predictions of other rows.
    """
    path = run / "test.parquet"
    if not path.exists():
        log.warning("%s has no test.parquet: the stack predicts no test rows", run)
        return None
    frame = read_predictions(path)
    odd = set(frame["image_id"]) ^ set(samples["image_id"])
    if odd:
        raise DataError(
            f"{path} and the test rows of the archive differ in {len(odd)} ids: "
            f"{first_five(sorted(odd))}; predict these rows with that run again"
        )
    return frame


def content_hash(frame: pd.DataFrame) -> str:
    """Hash ids and probabilities, so that a run trained anew is another input. Twelve digits."""
    ordered = frame.sort_values("image_id")
    digest = hashlib.blake2b("\n".join(ordered["image_id"]).encode(), digest_size=6)
    digest.update(ordered[prob_columns(frame.attrs["classes"])].to_numpy("float64").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class ImageRuns:
    """What image runs say of the rows of a stack, by the run's name.

    tables: Out-of-fold and test predictions in one table.
    folders: Where each run lies.
    hashes: Of the out-of-fold predictions.
    test: Whether every run predicted the test rows.
    warnings: What the runs' own scores must be read with, each behind the run's name.
    selected_on_validation: Whether one of them chose its epoch by the rows that are scored.
    """

    tables: dict[str, pd.DataFrame]
    folders: dict[str, Path]
    hashes: dict[str, str]
    test: bool
    warnings: tuple[str, ...]
    selected_on_validation: bool


def read_runs(
    names: Sequence[str],
    *,
    index: Index,
    split: Split,
    runs_root: Path,
    on_leak: str = "error",
) -> ImageRuns:
    """Read and check the runs of a stack.

    Raises:
        ConfigError: A run that is not there, or twice.
        DataError: Predictions that do not fit, or a fold that knows its labels.
    """
    folders: dict[str, Path] = {}
    for name in [names] if isinstance(names, str) else names:
        folder = find_run(str(name), runs_root=runs_root)
        if folder.name in folders:
            raise ConfigError(f"runs: {folder.name} is named twice")
        folders[folder.name] = folder
    known, classes = index_hash(index.table), index.info.classes
    oof = {
        name: read_oof(folder, archive=known, split=split, classes=classes)
        for name, folder in folders.items()
    }
    if oof:
        _check_leaks(oof, index, on_leak=on_leak)
    samples = sample_rows(index)
    rows = samples[samples["split"] == "test"]
    tests = {name: read_test(folder, rows) for name, folder in folders.items()} if len(rows) else {}
    whole = len(rows) > 0 and all(frame is not None for frame in tests.values())
    tables = {
        name: pd.concat([frame, tests[name]], ignore_index=True) if whole else frame
        for name, frame in oof.items()
    }
    hashes = {name: content_hash(frame) for name, frame in oof.items()}
    said, selected = _inherited(folders)
    return ImageRuns(tables, folders, hashes, whole, said, selected)


def _inherited(folders: Mapping[str, Path]) -> tuple[tuple[str, ...], bool]:
    """Warnings of the runs' scores, and whether one of them is flattered by its own choice.

    Of a run whose folds were not put together, the scores of its folds.
    """
    said, selected = dict[str, None](), False
    for name, folder in folders.items():
        whole = folder / "score.json"
        files = [whole] if whole.exists() else sorted(folder.glob("fold*/score.json"))
        for one in [read_score(file, also=SELECTED) for file in files]:
            said |= dict.fromkeys(f"{name}: {text}" for text in one.get("warnings", []))
            selected |= bool(one["selected_on_validation"])
    return tuple(said), selected


def _check_leaks(oof: Mapping[str, pd.DataFrame], index: Index, *, on_leak: str) -> None:
    """Every run's folds against each other."""
    first = next(iter(oof.values()))
    target = index.table.set_index("image_id")["target"].reindex(first["image_id"])
    labels = np.asarray(target.astype("Int64").fillna(-1), dtype=np.int64)
    check_folds_alike(
        {name: probabilities(frame) for name, frame in oof.items()},
        labels,
        first["fold"].to_numpy(dtype=np.int64),
        index.info.classes,
        on_leak=on_leak,
    )
