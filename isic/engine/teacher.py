"""What finished runs say of the rows that a student learns from: `distill.teacher`.

Where the teacher stands on the student's split, `distill.labels` says which of its folds speak:
  own_fold     the one that holds out what the student holds out. It trained on the student's
               training rows, those of every fold (-2) too, and tells nothing of the others.
  out_of_fold  for each row the one that did not train on it; a row of every fold has no soft label
               and keeps its hard one alone. Where every row trains (fold=all) it is always this.
Elsewhere the teacher never saw the rows, and all its folds predict them. Of several teachers the
probabilities are averaged. They are computed once and kept in `<cache>/teachers/`.

Trap: the folds behind out-of-fold labels trained on the rows that a student of one fold holds out,
and it learns what they learnt: of random labels, five folds, 500 rows and 100 features a linear
student has an AUC of 0.70 on them, with labels of its own fold 0.5 (tests/test_distill.py). The
score of such a run says so. Another split of the same rows is refused: it would leak as well.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray

from isic.config.loss import chosen_loss
from isic.config.targets import targets_of
from isic.data import LesionDataModule
from isic.engine.build import quiet
from isic.engine.described import Described
from isic.engine.inference import find_checkpoints, lone_trainer, predict_rows
from isic.engine.soft_labels import keep_labels, kept_labels
from isic.engine.trained import NUMBERED, fold_config, kept_split, seen_by, stored_config
from isic.errors import CheckpointError, ConfigError, DataError, first_five
from isic.files import waiting_lock
from isic.index.schema import archive_hash, index_hash
from isic.predictions import assemble_oof
from isic.split.split_file import TRAINS, read_split
from isic.training.checkpoint import load, read, require
from isic.training.distill import KEY, teacher_logits
from isic.training.hardware import TrainerOptions

log = logging.getLogger(__name__)

Probs = NDArray[np.float64]


@dataclass(frozen=True)
class Teacher:
    """A finished run: its folder, the checkpoint of each fold, and what the first one records."""

    run: Path
    checkpoints: Mapping[int | str, Path]
    record: Mapping[str, Any]

    @property
    def folds(self) -> list[Path]:
        """The folders of its folds."""
        return [path.parent.parent for path in self.checkpoints.values()]


def open_teachers(given: str | Sequence[str] | None, *, runs: Path) -> list[Teacher]:
    """Finished runs by folder, or by name under `runs`.

    Raises:
        ConfigError: None is named.
        CheckpointError: A run that is not there, or of which a fold is not finished.
    """
    names = [given] if isinstance(given, str) else list(given or ())
    if not names or "" in names:
        raise ConfigError("distill.teacher: expected a run, got none: distill.teacher=NAME")
    return [_opened(name, runs) for name in names]


def _opened(name: str, runs: Path) -> Teacher:
    run = Path(name) if Path(name).exists() else runs / name
    if not run.is_dir():
        raise CheckpointError(
            f"distill.teacher: expected the folder of a finished run, or its name under "
            f"{runs.resolve()}, got {name!r}"
        )
    found: dict[int | str, Path] = {}
    for path in find_checkpoints([str(run)], key="distill.teacher"):
        config = fold_config(path.parent.parent, "distill.teacher")
        found[config["fold"]] = path
    if "all" not in found:
        config = fold_config(path.parent.parent, "distill.teacher", NUMBERED)
    needed = [] if "all" in found else range(config["n_folds"])
    if absent := [str(k) for k in needed if k not in found]:
        raise CheckpointError(
            f"distill.teacher: {run.resolve()} lacks fold {', '.join(absent)} of "
            f"{config['n_folds']}; train fold={','.join(absent)} of it first, and name the run"
        )
    record = read(path)["isic"]
    require(path, record, "split_hash", "index_hash", "split_file")
    return Teacher(run, found, record)


def teachers_hash(teachers: Sequence[Teacher]) -> str:
    """Hash of the weights and out-of-fold tables of all folds. Twelve hex digits.

    What `python -m isic runs --clean` drops of a checkpoint is not in it.
    """
    parts = []
    for teacher in teachers:
        for fold, path in teacher.checkpoints.items():
            files = [f for f in (path, path.parent.parent / "oof.parquet") if f.exists()]
            stats = [(f, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
            parts += [str(fold), *(_content_hash(*stat) for stat in stats)]
    return _hash(parts)


@lru_cache
def _content_hash(path: Path, size: int, mtime_ns: int) -> str:
    """Of a table's bytes, or a checkpoint's weights; asked for twice in a command."""
    if path.suffix != ".ckpt":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    digest = hashlib.blake2b()
    for name, tensor in read(path)["state_dict"].items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash(parts: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()


def check_teacher(teacher: Teacher, data: Described) -> None:
    """Raise ConfigError for other classes, or another split of rows that the student has."""
    theirs, ours = tuple(teacher.record["classes"]), data.index.info.classes
    if theirs != ours:
        raise ConfigError(
            f"distill.teacher: {teacher.run} knows the classes {', '.join(theirs)}, the student "
            f"{', '.join(ours)}: they must be the same, in the same order"
        )
    if teacher.record["split_hash"] == data.split.hash:
        return
    rows = set(data.split.table["image_id"]) | set(data.split.held_out["image_id"])
    named = teacher.record["split_file"]
    shared = sorted(rows & set(_split_of(teacher)["image_id"]))
    if shared or teacher.record["index_hash"] == index_hash(data.index.table):
        raise ConfigError(
            f"distill.teacher: {teacher.run} was trained on another split ({named}, hash "
            f"{teacher.record['split_hash']}) of rows that the student has ({data.split.path}, "
            f"hash {data.split.hash}): {first_five(shared)}. Its soft labels would tell of rows "
            "that the student holds out; train both on one split (split.file=...)."
        )


def _split_of(teacher: Teacher) -> pd.DataFrame:
    """The rows of the split that a teacher was trained on."""
    if path := kept_split(teacher.record, runs=teacher.run.resolve().parent):
        return read_split(path)
    raise DataError(
        f"distill.teacher: the split file of {teacher.run}, {teacher.record['split_file']} with "
        f"hash {teacher.record['split_hash']}, is gone or has changed; restore it from a copy"
    )


def teach(config: Mapping[str, Any], data: LesionDataModule) -> None:
    """Give the training batches of `data` the teacher's logits, where a teacher is named.

    Raises:
        ConfigError: No training row has a soft label.
    """
    if not config.get("distill"):
        return
    names = config["distill"]["teacher"]
    teachers = open_teachers(names, runs=Path(config["paths"]["runs"]))
    for teacher in teachers:
        if "config" in teacher.record:
            stored_config(teacher.run, teacher.record, config)
    probs = soft_labels(config, data, teachers)
    use = data.positions["train"]
    known = np.isfinite(probs[use]).all(axis=1)
    everywhere = (data.train_rows.table["fold"].to_numpy()[use] == TRAINS) & ~known
    log.info(
        "teacher %s: soft labels for %d of %d training rows; hard labels alone for %d that "
        "trained every fold of it, and for %d that it could not read",
        names if isinstance(names, str) else ", ".join(names),
        *(known.sum(), len(use), everywhere.sum(), (~known & ~everywhere).sum()),
    )
    if not known.any():
        raise ConfigError(
            f"distill.teacher: {names} has a soft label for none of {len(use)} training rows: all "
            "of them trained it; name a run of folds"
        )
    objective = instantiate(chosen_loss(config["loss"], data.index.info))
    data.train_columns[KEY] = teacher_logits(probs, objective.activation)
    data.cautions = _cautions(config, teachers, data)


def _own_fold(config: Mapping[str, Any], data: LesionDataModule) -> int | None:
    """The teacher's fold that speaks for this student's split; None: each of its own rows."""
    if config["distill"]["labels"] == "out_of_fold":
        return None
    return None if data.fold == "all" else int(data.fold)


def _same_split(teacher: Teacher, data: LesionDataModule) -> bool:
    return bool(teacher.record["split_hash"] == data.split.hash)


def _cautions(
    config: Mapping[str, Any], teachers: Sequence[Teacher], data: LesionDataModule
) -> list[str]:
    """What the student's held-out score is to be read with."""
    told = [t for t in teachers if _same_split(t, data)]
    if data.fold == "all" or _own_fold(config, data) is not None or not told:
        return []
    return [
        f"soft labels are of folds of {first_five(t.run.name for t in told)} that trained on the "
        "rows scored here: the score is too good; take distill.labels=own_fold"
    ]


