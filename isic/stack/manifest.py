"""A stack on disk: `stack.json`, its models as text, what its features learned; opened and applied.

| file under `runs/<name>/` | what it is |
|---|---|
| `stack.json` | classes, image runs, families, columns, how models are combined, a hash a file |
| `models/<stacker>-fold<k>-seed<s>.{txt,json}` | one model in its library's text format |
| `models/features-fold<k>.json` | what the families that learn took from the fold's training rows |

Image runs are named relative to the runs root, so that a folder of runs can be moved as a whole.
Trap: a model file that was replaced, or cut short, would give other numbers: hashes are checked.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.checksums import sealed_json
from isic.config.shapes import ARCHIVE, PLACES, check_plain, check_shape, read_stored
from isic.errors import DataError, IsicError, first_five, one_line
from isic.files import write_text
from isic.stack.combine import Mean
from isic.stack.cross_fit import Task
from isic.stack.fitted import SUFFIX, Fitted, from_text
from isic.stack.inputs import Fold, FoldInputs

VERSION = 1
MANIFEST = "stack.json"

Floats = npt.NDArray[np.float64]

BESIDE = re.compile(r"(?!\.{1,2}$)[^/\x00]+")  # a name that leads nowhere else
WITHIN = re.compile(r"models/(?!\.{1,2}$)[^/\x00]+")
DIGEST = re.compile(r"[0-9a-f]{64}")
FOLD = (range(10_000), {"all"})
APPLIED = {
    "name": str,
    "ranks": bool,
    "runs": [{"run": BESIDE, "hash": str}],
    "families": {str: {"_target_": str}},
    "data": ARCHIVE,
    "paths?": PLACES,
    "metrics": {"functions": {str: {"_target_": str}}},
    "index_hash": str,
    "split_hash": str,
}
"""What `predict.py stack=` reads beside the models."""
SHAPE = {
    "version": int,
    "classes": [str],
    "combine": {"mean", "rank_mean"},
    "columns": {str: [str]},
    "features": {str: {"file": WITHIN, "sha256": DIGEST}},
    "models": [
        {
            "file": WITHIN,
            "kind": set(SUFFIX),
            "stacker": str,
            "fold": FOLD,
            "seed": int,
            "codes": [range(100_000)],
            "sha256": DIGEST,
        }
    ],
}
"""What a stack predicts with, once it has its features."""
MEND = "Fit the stack again, or take the file from where it was made"


@dataclass(frozen=True, eq=False)
class Stack:
    """A saved stack, opened.

    about: The plain contents of `stack.json`.
    models: Those that are applied: of the folds, or of the refit where there is one.
    states: Fold -> family -> what it learned.
    """

    folder: Path
    about: Mapping[str, Any]
    models: Mapping[Task, Fitted]
    states: Mapping[Fold, Mapping[str, Any]]

    @property
    def folds(self) -> list[Fold]:
        """Whose models are applied."""
        return list(dict.fromkeys(task.fold for task in self.models))

    def predict(self, inputs: Mapping[Fold, FoldInputs], *, n_jobs: int = 1) -> Floats:
        """Combined probabilities, or ranks, (N, C).

        inputs: Features of the rows, a set a fold of `folds`.

        Raises:
            DataError: Other columns than the models were fitted on.
        """
        for fold in self.folds:
            wanted, got = tuple(self.about["columns"][str(fold)]), inputs[fold].columns
            if wanted != got:
                absent = [c for c in wanted if c not in got]
                raise DataError(
                    f"{self.folder} was fitted on other features, these rows lack: "
                    f"{first_five(absent) or 'none, but the order differs'}"
                )
        n_rows = len(inputs[self.folds[0]].parts[0])
        mean = Mean(self.about["combine"], (n_rows, len(self.about["classes"])))

        def one(task: Task) -> Floats:
            try:
                return self.models[task].predict_rows(inputs[task.fold], np.arange(n_rows))
            except IsicError:
                raise
            except Exception as fault:  # what its library, or a shape of another model, says
                raise DataError(
                    f"{self.folder}: {task.stacker} of fold {task.fold} cannot predict: "
                    f"{one_line(fault)}; fit the stack again"
                ) from fault

        with ThreadPoolExecutor(max(n_jobs, 1)) as pool:
            for probs in pool.map(one, self.models):
                mean.add(probs)
        return mean.value


def save_stack(
    folder: Path,
    models: Mapping[Task, Fitted],
    *,
    columns: Mapping[Fold, Sequence[str]],
    states: Mapping[Fold, Mapping[str, Any]],
    about: Mapping[str, Any],
) -> Path:
    """Write models and states, then `stack.json`, which makes them a stack.

    columns: That the models of a fold were fitted on.
    about: What else an application needs: name, classes, combine, runs, families, ...

    Raises:
        DataError: A stacker without a text format.
    """
    entries = []
    for task, model in models.items():
        file = f"models/{task.stacker}-fold{task.fold}-seed{task.seed}{SUFFIX.get(model.kind, '')}"
        entries.append(
            {
                "file": file,
                "kind": model.kind,
                "stacker": task.stacker,
                "fold": task.fold,
                "seed": task.seed,
                "codes": list(model.codes),
                "sha256": _write(folder / file, model.to_text()),
            }
        )
    learned = {}
    for fold, state in states.items():
        file = f"models/features-fold{fold}.json"
        learned[str(fold)] = {
            "file": file,
            "sha256": _write(folder / file, json.dumps(state, allow_nan=True) + "\n"),
        }
    manifest = {
        "version": VERSION,
        **about,
        "columns": {str(fold): list(names) for fold, names in columns.items()},
        "features": learned,
        "models": entries,
    }
    write_text(folder / MANIFEST, sealed_json(manifest, indent=1))
    return folder / MANIFEST


def read_manifest(folder: Path) -> dict[str, Any]:
    """The plain contents of a stack's manifest.

    Raises:
        DataError: There is none, one of another version, or one that lacks a part or misshapes it.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise DataError(
            f"no stack in {Path(folder).resolve()}: expected {MANIFEST}; make one with "
            "python -m isic stack data=DATA runs=[NAME]"
        )
    about = read_stored(path, {"version": int}, mend=MEND)
    if about["version"] != VERSION:
        raise DataError(f"{path} has version {about['version']}, this code reads {VERSION}")
    about = read_stored(path, SHAPE, mend=MEND)
    _check_numbers(about, path)
    return about


