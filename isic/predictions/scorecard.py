"""A predictions table with targets -> the numbers of `score.json` and the line people read.

`score.json`: `{"metrics": {name: {"value", "low", "high"}}, "n", "interval_over"}` and whatever the
run adds (seconds, memory, `warnings`). Intervals resample patients, else lesions, else images, and
say which.
Unreadable images are scored with the fallback a submission would use, never left out.
The trap: a metric that is undefined (one class only) is null with its `reason`, not 0.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from isic.checksums import Damaged, read_json, sealed_json
from isic.errors import DataError
from isic.metrics import Metric
from isic.metrics.bootstrap import bootstrap_replicates, percentiles
from isic.metrics.inputs import score_of
from isic.predictions.table import prob_columns, probabilities, with_fallback
from isic.runs import write_text

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
    """
    labelled = frame[frame["target"].notna()]
    if "status" in labelled.columns:
        labelled = labelled[labelled["status"] != "missing"]
    if not len(labelled):
        raise DataError(f"none of {len(frame)} predictions has a target and an image to score")
    if absent := [c for c in prob_columns(classes) if c not in labelled.columns]:
        raise DataError(f"predictions lack {absent}, asked for by classes {list(classes)}")
    others = [c for c in labelled.columns if not str(c).startswith("prob_")]
    labelled = with_fallback(labelled[[*others, *prob_columns(classes)]])
    target, probs = labelled["target"].to_numpy(dtype="int64"), probabilities(labelled)
    over, groups = _groups(labelled, group)
    scored: dict[str, Any] = {}
    for name, metric in metrics.items():
        try:
            value = score_of(metric, target, probs, groups)
        except ValueError as fault:
            log.warning("%s is undefined: %s", name, fault)
            scored[name] = {
                "value": math.nan,
                "low": math.nan,
                "high": math.nan,
                "reason": str(fault),
            }
            continue
        values = bootstrap_replicates(
            metric, target, probs, group=groups, n_replicates=n_replicates, seed=seed
        )
        low, high = percentiles(values, level)
        scored[name] = {"value": value, "low": low, "high": high}
    return {"metrics": scored, "n": len(labelled), "interval_over": over}


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

    What `warnings` of the score say follows it.
    """
    parts = [
        f"{LABELS.get(name, name)} {_four(m['value'])} [{_four(m['low'])}, {_four(m['high'])}]"
        for name, m in score["metrics"].items()
    ]
    line = f"{', '.join(parts)} ({score['interval_over']} bootstrap, n={score['n']})"
    return "; WARNING: ".join([line, *score.get("warnings", [])])


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


def read_score(path: Path | str) -> dict[str, Any]:
    """Read a `score.json`; undefined numbers are None."""
    try:
        read: dict[str, Any] = read_json(path)
    except Damaged:
        raise
    except (OSError, ValueError) as fault:
        raise DataError(f"no readable score at {path}: {fault}; finish that run first") from fault
    return read
