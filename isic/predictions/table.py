"""The predictions table: its columns, its rules, and the way to its probabilities.

One row per image: `image_id, lesion_id, fold, split, status, image, prob_<class>...`, two
probabilities when binary. `fold` is missing for test rows. `image`, and `image_<view>` where
several views were seen, say which files these were (`isic.predictions.origin`); out-of-fold tables
hold `target`, the class number. Tables of earlier versions lack both. `status` is `ok`,
`unreadable` (there is a file, but it does not decode) or `missing` (there is none); only `ok` rows
have probabilities, others NaN.
The trap: leaving unreadable images out of a score makes it rosier than a submission would be;
`with_fallback` gives them the mean of the readable ones for both. Missing ones, which a user chose
to do without (`data.missing_images=drop`), are not scored.
"""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import DataError, first_five

log = logging.getLogger(__name__)

COLUMNS = ("image_id", "lesion_id", "fold", "split", "status")
STATUSES = ("ok", "unreadable", "missing")
PREFIX = "prob_"
TARGET = "target"  # optional, as is each column of `image_columns`
ENERGY = "energy"  # optional: what an unknown class is scored by, see isic.predictions.unknown
Floats = npt.NDArray[np.float64]


def prob_columns(classes: Iterable[str]) -> list[str]:
    """Names of the probability columns."""
    return [f"{PREFIX}{name}" for name in classes]


def image_columns(frame: pd.DataFrame) -> list[str]:
    """Names of the columns that say which files were seen; none in an old table."""
    return [c for c in frame.columns if c == "image" or c.startswith("image_") and c != "image_id"]


def classes_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """Class names of a predictions table, in column order."""
    return tuple(c.removeprefix(PREFIX) for c in frame.columns if str(c).startswith(PREFIX))


def probabilities(frame: pd.DataFrame) -> Floats:
    """Probabilities (N, C) float64; NaN where there is no readable image."""
    return frame[prob_columns(classes_of(frame))].to_numpy(dtype=np.float64)


def with_fallback(frame: pd.DataFrame) -> pd.DataFrame:
    """Give rows without probabilities the mean of the others, and log how many."""
    probs = probabilities(frame)
    missing: npt.NDArray[np.bool_] = np.isnan(probs.sum(axis=1))
    if not missing.any():
        return frame
    if missing.all():
        raise DataError(f"none of {len(frame)} images could be read: no score to fall back on")
    mean = probs[~missing].mean(axis=0)
    named = dict(zip(classes_of(frame), mean.round(6).tolist(), strict=True))
    log.warning(
        "%d images without probabilities get the mean score of the readable ones %s: %s",
        int(missing.sum()),
        named,
        first_five(frame.loc[missing, "image_id"]),
    )
    filled = frame.copy()
    for number, column in enumerate(prob_columns(classes_of(frame))):
        filled[column] = np.where(missing, mean[number], probs[:, number])
    return filled


def check_predictions(frame: pd.DataFrame) -> None:
    """Refuse a table that breaks the schema; all faults at once."""
    wanted = [*COLUMNS, *prob_columns(classes_of(frame))]
    if absent := [c for c in COLUMNS if c not in frame.columns]:
        raise DataError(f"predictions lack the columns {absent}; they need {wanted}")
    if len(classes_of(frame)) < 2:
        raise DataError(f"predictions need {PREFIX}<class> for 2 or more classes, got {wanted}")
    ids, probs = frame["image_id"], probabilities(frame)
    nan = np.isnan(probs).any(axis=1)
    without = (frame["status"] != "ok").to_numpy(dtype=bool)
    faults: dict[str, Any] = {
        "without image_id": ids.isna().to_numpy(),
        "twice in the table": ids.duplicated().to_numpy(),
        f"with a status other than {STATUSES}": ~frame["status"].isin(STATUSES).to_numpy(),
        "with NaN although status is ok": nan & ~without,
        "not ok yet with a probability": without & ~np.isnan(probs).all(axis=1),
        "with a probability outside [0, 1]": ((probs < 0.0) | (probs > 1.0)).any(axis=1),
    }
    said = [
        f"{int(rows.sum())} rows {fault}: {first_five(ids[rows])}"
        for fault, rows in faults.items()
        if rows.any()
    ]
    if said:
        raise DataError("predictions: " + "; ".join(said))
