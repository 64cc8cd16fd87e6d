"""The folds of a run put together: out-of-fold table, test mean, submission, score. No torch.

Called by whoever finishes the last fold, and at any time by `python -m isic runs`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.schema import Index
from isic.metrics import Metric
from isic.predictions import (
    assemble_oof,
    ensemble,
    probabilities,
    read_predictions,
    read_score,
    score,
    score_line,
    write_predictions,
    write_score,
    write_submission,
)
from isic.predictions.submission import find_sample, sample_ids
from isic.report.curves import write_curves
from isic.runs import waiting_lock

log = logging.getLogger(__name__)


def score_predictions(
    frame: pd.DataFrame, index: Index, metrics: Mapping[str, Metric], *, folder: Path
) -> dict[str, Any]:
    """Score predictions against the index's targets and draw their curves into `folder`."""
    truth = index.table[["image_id", "target", "patient_id"]]
    joined = frame.merge(truth, on="image_id", how="left", validate="one_to_one")
    result = score(joined, classes=index.info.classes, metrics=metrics)
    readable = joined[joined["target"].notna() & (joined["status"] == "ok")]
    target = readable["target"].to_numpy(dtype="int64")
    write_curves(folder, target, probabilities(readable), index.info.classes)
    return result


def assemble_run(
    run: Path, index: Index, metrics: Mapping[str, Metric], *, n_folds: int
) -> dict[str, Any] | None:
    """Write `oof.parquet, test.parquet, submission.csv, score.json` of a run whose folds are done.

    Returns the score, or None while a fold is missing.
    """
    folds = [run / f"fold{k}" for k in range(n_folds)]
    if not all((fold / "score.json").exists() for fold in folds):
        return None
    with waiting_lock(run / ".lock", f"assembling {run}"):
        frame = assemble_oof(folds)
        attrs = _attrs(frame)
        write_predictions(run / "oof.parquet", frame, **attrs)
        result = score_predictions(frame, index, metrics, folder=run / "curves")
        scores = [read_score(fold / "score.json") for fold in folds]
        result |= {
            "folds": n_folds,
            "seconds": sum(s["seconds"] for s in scores),
            "images_per_second": sum(s["images_per_second"] for s in scores) / n_folds,
            "peak_memory_mb": max(s["peak_memory_mb"] for s in scores),
            "selected_on_validation": any(s["selected_on_validation"] for s in scores),
        }
        write_score(run / "score.json", result)
        tests = [fold / "test.parquet" for fold in folds if (fold / "test.parquet").exists()]
        if len(tests) == n_folds:
            mean = ensemble([read_predictions(path) for path in tests])
            write_predictions(run / "test.parquet", mean, **attrs)
            submit(run / "submission.csv", mean, index)
    log.info("%s, %d folds: %s", run, n_folds, score_line(result))
    return result


def check_sample(index: Index) -> None:
    """Refuse, before a training, a sample submission that its test rows cannot fill.

    Raises:
        DataError: Ids that only one of the two has.
    """
    sample = find_sample(index.root)
    test = index.table[index.table["split"] == "test"]
    if sample is None or test["image"].isna().all():
        return
    known = "lesion_id" if index.info.id_column == "lesion_id" else "image_id"
    odd = set(sample_ids(sample, index.info)) ^ set(test[known])
    if odd:
        raise DataError(
            f"{sample} and the test metadata do not name the same images: {len(odd)} ids stand in "
            f"one of them only: {first_five(sorted(odd))}. Bring both from the same download, or "
            "move the sample away to submit in the order of the metadata."
        )


def submit(path: Path, frame: pd.DataFrame, index: Index) -> None:
    """Write a checked submission, in the order of the archive's sample where it has one."""
    write_submission(path, frame, index.info, sample=find_sample(index.root))
    log.info("submission: %s", path)


def _attrs(frame: pd.DataFrame) -> dict[str, Any]:
    keys = ("run", "index_hash", "split_hash", "split_file")
    return {k: frame.attrs.get(k) for k in keys}
