"""Warnings where predicted rows differ from those that a checkpoint was trained with.

A folder of images has no metadata, and may show lesions at another magnification: close-ups where
a network knows whole photographs. Sides are measured on a sample of the files, before any resizing.
Checkpoints of earlier versions hold no sides, and there is no warning for them.
"""

import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from isic.data import LesionDataModule
from isic.errors import DataError, first_five
from isic.images.sources import read_refs
from isic.index.schema import Index
from isic.prepare import image_columns
from isic.streams import warn_once

log = logging.getLogger(__name__)

SAMPLED = 32  # files a view; their headers alone are decoded
FACTOR = 4.0  # between typical sides: beyond it a lesion is shown at another magnification


def typical_sides(index: Index, rows: pd.DataFrame, views: Sequence[str]) -> dict[str, float]:
    """View -> median of the shorter side in pixels, of a sample of the files; `""` for one view.

    rows: Of `sample_rows(index)`. Views without a readable file are left out, with a log line where
        a store cannot be opened: the pack is all that training and prediction need.
    """
    seen = views or (index.info.views[:1] if index.info.row_unit == "lesion" else ())
    sides = {}
    for view, column in image_columns(index, seen).items():
        refs = rows[column].dropna().tolist()
        places = {int(i) for i in np.linspace(0, len(refs) - 1, SAMPLED)} if refs else set()
        sample = [refs[i] for i in sorted(places)]
        try:
            known = [side for data in read_refs(index.sources, sample) if (side := _side(data))]
        except DataError as error:  # locked by another program, say
            log.info("sizes of original images are not compared: %s", error)
            continue
        if known:
            sides[view] = float(np.median(known))
    return sides


def _side(data: bytes | OSError | None) -> int:
    """The shorter side of an encoded image; 0 where it cannot be told."""
    if not isinstance(data, bytes):
        return 0
    try:
        with Image.open(io.BytesIO(data)) as image:
            return min(image.size)
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0


def say_unlike_training(
    data: LesionDataModule, rows: pd.DataFrame, record: Mapping[str, Any]
) -> None:
    """Warn of metadata that no row has, and of images of another size than those trained on.

    rows: Those that are predicted, of `sample_rows`.
    record: Of the checkpoint.
    """
    columns = data.encoder.columns if data.encoder else ()
    absent = [c for c in columns if c not in rows or rows[c].isna().all()]
    if absent:
        warn_once(
            log,
            f"none of {len(rows)} rows has a value of {first_five(absent)}, which the model was "
            "trained with: it is taken as missing, and the score of the run says nothing of such "
            "rows; data.root=DIR reads an archive with its table",
        )
    trained = record.get("image_sides")
    for view, side in typical_sides(data.index, rows, data.views).items():
        known = trained.get(view) if isinstance(trained, Mapping) else None
        if isinstance(known, int | float) and not 1 / FACTOR < side / known < FACTOR:
            warn_once(
                log,
                f"the {f'{view} ' if view else ''}images are {side:.0f} px along the shorter side "
                f"(median), those of the training {known:.0f} px: if they show lesions at another "
                "magnification, the predictions mean little",
            )
