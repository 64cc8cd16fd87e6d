"""A predictions table with targets -> the numbers of `score.json` and the line people read.

`score.json`: `{"metrics": {name: {"value", "low", "high"}}, "n", "interval_over"}` and whatever the
run adds (seconds, memory, `warnings`). Intervals resample patients, else lesions, else images, and
say which. A metric has its `chance` level too where that is not plain (`isic.metrics.chance`), and
the `classes` that it averages where these are not all, and the share of resamples that left it
`undefined`, of which the interval knows nothing; `few` are classes of fewer than `FEW`
patients (lesions, images), whose part in an interval hardly varies. Earlier files lack these.
Unreadable images are scored with the fallback a submission would use, never left out.
The trap: a metric that is undefined (one class only) is null with its `reason`, not 0.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isic.checksums import sealed_json
from isic.config.shapes import read_stored
from isic.errors import DataError, first_five
from isic.files import write_text
from isic.metrics import Metric
from isic.metrics.bootstrap import bootstrap_replicates, paired_interval, percentiles
from isic.metrics.chance import chance_level
from isic.metrics.classification import averaged_classes
from isic.metrics.inputs import Floats, Ints, score_of
from isic.metrics.replicates import plain
from isic.metrics.resample import unit_numbers
from isic.predictions.table import prob_columns, probabilities, with_fallback

log = logging.getLogger(__name__)

LABELS = {
    "pauc": "pAUC",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_f1_argmax": "macro F1 (argmax)",
    "macro_f1_argmax_folded": "macro F1 (argmax folded to > 0.5)",
    "macro_f1_nested_thresholds": "macro F1 (nested thresholds)",
    "macro_auc": "macro AUC",
    "accuracy": "accuracy",
    "elementwise_accuracy": "element-wise accuracy",
    "ece": "ECE",
    "retrieval_sensitivity": "top-15 retrieval sensitivity",
}
FEW = 5  # units of a class: a resample lacks all of four in 2 of 100 draws, of one in 37
LEVELS = (("patient", "patient_id"), ("lesion", "lesion_id"), ("image", "image_id"))


def score(
    frame: pd.DataFrame,
    *,
    classes: Sequence[str],
    metrics: Mapping[str, Metric],
    group: str | None = None,
    n_replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    chance: bool = True,
) -> dict[str, Any]:
    """Score predictions that carry `target` (and `patient_id`, `lesion_id` where known).

    Args:
        frame: Predictions joined with the index; rows without a target are left out.
        classes: Class names in the order of target.
        metrics: Name -> `(target, probs) -> float`; the first is the one people compare by.
        group: Column to resample; None takes patients, else lesions, else images.
        n_replicates: Bootstrap resamples per interval.
        level: Share of replicates inside the interval.
        seed: Of the resampling.
        chance: Whether to add the chance level.
    """
    rows = _scored_rows(frame, classes, group)
    scored: dict[str, Any] = {}
    for name, metric in metrics.items():
        try:
            value = score_of(metric, rows.target, rows.probs, rows.group)
        except ValueError as fault:
            log.warning("%s is undefined: %s", name, fault)
            numbers = dict.fromkeys(("value", "low", "high"), math.nan)
            scored[name] = numbers | {"reason": str(fault)}
            continue
        values = bootstrap_replicates(
            metric, rows.target, rows.probs,
            group=rows.group, n_replicates=n_replicates, seed=seed,
        )  # fmt: skip
        low, high = percentiles(values, level)
        scored[name] = {"value": value, "low": low, "high": high}
        if undefined := int(np.isnan(values).sum()):
            scored[name]["undefined"] = undefined / n_replicates
        scored[name] |= _read_beside(metric, rows, classes, chance=chance)
    few = rows.few(classes)
    about = {"metrics": scored, "n": len(rows.target), "interval_over": rows.over}
    return about | ({"few": few} if few else {})


def _read_beside(
    metric: Metric, rows: "_Rows", classes: Sequence[str], *, chance: bool
) -> dict[str, Any]:
    """`chance` and `classes` of a metric, where they say something."""
    facts: dict[str, Any] = {}
    level = chance_level(metric, rows.target, rows.probs, group=rows.group) if chance else None
    if level is not None:
        facts["chance"] = level
    averaged = averaged_classes(plain(metric), rows.target, rows.probs)
    if averaged is not None and not averaged.all():
        facts["classes"] = [classes[c] for c in np.flatnonzero(averaged).tolist()]
    return facts


def difference(
    frame: pd.DataFrame,
    other: pd.DataFrame,
    *,
    classes: Sequence[str],
    metrics: Mapping[str, Metric],
    n_replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two tables of the same rows: metric -> `value` of the other, `difference`, low, high.

    The difference is that of `frame` minus `other`, paired: on the same resamples as the score's.

    frame, other: Predictions with `target`, in the same order of rows.
    """
    if frame["image_id"].tolist() != other["image_id"].tolist():
        raise DataError("the tables to compare hold other rows, or in another order")
    one, two = (_scored_rows(table, classes, None) for table in (frame, other))
    compared: dict[str, Any] = {}
    for name, metric in metrics.items():
        try:
            value = score_of(metric, two.target, two.probs, two.group)
            gain, low, high = paired_interval(
                metric, one.target, one.probs, two.probs,
                group=one.group, n_replicates=n_replicates, level=level, seed=seed,
            )  # fmt: skip
        except ValueError as fault:
            log.warning("%s cannot be compared: %s", name, fault)
            continue
        compared[name] = {"value": value, "difference": gain, "low": low, "high": high}
    return compared


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows to score: target (N,), probs (N, C), the group of each row, and what a group is."""

    target: Ints
    probs: Floats
    group: pd.Series | None
    over: str

    def few(self, classes: Sequence[str]) -> dict[str, int]:
        """Classes of fewer than `FEW` groups, but not of none: name -> groups."""
        unit = unit_numbers(self.group, len(self.target))
        counts = {name: len(np.unique(unit[self.target == c])) for c, name in enumerate(classes)}
        return {name: count for name, count in counts.items() if 0 < count < FEW}


def _scored_rows(frame: pd.DataFrame, classes: Sequence[str], group: str | None) -> _Rows:
    """The labelled rows that have an image; unreadable ones with the fallback."""
    labelled = frame[frame["target"].notna()]
    if "status" in labelled.columns:
        labelled = labelled[labelled["status"] != "missing"]
    if not len(labelled):
        raise DataError(f"none of {len(frame)} predictions has a target and an image to score")
    if absent := [c for c in prob_columns(classes) if c not in labelled.columns]:
        raise DataError(f"predictions lack {absent}, asked for by classes {list(classes)}")
    others = [c for c in labelled.columns if not str(c).startswith("prob_")]
    labelled = with_fallback(labelled[[*others, *prob_columns(classes)]])
    over, groups = _groups(labelled, group)
    target = labelled["target"].to_numpy(dtype="int64")
    return _Rows(target, probabilities(labelled), groups, over)


def _groups(frame: pd.DataFrame, column: str | None) -> tuple[str, pd.Series | None]:
    """What intervals resample: its name, and each row's group (None: every image its own).

    A row without a patient counts by its lesion, without both by itself.
    """
    known = [(name, c) for name, c in LEVELS if c in frame.columns and frame[c].notna().any()]
    if column is not None:
        if column not in frame.columns:
            raise DataError(f"no column {column!r} to resample by; have {list(frame.columns)}")
        named = {c: n for n, c in LEVELS}.get(column, column)
        known = [(named, column), ("image", "image_id")]
    if known[0][0] == "image":
        return "image", None
    # the name in front keeps a patient and a lesion of the same id apart
    parts = [(n + " ") + frame[c].astype("string") for n, c in known]
    groups = parts[0]
    for part in parts[1:]:
        groups = groups.fillna(part)
    return known[0][0], groups


def score_line(score: Mapping[str, Any]) -> str:
    """One line for people: `pAUC 0.1712 [0.1644, 0.1781] (patient bootstrap, n=401059)`.

    Chance levels stand behind their metric; classes of few patients, and what `warnings` of the
    score say, follow the line.
    """
    parts = [metric_text(name, m) for name, m in score["metrics"].items()]
    line = f"{', '.join(parts)} ({score['interval_over']} bootstrap, n={score['n']})"
    if few := score.get("few"):
        named = first_five(f"{name} {count}" for name, count in few.items())
        over = f"{score['interval_over']}s"
        line += f"; classes of fewer than {FEW} {over}, which intervals hardly vary: {named}"
    line += _inputs_text(score.get("inputs_alone"))
    return "; WARNING: ".join([line, *score.get("warnings", [])])


def _inputs_text(alone: Mapping[str, Any] | None) -> str:
    """Return the score of a stack's runs without it, and the paired difference."""
    if not alone or not alone["metrics"]:
        return ""
    parts = [
        f"{m['of']} {LABELS.get(name, name)} {_four(m['value'])} (the stack "
        f"{m['difference']:+.4f} [{m['low']:+.4f}, {m['high']:+.4f}])"
        for name, m in alone["metrics"].items()
    ]
    return f"; its inputs alone ({first_five(alone['runs'])}): {', '.join(parts)}"


