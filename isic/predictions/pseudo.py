"""Confident predictions of images without a label -> a CSV of further training rows.

Source: a predictions table of test rows, and the images of those rows. Unit: one row an image, each
view of a lesion its own; columns as `isic.index.extra` reads them, marked as pseudo-labels.
The confidence is the highest probability, the label its class.
Trap: a model is surest of what it has seen most, so that pseudo-labels make a common class more
common: `max_per_class` caps each. Labels of a training row's own image are refused here and there.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.index.tested import PSEUDO_ID
from isic.predictions.table import classes_of, probabilities

CARRIED = ("patient_id", "age", "sex", "site", "view")


def confident(
    frame: pd.DataFrame,
    *,
    min_confidence: float = 0.9,
    classes: Sequence[str] | None = None,
    max_per_class: int | None = None,
) -> pd.DataFrame:
    """The rows to label, in their order, with `label` and `confidence`.

    frame: Predictions of test rows.
    classes: Labels to take; None for all.
    max_per_class: The most confident of each label; None for all.

    Raises:
        ConfigError: A value that is none, an unknown class.
        DataError: Ranks, rows that are not test rows, or no row that is so confident.
    """
    _check(classes_of(frame), min_confidence, classes, max_per_class)
    if frame.attrs.get("ranks"):
        raise DataError(
            "these predictions are ranks, and a rank is no confidence; predict with combine=mean, "
            "or fit the stack with combine=mean and a stacker other than rank_average"
        )
    if len(other := frame[frame["split"] != "test"]):
        raise DataError(
            f"pseudo-labels are of test rows or of a folder (images=DIR), got {len(other)} rows of "
            f"split {first_five(other['split'].unique())}: {first_five(other['image_id'])}; a "
            "model's labels of its own training or held-out rows would leak into their score"
        )
    rows = frame[frame["status"] == "ok"]
    probs, names = probabilities(rows), np.array(classes_of(frame))
    rows = rows.assign(label=names[probs.argmax(axis=1)], confidence=probs.max(axis=1))
    rows = rows[(rows["confidence"] >= min_confidence) & rows["label"].isin(classes or names)]
    if max_per_class is not None:
        ranked = rows.sort_values("confidence", ascending=False, kind="stable")
        rows = rows.loc[ranked.groupby("label").head(max_per_class).index.sort_values()]
    if rows.empty:
        raise DataError(
            f"none of {len(frame)} rows has a confidence of {min_confidence} in the classes asked "
            f"for; the highest is {probs.max(initial=0):.3f}: lower min_confidence"
        )
    return rows


def pseudo_rows(
    chosen: pd.DataFrame, images: pd.DataFrame, *, folder: Path, run: str, weight: float = 1.0
) -> pd.DataFrame:
    """The CSV's rows: each image of each chosen sample.

    chosen: As `confident` gives them.
    images: The index's rows of the predicted images; lesions are joined by `lesion_id` where
        `chosen` has them.
    folder: What `images.image` is relative to.
    run: Where the labels come from.

    Raises:
        DataError: Chosen rows without an image, or one that is not below the folder.
    """
    if not math.isfinite(weight) or weight <= 0:
        raise ConfigError(f"weight: expected above 0, got {weight}")
    by = "lesion_id" if images.attrs.get("row_unit") == "lesion" else "image_id"
    labels = chosen[[by, "label", "confidence"]]
    rows = images[images["image"].notna()].merge(labels, on=by, how="inner")
    if len(lost := chosen.loc[~chosen[by].isin(rows[by]), by]):
        raise DataError(f"{len(lost)} predicted rows have no image there: {first_five(lost)}")
    if len(mounted := rows.loc[rows["image"].str.startswith("@"), "image_id"]):
        raise DataError(
            f"{len(mounted)} images lie in another folder than {folder}: {first_five(mounted)}; "
            "predict that archive alone, with data.root=DIR"
        )
    made = pd.DataFrame({"image_id": rows["image_id"].astype("string") + PSEUDO_ID})
    made["image"], made["label"], made["weight"] = rows["image"], rows["label"], weight
    made["parent_id"] = rows["image_id"]
    known = rows["lesion_id"].astype("string")
    made["lesion_id"] = known + PSEUDO_ID if by == "lesion_id" else known
    for column in (c for c in CARRIED if c in rows):
        made[column] = rows[column]
    made["pseudo"], made["pseudo_run"], made["pseudo_folder"] = "true", run, str(folder)
    made["pseudo_confidence"] = rows["confidence"].round(6)
    return made


def _check(
    known: Sequence[str],
    min_confidence: float,
    classes: Sequence[str] | None,
    max_per_class: int | None,
) -> None:
    if not 0 < min_confidence <= 1:
        raise ConfigError(f"min_confidence: expected above 0, up to 1, got {min_confidence}")
    if strange := sorted(set(classes or ()) - set(known)):
        raise ConfigError(
            f"classes: expected some of {', '.join(known)}, got {first_five(strange)}"
        )
    if max_per_class is not None and max_per_class < 1:
        raise ConfigError(f"max_per_class: expected 1 or more, got {max_per_class}")
