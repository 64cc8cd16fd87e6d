"""`predict.py stack=runs/S`: image models -> features -> stackers, of one test set in one command.

What a code competition's hidden test asks: decode, every image run of the stack, the features of
the metadata, the stackers, the submission; nothing is fetched. Images stream; tables are in memory.
Unit: row = test sample. Whatever is not there is said before the first image is decoded.
Trap: within-patient features, ranks of `combine=rank_mean` and the patient's mean score are made of
the rows that are given together: predict a test set as a whole.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isic.assemble import check_sample
from isic.code_hash import warn_edited
from isic.config.inference import applied_index
from isic.config.paths import located_data
from isic.config.stored import Stored
from isic.config.targets import targets_of
from isic.engine.build import quiet
from isic.engine.inference import find_checkpoints, predict_checkpoint
from isic.engine.results import write_results
from isic.engine.trained import data_of, overrides, stored_config
from isic.errors import ConfigError, DataError, IsicError, first_five, one_line
from isic.features.family import Family
from isic.features.image_scores import input_status, shared_scores, with_scores
from isic.identity import read_config
from isic.index.schema import Index, sample_rows
from isic.index.unread_cells import refuse_unread
from isic.predictions import ensemble, read_predictions
from isic.predictions.fitted import Fitted
from isic.predictions.origin import with_images
from isic.predictions.table import prob_columns
from isic.prepare import open_index
from isic.stack.feature_inputs import applied_inputs, needed_columns
from isic.stack.manifest import MANIFEST, Stack, check_applied, open_stack
from isic.stack.scores import content_hash
from isic.training.checkpoint import read

log = logging.getLogger(__name__)

PLAIN = {"split": "test", "combine": "mean", "images": None}


@dataclass(frozen=True, eq=False)
class Parts:
    """A stack and what it stands on: checkpoints of its image runs, stacks among its runs."""

    stack: Stack
    checkpoints: Mapping[str, list[Path]]
    stacks: Mapping[str, "Parts"]

    def all_checkpoints(self) -> list[Path]:
        """Of this stack and those below it."""
        below = [path for part in self.stacks.values() for path in part.all_checkpoints()]
        return [path for paths in self.checkpoints.values() for path in paths] + below


@dataclass(frozen=True, eq=False)
class Archive:
    """The rows to predict."""

    index: Index
    root: Path


def predict_stack(config: Mapping[str, Any]) -> str:
    """Predict the test rows with a stack; returns the folder of the results.

    Raises:
        ConfigError: An option that only image models have.
        DataError, CheckpointError: A stack, run or checkpoint that is not there or not finished.
    """
    for key, only in PLAIN.items():
        if config[key] != only:
            raise ConfigError(f"{key}: with stack= expected {only}, got {config[key]!r}")
    if config["ckpt"] != "???":
        raise ConfigError("ckpt: a stack names its image runs itself; give stack= or ckpt=")
    quiet()
    runs = Path(config["paths"]["runs"])
    parts = open_parts(find_stack(str(config["stack"]), runs=runs), config)
    metrics = stored_stack(parts.stack, config).make("metrics.functions")
    fitted = _fitted(parts.stack, config)
    about = parts.stack.about
    archive = open_archive(parts.stack, config)
    check_sample(archive.index, by_images=False)
    frame = predict_parts(parts, archive, config)
    record = {
        "config": {"name": about["name"], "metrics": about["metrics"]},
        "split_hash": about["split_hash"],
        "index_hash": about["index_hash"],
        "config_file": parts.stack.folder / "config.yaml",
        "ranks": about["ranks"],
    }
    checkpoints = parts.all_checkpoints()
    return write_results(frame, archive, record, config, checkpoints, fitted, metrics=metrics)


def find_stack(given: str, *, runs: Path) -> Path:
    """The folder of a stack: a path, or a name under `runs`."""
    for folder in (Path(given), runs / given):
        if (folder / MANIFEST).is_file():
            return folder.resolve()
    raise DataError(
        f"stack: expected a folder with {MANIFEST}, got {given!r} (also looked under "
        f"{runs.resolve()}); make one with python -m isic stack"
    )


def open_parts(folder: Path, config: Mapping[str, Any], above: tuple[Path, ...] = ()) -> Parts:
    """Open a stack and find everything below it, beside it in the runs root.

    above: Stacks that this one is a run of.

    Raises:
        DataError: A run that is gone, or a stack below itself.
        CheckpointError: A run that is not finished, or a file that names code of its own.
    """
    stack = open_stack(folder)
    check_applied(stack)
    stored_stack(stack, config).check()
    if (file := folder / "config.yaml").is_file():  # a stack can be moved without it
        warn_edited(folder, read_config(file))
    checkpoints: dict[str, list[Path]] = {}
    stacks: dict[str, Parts] = {}
    for entry in stack.about["runs"]:
        run = folder.parent / entry["run"]
        if not run.is_dir():
            raise DataError(
                f"{folder} was fitted on run {entry['run']}, which is not at {run}; put it there, "
                "with its checkpoints"
            )
        if run in (*above, folder):
            raise DataError(f"{folder / MANIFEST} names {run.name}, which it is itself a run of")
        refuse_changed(run, entry["hash"], folder)
        if (run / MANIFEST).is_file():
            stacks[entry["run"]] = open_parts(run, config, (*above, folder))
            continue
        checkpoints[entry["run"]] = find_checkpoints(str(run))
        if absent := [p for p in checkpoints[entry["run"]] if not p.is_file()]:
            raise DataError(f"checkpoints of run {entry['run']} are gone: {absent[0]}")
        for path in checkpoints[entry["run"]]:
            stored_config(path, read(path)["isic"], config, overridden=overrides(config))
    return Parts(stack, checkpoints, stacks)


def refuse_changed(run: Path, wanted: str, stack: Path) -> None:
    """Raise DataError where a run's out-of-fold predictions, if there, are not those of the fit."""
    path = run / "oof.parquet"
    if path.is_file() and content_hash(read_predictions(path)) != wanted:
        raise DataError(f"{run} is not as {stack} was fitted on it; fit the stack again")


