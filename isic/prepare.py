"""From a raw archive to what training reads: the index, and the images of its rows. No torch.

The split between the two is `isic.split.making`. Where something is absent it is made, and its
place is logged.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import ConfigError, DataError, first_five
from isic.images.pack import build_pack
from isic.images.packfile import MISSING, OK, UNREADABLE, Pack
from isic.index.cache import cached_index
from isic.index.extra import with_extra
from isic.index.schema import Index

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelOptions:
    """Where pixels come from and what happens to those that cannot be had.

    cache: `bytes` (packed JPEG) or `pixels` (decoded to the training size, where it fits).
    resize: Shorter side in pixels to re-encode to while packing; None keeps the original bytes.
    crop_border: Cut off the black border of a dermoscope while packing.
    colour_constancy: Bring the light to white while packing (Shades of Gray).
    on_bad_image: `error` names them; `skip` leaves them out of training and counts them.
    missing_images: `error`, or `drop` them from training; predictions then have a row without
        probabilities for each, as for a bad image.
    """

    cache_root: Path
    cache: str = "bytes"
    resize: int | None = None
    crop_border: bool = False
    colour_constancy: bool = False
    on_bad_image: str = "error"
    missing_images: str = "error"

    def __post_init__(self) -> None:
        """Refuse values that are not choices."""
        for key, choices in (
            ("cache", ("bytes", "pixels")),
            ("on_bad_image", ("error", "skip")),
            ("missing_images", ("error", "drop")),
        ):
            if getattr(self, key) not in choices:
                raise ConfigError(
                    f"data.{key}: expected {' or '.join(choices)}, got {getattr(self, key)}"
                )
        if self.resize is not None and (self.cache == "pixels" or self.resize < 1):
            raise ConfigError(
                f"data.resize: expected pixels, with data.cache=bytes, got {self.resize} with "
                f"data.cache={self.cache}"
            )
        for key in ("crop_border", "colour_constancy"):
            if getattr(self, key) and self.resize is None and self.cache != "pixels":
                raise ConfigError(
                    f"data.{key}=true makes new pixels: say at which size with data.resize=SIDE, "
                    "or data.cache=pixels"
                )


@dataclass(frozen=True)
class Rows:
    """Index rows 0..N-1 and the pack that holds their images, row by row."""

    table: pd.DataFrame
    pack: Pack

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which rows have an image that decodes, (N,)."""
        return np.asarray(self.pack.status == OK)


def open_index(
    builder: Callable[[Path], Index],
    root: str | Path,
    *,
    cache_root: Path,
    extra: str | Sequence[str] | None = None,
) -> Index:
    """The index of an archive, from the cache where nothing has changed, and its extra rows.

    Raises:
        DataError: What the reader or an extra CSV is at fault for.
    """
    index = cached_index(builder, Path(root), cache_root=cache_root)
    return with_extra(index, extra) if extra else index


def image_column(index: Index, views: Sequence[str] | None) -> str:
    """The column of `sample_rows` that holds the image a network sees.

    Raises:
        ConfigError: A view that the archive has not, or several.
    """
    info = index.info
    if info.row_unit == "image" and not views:
        return "image"
    chosen = list(views or info.views[:1])
    if len(chosen) != 1 or chosen[0] not in info.views:
        raise ConfigError(
            f"data.views: expected one of {', '.join(info.views)}, got {', '.join(chosen)}"
        )
    return "image" if info.row_unit == "image" else f"image_{chosen[0]}"


def load_rows(
    index: Index,
    table: pd.DataFrame,
    pixels: PixelOptions,
    *,
    image_size: int,
    views: Sequence[str] | None = None,
) -> Rows:
    """Pack the images of `table`'s rows, where they are not packed yet, and say what is wrong.

    table: Rows of `sample_rows`.

    Raises:
        DataError: Rows without an image, or with one that does not decode, unless told otherwise.
    """
    images = table[image_column(index, views)]
    if images.isna().all():
        message = _missing_message(index, table["image_id"], len(table))
        raise DataError(f"{message}. Download the images: {index.download}")
    pack = build_pack(
        index.sources,
        images.astype(object).where(images.notna(), None).tolist(),
        cache_root=pixels.cache_root,
        resize=pixels.resize,
        pixels=image_size if pixels.cache == "pixels" else None,
        crop_border=pixels.crop_border,
        colour_constancy=pixels.colour_constancy,
    )
    rows = Rows(table, pack)
    _report_missing(index, rows, pixels.missing_images)
    _report_bad(rows, pixels.on_bad_image)
    if not rows.readable.any():
        raise DataError(f"none of {len(table)} images under {index.root} can be read")
    return rows


def _missing_message(index: Index, ids: pd.Series, n_rows: int) -> str:
    return f"{len(ids)} of {n_rows} rows have no image under {index.root}: {first_five(ids)}"


def _report_missing(index: Index, rows: Rows, missing_images: str) -> None:
    missing = rows.pack.status == MISSING
    if not missing.any():
        return
    message = _missing_message(index, rows.table["image_id"][missing], len(rows.table))
    if missing_images == "error":
        raise DataError(
            f"{message}. Download the images: {index.download}; or go on without them with "
            "data.missing_images=drop"
        )
    log.warning("%s; left out of training and scores, status=missing in predictions", message)


def _report_bad(rows: Rows, on_bad_image: str) -> None:
    bad = np.flatnonzero(rows.pack.status == UNREADABLE).tolist()
    if not bad:
        return
    named = first_five(f"{rows.table['image_id'].iat[i]} ({rows.pack.reason(i)})" for i in bad)
    message = f"{len(bad)} of {len(rows.table)} images cannot be read: {named}"
    if on_bad_image == "error":
        raise DataError(
            f"{message}. Download these again, or go on without them with data.on_bad_image=skip."
        )
    log.warning("%s; left out of training, status=unreadable in predictions", message)
