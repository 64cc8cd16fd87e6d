"""Several models' predictions of the same images averaged into one table.

`mean` averages probabilities; `rank_mean` averages each class's ranks, scaled into (0, 1), so that
models whose scores are spread differently weigh the same. Rows join by image_id, in the order of
the first table. A row has no probabilities only where no model could read its image.
The trap: rank means are scores, not probabilities: fine for AUC and pAUC, wrong for thresholds.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.predictions.table import ENERGY, Floats, classes_of, prob_columns, probabilities

METHODS = ("mean", "rank_mean")


def ensemble(
    frames: Sequence[pd.DataFrame], *, method: str = "mean", weights: Sequence[float] | None = None
) -> pd.DataFrame:
    """Average predictions tables of the same images.

    Args:
        frames: Tables as `read_predictions` returns them.
        method: `mean` or `rank_mean`.
        weights: One a table; equal when None.

    Raises:
        DataError: Other images or other classes in one of them.
        ConfigError: Unknown method, or weights that do not fit.
    """
    share = _checked(frames, method, weights)
    first = frames[0]
    aligned = [f.set_index("image_id").loc[first["image_id"]].reset_index() for f in frames]
    stacked = np.stack(
        [_ranked(probabilities(f)) if method == "rank_mean" else probabilities(f) for f in aligned]
    )  # (models, N, C)
    readable = ~np.isnan(stacked).any(axis=2)  # (models, N)
    weight = share[:, None] * readable
    with np.errstate(invalid="ignore"):
        mean = np.einsum("mn,mnc->nc", weight, np.nan_to_num(stacked)) / weight.sum(0)[:, None]

    joined = first.drop(columns=ENERGY, errors="ignore").reset_index(drop=True)
    joined[prob_columns(classes_of(first))] = mean
    if all(ENERGY in f for f in aligned):
        joined[ENERGY] = _mean_energy(aligned, weight)
    joined["status"] = np.where(readable.any(axis=0), "ok", first["status"])
    joined["fold"] = _agreed([f["fold"].astype("Int64") for f in aligned])
    joined.attrs = _joined_attrs(frames)
    return joined


def _checked(
    frames: Sequence[pd.DataFrame], method: str, weights: Sequence[float] | None
) -> Floats:
    """Return the weights (M,); refuse what cannot be averaged."""
    if method not in METHODS:
        raise ConfigError(f"ensemble method must be one of {METHODS}, got {method!r}")
    if not frames:
        raise ConfigError("an ensemble needs one predictions table or more, got none")
    share = np.ones(len(frames)) if weights is None else np.asarray(weights, dtype=float)
    if share.shape != (len(frames),) or not (share > 0).all():
        raise ConfigError(f"expected {len(frames)} positive weights, got {weights}")
    ids = set(frames[0]["image_id"])
    for number, frame in enumerate(frames[1:], start=2):
        if classes_of(frame) != classes_of(frames[0]):
            raise DataError(
                f"table {number} has classes {classes_of(frame)}, the first {classes_of(frames[0])}"
            )
        if other := sorted(ids ^ set(frame["image_id"])):
            raise DataError(
                f"table {number} and the first differ in {len(other)} images: "
                f"{first_five(other)}; predict the same rows with each model"
            )
    return share


def _ranked(probs: Floats) -> Floats:
    """Average rank of each class's scores among the readable rows, (rank - 0.5) / n."""
    ranks = pd.DataFrame(probs).rank(method="average")
    scaled: Floats = ((ranks - 0.5) / ranks.notna().sum()).to_numpy(dtype=np.float64, copy=True)
    if probs.shape[1] == 2:
        scaled[:, 0] = 1.0 - scaled[:, 1]  # rounding ties may differ between the two columns
    return scaled


def _mean_energy(aligned: Sequence[pd.DataFrame], weight: Floats) -> Floats:
    """Mean over the models that could read the row, (N,); weight: (M, N)."""
    energy = np.stack([f[ENERGY].to_numpy(dtype=np.float64) for f in aligned])
    with np.errstate(invalid="ignore"):
        mean: Floats = np.nansum(weight * energy, axis=0) / weight.sum(axis=0)
    return mean


def _agreed(columns: Sequence[pd.Series]) -> pd.Series:
    """Return the value all tables share, row by row, else missing."""
    same = pd.concat(columns, axis=1).nunique(axis=1, dropna=False) == 1
    return columns[0].where(same)


def _joined_attrs(frames: Sequence[pd.DataFrame]) -> dict[Hashable, Any]:
    """Run names one after another; a hash only where all tables share it."""
    attrs: dict[Hashable, Any] = {}
    for key in dict.fromkeys(k for f in frames for k in f.attrs if k is not None):
        values = list(dict.fromkeys(f.attrs.get(key) for f in frames))
        attrs[key] = values[0] if len(values) == 1 else None
    attrs["run"] = ", ".join(dict.fromkeys(str(f.attrs.get("run", "?")) for f in frames))
    return attrs