def stored_stack(stack: Stack, config: Mapping[str, Any]) -> Stored:
    """Return the parts of a manifest that become objects: families, reader, metrics."""
    plain = {key: stack.about[key] for key in ("families", "data", "metrics")}
    source = str(stack.folder / MANIFEST)
    return Stored(plain, source, bool(config["trust"]), targets_of(config))


def open_archive(stack: Stack, config: Mapping[str, Any]) -> Archive:
    """The archive that the stack was fitted on, or another download of it at `data.root`."""
    data = located_data(stack.about)
    root = Path(config["data"]["root"] or data["root"])
    cache = Path(config["paths"]["cache"]).resolve()
    reader = applied_index(data["index"], config["data"].get("index"))
    builder = stored_stack(stack, config).make("data.index", reader)
    index = open_index(builder, root, cache_root=cache)
    if tuple(index.info.classes) != tuple(stack.about["classes"]):
        raise DataError(
            f"{stack.folder} has the classes {', '.join(stack.about['classes'])}, the archive at "
            f"{root} {', '.join(index.info.classes)}"
        )
    if not (index.table["split"] == "test").any():
        raise DataError(f"{root.resolve()} has no test rows to predict")
    return Archive(index, root)


def predict_parts(
    parts: Parts,
    archive: Archive,
    config: Mapping[str, Any],
    done: dict[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """The predictions table of a stack, its runs first.

    done: Tables of runs so far, by name; a run that two stacks name is decoded once.
    """
    stack, done = parts.stack, {} if done is None else done
    samples = sample_rows(archive.index)
    rows = samples[samples["split"] == "test"].reset_index(drop=True)
    families: dict[str, Family] = stored_stack(stack, config).make("families")
    used = needed_columns(families, rows)
    refuse_unread(archive.index, used, key=f"features of {stack.folder.name}")
    names = [entry["run"] for entry in stack.about["runs"]]
    for name in names:
        if name in done:
            continue
        if name in parts.stacks:
            done[name] = predict_parts(parts.stacks[name], archive, config, done)
        else:
            done[name] = _image_run(parts.checkpoints[name], stack, config)
    tables = {name: done[name] for name in names}
    status = np.full(len(rows), "ok", dtype=object)  # of features that need no image
    if tables:
        _say_shared_columns(stack)
        rows = with_scores(rows, tables)
        status = input_status(rows["image_id"], tables)
    try:
        inputs = applied_inputs(
            families, rows, stack.states, stack.about["columns"], info=archive.index.info
        )
    except (LookupError, TypeError, ValueError, AttributeError) as fault:
        if isinstance(fault, IsicError):
            raise
        raise DataError(
            f"{stack.folder}: its features cannot be made: {one_line(fault)}; fit the stack again"
        ) from fault
    log.info("stack   %s, %d models, %d rows", stack.folder.name, len(stack.models), len(rows))
    probs = stack.predict(inputs, n_jobs=len(os.sched_getaffinity(0)))
    frame = rows[["image_id", "lesion_id", "split"]].copy()
    frame["fold"], frame["status"] = -2, status
    frame = with_images(frame, rows, archive.index)
    readable = (status == "ok")[:, None]
    frame[prob_columns(stack.about["classes"])] = np.where(readable, np.clip(probs, 0, 1), np.nan)
    return frame


def _say_shared_columns(stack: Stack) -> None:
    """Warn of a stack of an earlier release whose classes swallowed each other."""
    classes = stack.about["classes"]
    if "scores" not in stack.about and len(classes) > 2 and (shared := shared_scores(classes)):
        log.warning(
            "%s was fitted by an earlier release, which gave the scores of %s one column: it knows "
            "the last of them alone; fit the stack again",
            *(stack.folder.name, first_five(shared)),
        )


def _image_run(checkpoints: list[Path], stack: Stack, config: Mapping[str, Any]) -> pd.DataFrame:
    """Mean of an image run's folds on the test rows."""
    frames = []
    for path in checkpoints:
        log.info("predicting with %s", path)
        record = read(path)["isic"]
        if (split_hash := record.get("split_hash")) != stack.about["split_hash"]:
            raise DataError(
                f"{path} was trained on split {split_hash}, {stack.folder} was fitted on "
                f"{stack.about['split_hash']}: the run was trained anew; fit the stack again"
            )
        given = {**config, "data": {**config["data"], "root": _root(stack, config)}}
        stored = stored_config(path, record, given, overridden=overrides(given))
        frames.append(predict_checkpoint(path, data_of(stored, record, given), record, given))
    return ensemble(frames) if len(frames) > 1 else frames[0]


def _root(stack: Stack, config: Mapping[str, Any]) -> str:
    """Where the archive lies, the same for every run."""
    return str(config["data"]["root"] or located_data(stack.about)["root"])


def _fitted(stack: Stack, config: Mapping[str, Any]) -> Fitted | None:
    """What was fitted on the stack's out-of-fold rows; None where nothing asks for it."""
    asked = [k for k in ("calibrate", "decide", "unknown") if config[k] != "none"]
    if not asked:
        return None
    if stack.about["ranks"]:
        raise ConfigError(
            f"{asked[0]}={config[asked[0]]}: {stack.folder.name} gives ranks, no probabilities"
        )
    return Fitted.read(stack.folder)