def check_applied(stack: Stack) -> None:
    """Raise DataError where a manifest lacks what its features are made of."""
    path = stack.folder / MANIFEST
    _ = read_stored(path, APPLIED, mend=MEND)


def _check_numbers(about: Mapping[str, Any], path: Path) -> None:
    """Refuse models of folds or classes that the rest of the manifest does not know."""
    if not about["models"]:
        raise DataError(f"{path}: models: expected one or more, got none; fit the stack again")
    for i, entry in enumerate(about["models"]):
        for key in ("columns", "features"):
            if str(entry["fold"]) not in about[key]:
                raise DataError(
                    f"{path}: {key}.{entry['fold']} is absent, and models.{i} is of that fold; "
                    "fit the stack again"
                )
        if max(entry["codes"], default=0) >= len(about["classes"]):
            raise DataError(
                f"{path}: models.{i}.codes: expected classes 0 to {len(about['classes']) - 1}, "
                f"got {entry['codes']}; fit the stack again"
            )


def open_stack(folder: Path) -> Stack:
    """Read a stack: the refit models where it has them, else those of the folds.

    Raises:
        DataError: No stack, a file gone or changed.
    """
    about = read_manifest(folder)
    refitted = [e for e in about["models"] if e["fold"] == "all"]
    models = {
        Task(e["stacker"], e["fold"], e["seed"]): from_text(
            e["kind"],
            _read(folder / e["file"], e["sha256"]),
            codes=tuple(e["codes"]),
            n_classes=len(about["classes"]),
        )
        for e in refitted or about["models"]
    }
    states = {
        task.fold: _learned(folder / entry["file"], entry["sha256"])
        for task in models
        for entry in [about["features"][str(task.fold)]]
    }
    return Stack(Path(folder), about, models, states)


def _write(path: Path, text: str) -> str:
    """Write a text file; its sha256."""
    write_text(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _learned(path: Path, digest: str) -> dict[str, Any]:
    """Read what the families of a fold learned. Raises DataError where it has another shape."""
    try:
        plain: dict[str, Any] = json.loads(_read(path, digest))
        check_plain(plain)
        check_shape(plain, {str: {"categories?": {str: [object]}}})
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{path} cannot be used: {one_line(fault)}. {MEND}") from None
    return plain


def _read(path: Path, digest: str) -> str:
    """Read a file that must still be as it was written."""
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise DataError(
            f"{path} of the stack is gone ({fault}); a sweep keeps the models of its best trials "
            "alone (keep_weights). Fit the stack again"
        ) from fault
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{path} changed since the stack was made; fit the stack again")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text. {MEND}") from None
