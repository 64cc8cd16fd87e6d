"""The folds of a run put together: out-of-fold table, test mean, submission, score. No torch.

Called by whoever finishes the last fold, and at any time by `python -m isic runs`.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from isic.errors import DataError, first_five
from isic.files import waiting_lock
from isic.index.schema import Index
from isic.metrics import Metric
from isic.predictions import (
    assemble_oof,
    ensemble,
    probabilities,
    read_predictions,
    read_score,
    score,
    write_predictions,
    write_score,
    write_submission,
)
from isic.predictions.fitted import decided, fit_to, nested_chance, nested_decided
from isic.predictions.scorecard import SELECTED, TOOK
from isic.predictions.submission import find_sample, sample_ids
from isic.predictions.table import TARGET
from isic.predictions.temperature import calibration_report
from isic.predictions.thresholds import cuts_at_half
from isic.report.curves import write_curves

log = logging.getLogger(__name__)


def score_predictions(
    frame: pd.DataFrame, index: Index, metrics: Mapping[str, Metric], *, folder: Path
) -> dict[str, Any]:
    """Score predictions against the index's targets and draw their curves into `folder`."""
    joined = with_targets(frame, index)
    result = score(joined, classes=index.info.classes, metrics=metrics)
    readable = joined[joined["target"].notna() & (joined["status"] == "ok")]
    target = readable["target"].to_numpy(dtype="int64")
    write_curves(folder, target, probabilities(readable), index.info.classes)
    return result


def with_targets(frame: pd.DataFrame, index: Index) -> pd.DataFrame:
    """Predictions with the `target` and `patient_id` of the index, in their order."""
    truth = index.table[["image_id", "target", "patient_id"]]
    frame = frame.drop(columns=TARGET, errors="ignore")
    return frame.merge(truth, on="image_id", how="left", validate="one_to_one")


def decided_scores(
    frame: pd.DataFrame, index: Index, metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """The metrics that cut at 0.5, of decided out-of-fold probabilities; none where none cuts.

    `<name>_argmax_folded`, and `<name>_nested_thresholds`, whose thresholds were fitted on the rows
    of the other folds. Thresholds scored on their own rows would flatter. The chance level of these
    is of thresholds that were fitted to scores which know nothing.
    """
    cutting = {name: metric for name, metric in metrics.items() if cuts_at_half(metric)}
    if not cutting or frame["fold"].nunique() < 2:
        return {}
    joined = with_targets(frame, index)
    scores: dict[str, Any] = {}
    for how, table in (
        ("argmax_folded", decided(joined, "argmax")),
        ("nested_thresholds", nested_decided(joined)),
    ):
        named = {f"{name}_{how}": metric for name, metric in cutting.items()}
        scores |= score(table, classes=index.info.classes, metrics=named)["metrics"]
    for name, level in nested_chance(joined, cutting).items():
        scores[f"{name}_nested_thresholds"]["chance"] = level
    return scores


def calibration(joined: pd.DataFrame) -> dict[str, float]:
    """Temperature, ECE and likelihood of readable out-of-fold rows, see `calibration_report`.

    Empty where no two folds have some.
    """
    rows = joined[joined["target"].notna() & (joined["status"] == "ok")]
    if rows["fold"].nunique() < 2:
        return {}
    target = rows["target"].to_numpy(dtype="int64")
    return calibration_report(target, probabilities(rows), rows["fold"].to_numpy(dtype="int64"))


def assemble_run(
    run: Path, index: Index, metrics: Mapping[str, Metric], *, n_folds: int
) -> dict[str, Any] | None:
    """Put the folds of a run together, where all are done.

    Writes `oof.parquet`, `score.json`, `thresholds.json` (`isic.predictions.fitted`) and, of test
    rows, `test.parquet` and `submission.csv`, which holds the probabilities as they are.

    Returns the score, or None while a fold is missing.
    """
    folds = [run / f"fold{k}" for k in range(n_folds)]
    if not _all_done(folds):
        return None
    with waiting_lock(run / ".lock", f"assembling {run}"):
        if not _all_done(folds):  # one was thrown away meanwhile, to be trained anew
            return None
        return _assembled(run, folds, metrics) or _assemble(run, folds, index, metrics)


def _all_done(folds: Sequence[Path]) -> bool:
    return all((fold / "score.json").exists() for fold in folds)


def _assembled(
    run: Path, folds: Sequence[Path], metrics: Mapping[str, Metric]
) -> dict[str, Any] | None:
    """The score that is there, where all is written, younger than the folds, with all metrics."""
    written = ["score.json", "oof.parquet", "thresholds.json"]
    if any((fold / "test.parquet").exists() for fold in folds):
        written += ["test.parquet", "submission.csv"]
    youngest = max((fold / "score.json").stat().st_mtime_ns for fold in folds)
    if not all((run / name).exists() for name in written):
        return None
    if (run / "score.json").stat().st_mtime_ns < youngest:
        return None
    result = read_score(run / "score.json")
    return result if set(metrics) <= set(result["metrics"]) else None


def _assemble(
    run: Path, folds: Sequence[Path], index: Index, metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """Write all of a run's files, the score last: what has it is whole."""
    (run / "score.json").unlink(missing_ok=True)
    frame = assemble_oof(folds)
    attrs = _attrs(frame)
    write_predictions(run / "oof.parquet", frame, **attrs)
    result = score_predictions(frame, index, metrics, folder=run / "curves")
    result["metrics"] |= decided_scores(frame, index, metrics)
    labelled = with_targets(frame, index)
    fit_to(frame, labelled["target"]).write(run)
    result["calibration"] = calibration(labelled)
    scores = [read_score(fold / "score.json", also=SELECTED | TOOK) for fold in folds]
    result |= {
        "folds": len(folds),
        "seconds": sum(s["seconds"] for s in scores),
        "images_per_second": sum(s["images_per_second"] for s in scores) / len(folds),
        "peak_memory_mb": max(s["peak_memory_mb"] for s in scores),
        "selected_on_validation": any(s["selected_on_validation"] for s in scores),
        "warnings": list(dict.fromkeys(w for s in scores for w in s.get("warnings", []))),
    }
    tests = [fold / "test.parquet" for fold in folds if (fold / "test.parquet").exists()]
    if len(tests) == len(folds):
        mean = ensemble([read_predictions(path) for path in tests])
        write_predictions(run / "test.parquet", mean, **attrs)
        submit(run / "submission.csv", mean, index)
        log.info("submission: %s", run / "submission.csv")
    write_score(run / "score.json", result)
    return result


def check_sample(index: Index, *, by_images: bool = True) -> None:
    """Refuse, before anything is trained or predicted, a sample that its test rows cannot fill.

    by_images: Whether test rows are predicted from images, so that without any there is none.

    Raises:
        DataError: Names the sample submission, and what is wrong in it or the ids that only one of
            the two has.
    """
    sample = find_sample(index.root)
    test = index.table[index.table["split"] == "test"]
    if sample is None or test.empty or (by_images and test["image"].isna().all()):
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


def _attrs(frame: pd.DataFrame) -> dict[str, Any]:
    keys = ("run", "index_hash", "split_hash", "split_file")
    return {k: frame.attrs.get(k) for k in keys}