def soft_labels(
    config: Mapping[str, Any], data: LesionDataModule, teachers: Sequence[Teacher]
) -> Probs:
    """Mean probabilities (N, C) for each of `data.train_rows`; NaN where no teacher has any."""
    ids = data.train_rows.table["image_id"]
    same = any(_same_split(t, data) for t in teachers)
    own = _own_fold(config, data) if same else None  # elsewhere all folds share one table
    if same and own is None and config["distill"]["labels"] == "own_fold":
        log.info("distill.labels: fold=all holds nothing out; soft labels are out of fold")
    content = [teachers_hash(teachers), archive_hash(data.index), data.split.hash, f"fold {own}"]
    key = _hash([*content, *ids])
    path = Path(config["paths"]["cache"]).resolve() / "teachers" / f"{key}.parquet"
    with waiting_lock(path.with_suffix(".lock"), "asking the teacher"):
        table = kept_labels(path)
        if table is None:
            each = np.stack([_probs_of(t, config, data, own=own) for t in teachers])
            known = np.isfinite(each)
            with np.errstate(invalid="ignore"):
                mean = np.where(known, each, 0).sum(axis=0) / known.sum(axis=0)
            table = pd.DataFrame(mean, columns=list(data.index.info.classes), index=ids)
            keep_labels(path, table)
            log.info("teacher: wrote %s", path)
    return table[list(data.index.info.classes)].to_numpy(np.float64)