def metric_text(name: str, entry: Mapping[str, Any], *, label: str | None = None) -> str:
    """Value, interval, chance level and classes of a metric, those that a score file has.

    label: Instead of the name for people.
    """
    bounds = f"[{_four(entry['low'])}, {_four(entry['high'])}]"
    notes = []
    if entry.get("chance") is not None:
        notes.append(f"chance {_four(entry['chance'])}")
    if undefined := entry.get("undefined"):
        notes.append(f"{undefined:.1%} of resamples have no value and are left out of the interval")
    if classes := entry.get("classes"):
        notes.append(f"over {first_five(classes)} alone: no rows of the other classes")
    behind = f" ({'; '.join(notes)})" if notes else ""
    return f"{label or LABELS.get(name, name)} {_four(entry['value'])} {bounds}{behind}"


def _four(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.4f}"


def write_score(path: Path | str, score: Mapping[str, Any]) -> Path:
    """Write `score.json` whole or not at all; undefined numbers become null."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, sealed_json(_defined(score), indent=2, allow_nan=False))
    return path


def _defined(value: Any) -> Any:
    """Plain JSON values: NaN and infinity as None, numpy scalars as Python's."""
    if isinstance(value, Mapping):
        return {str(k): _defined(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(v) for v in value]
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


_NUMBER = (float, type(None))
SCORE = {
    "metrics": {str: {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER}},
    "n?": int,
    "interval_over?": (str, type(None)),
    "warnings?": [str],
}
SELECTED = {"selected_on_validation": bool}
TOOK = {"seconds": float, "images_per_second": float, "peak_memory_mb": float}


def read_score(path: Path | str, *, also: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a `score.json`; undefined numbers are None.

    also: What the caller reads of a run's besides (`SELECTED`, `TOOK`); `predict.py` writes less.

    Raises:
        DataError: No such file, or one that lacks a part or holds something else.
    """
    mend = "Finish that run first; of a finished one, delete this file and give its command again"
    return read_stored(Path(path), {**SCORE, **(also or {})}, mend=mend)
