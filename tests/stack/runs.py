"""Image runs without training: predictions tables as a run of all folds leaves them."""

from pathlib import Path

import numpy as np
import pandas as pd

from isic.index.schema import Index, index_hash, sample_rows
from isic.predictions import ensemble, write_predictions
from isic.predictions.table import prob_columns
from isic.split.making import fold_rows
from isic.split.options import Split


def fake_scores(
    rows: pd.DataFrame, classes: tuple[str, ...], *, skill: float, seed: int
) -> np.ndarray:
    """Probabilities (N, C) that lean to the true class by `skill` standard deviations."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(rows), len(classes)))
    target = rows["target"].astype("Int64").fillna(0).to_numpy(dtype=np.int64)
    logits[np.arange(len(rows)), target] += skill
    exp = np.exp(logits)
    probs: np.ndarray = exp / exp.sum(axis=1, keepdims=True)
    return probs


def write_fake_run(
    runs: Path, name: str, index: Index, split: Split, *, skill: float = 1.5, seed: int = 0
) -> Path:
    """`runs/<name>/fold<k>/oof.parquet`, and `runs/<name>/test.parquet`."""
    classes, tests = index.info.classes, []
    about = {
        "run": name,
        "index_hash": index_hash(index.table),
        "split_hash": split.hash,
        "split_file": split.path,
    }
    rows, samples = fold_rows(index, split), sample_rows(index)
    test = samples[samples["split"] == "test"]
    for k in range(split.n_folds):
        held_out = rows[rows["fold"] == k]
        folder = runs / name / f"fold{k}"
        probs = fake_scores(held_out, classes, skill=skill, seed=seed + k)
        write_predictions(folder / "oof.parquet", table(held_out, probs, classes, k), **about)
        probs = fake_scores(test, classes, skill=skill, seed=seed + 100 + k)
        tests.append(table(test, probs, classes, k))
    write_predictions(runs / name / "test.parquet", ensemble(tests), **about)
    return runs / name


def table(
    rows: pd.DataFrame, probs: np.ndarray, classes: tuple[str, ...], fold: int
) -> pd.DataFrame:
    """A predictions table."""
    frame = rows[["image_id", "lesion_id", "split"]].reset_index(drop=True)
    frame["fold"], frame["status"] = fold, "ok"
    frame[prob_columns(classes)] = probs
    return frame