def _probs_of(
    teacher: Teacher, config: Mapping[str, Any], data: LesionDataModule, *, own: int | None
) -> Probs:
    """One teacher's probabilities (N, C); NaN of one that trained on every row of this split.

    own: Its fold that speaks, where it stands on the student's split.
    """
    ids, columns = data.train_rows.table["image_id"], [f"prob_{c}" for c in data.index.info.classes]
    same = _same_split(teacher, data)
    if same and "all" in teacher.checkpoints:
        return np.full((len(ids), len(columns)), np.nan)
    if not same or own is not None:
        asked = [path for fold, path in teacher.checkpoints.items() if not same or fold == own]
        frames = _predicted(asked, config, data)
        every = np.stack([f[columns].to_numpy(np.float64) for f in frames])
        return np.asarray(every.mean(axis=0))
    oof = assemble_oof(teacher.folds).set_index("image_id")
    return oof[columns].reindex(ids).to_numpy(np.float64)


def _predicted(
    checkpoints: Sequence[Path], config: Mapping[str, Any], data: LesionDataModule
) -> list[pd.DataFrame]:
    """Predictions of every row that the student may train on, by some folds of a teacher."""
    quiet()
    options: TrainerOptions = instantiate(config["trainer"])
    frames = []
    for path in checkpoints:
        log.info("teacher: predicting with %s", path)
        own = seen_by(path, read(path)["isic"], config)
        rows = own.rows_of(data.train_rows.table)
        trust, named = bool(config.get("trust")), targets_of(config)
        classifier = load(path, classes=data.index.info.classes, trust=trust, named=named)
        options.lay_out(classifier.network)
        every = np.arange(len(rows.table))
        frames.append(
            predict_rows(lone_trainer(options), classifier, own, rows, every, fold=TRAINS)
        )
    return frames
