"""From a raw archive to what training reads: the index, and the images of its rows. No torch.

The split between the two is `isic.split.making`. Where something is absent it is made, and its
place is logged.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import ConfigError, DataError, first_five
from isic.images.limits import MAX_PIXELS
from isic.images.pack import build_pack
from isic.images.packfile import MISSING, OK, UNREADABLE, Pack
from isic.index.cache import cached_index
from isic.index.extra import with_extra
from isic.index.passed_over import unread_note, unread_of
from isic.index.schema import Index, refuse_untrained

log = logging.getLogger(__name__)

_logged_notes: set[tuple[str, str]] = set()  # (root, note), of this process


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
    max_megapixels: The largest image that is read, in millions of pixels; None is 50.4, a phone's.
    """

    cache_root: Path
    cache: str = "bytes"
    resize: int | None = None
    crop_border: bool = False
    colour_constancy: bool = False
    on_bad_image: str = "error"
    missing_images: str = "error"
    max_megapixels: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that are not choices."""
        max_pixels(self.max_megapixels)
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
    """Index rows 0..N-1 and the packs that hold their images, row by row.

    pack: Of the view that a network sees first.
    views: The pack of each view, that one first; empty where there is one view.
    """

    table: pd.DataFrame
    pack: Pack
    views: Mapping[str, Pack] = field(default_factory=dict)

    @property
    def packs(self) -> tuple[Pack, ...]:
        """Of all views."""
        return tuple(self.views.values()) or (self.pack,)

    @property
    def status(self) -> NDArray[np.uint8]:
        """That of a row's best view, (N,)."""
        return np.asarray(np.min([pack.status for pack in self.packs], axis=0))

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which rows have an image that decodes, of any view, (N,)."""
        return np.asarray(self.status == OK)


def open_index(
    builder: Callable[[Path], Index],
    root: str | Path,
    *,
    cache_root: Path,
    extra: str | Sequence[str] | None = None,
    max_megapixels: float | None = None,
) -> Index:
    """The index of an archive, from the cache where nothing has changed, and its extra rows.

    Logs what the readers noted, also of an index from the cache, once a process: the folds of a
    multirun share one. Test rows alone are opened, with a warning: whoever needs more calls
    `refuse_untrained`.

    Raises:
        DataError: What the reader or an extra CSV is at fault for.
    """
    index = cached_index(builder, Path(root), cache_root=cache_root)
    if extra:
        refuse_untrained(index)
        index = with_extra(index, extra)
    elif index.untrained:
        log.warning("%s", index.untrained)
    _log_notes(index)
    return replace(index, max_pixels=max_pixels(max_megapixels))


def max_pixels(max_megapixels: float | None) -> int:
    """Pixels of the largest image that is read; the default for None.

    Raises:
        ConfigError: Not a positive number.
    """
    if max_megapixels is None:
        return MAX_PIXELS
    if isinstance(max_megapixels, bool | str) or not 0 < max_megapixels < float("inf"):
        raise ConfigError(
            f"data.max_megapixels: expected a number above 0, such as 100, got {max_megapixels}"
        )
    return int(max_megapixels * 1_000_000)


def _log_notes(index: Index) -> None:
    """Log the notes of an index that this process has not logged yet."""
    root = str(index.root.resolve())
    for note in index.notes:
        if (root, note) not in _logged_notes:
            _logged_notes.add((root, note))
            log.info("%s: %s", index.info.name, note)


def image_columns(index: Index, views: Sequence[str] | None) -> dict[str, str]:
    """View -> the column of `sample_rows` that holds its images, for each that a network sees.

    Raises:
        ConfigError: A view that the archive has not, or has not of one sample, or twice.
    """
    info = index.info
    if info.row_unit == "image" and not views:
        return {"": "image"}
    chosen = list(views or info.views[:1])
    most = 1 if info.row_unit == "image" else len(info.views)
    if not set(chosen) <= set(info.views) or len(chosen) > most or len({*chosen}) < len(chosen):
        raise ConfigError(
            f"data.views: expected {'one' if most == 1 else 'one or more'} of "
            f"{', '.join(info.views)}, got {', '.join(chosen)}"
        )
    return {view: "image" if info.row_unit == "image" else f"image_{view}" for view in chosen}


def has_images(index: Index, table: pd.DataFrame, views: Sequence[str] | None) -> bool:
    """Whether any row of `sample_rows` names an image of these views."""
    return bool(table[list(image_columns(index, views).values())].notna().any(axis=None))


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
    views: Each has a pack of its own; a row wants an image of one of them, and lacks the others.

    Raises:
        DataError: Rows without an image, or with one that does not decode, unless told otherwise.
    """
    if not has_images(index, table, views):
        message = _missing_message(index, table["image_id"], len(table))
        raise DataError(f"{message}. Download the images: {index.download}")
    packs = {
        view: _packed(index, table[column], pixels, image_size=image_size)
        for view, column in image_columns(index, views).items()
    }
    rows = Rows(table, next(iter(packs.values())), packs if len(packs) > 1 else {})
    _report_missing(index, rows, pixels.missing_images)
    _report_lacking(rows)
    _report_bad(rows, pixels.on_bad_image)
    _report_guessed(rows)
    if not rows.readable.any():
        raise DataError(f"none of {len(table)} images under {index.folders} can be read")
    return rows


def _packed(index: Index, images: pd.Series, pixels: PixelOptions, *, image_size: int) -> Pack:
    return build_pack(
        index.sources,
        images.astype(object).where(images.notna(), None).tolist(),
        cache_root=pixels.cache_root,
        resize=pixels.resize,
        pixels=image_size if pixels.cache == "pixels" else None,
        crop_border=pixels.crop_border,
        colour_constancy=pixels.colour_constancy,
    )


def _missing_message(index: Index, ids: pd.Series, n_rows: int) -> str:
    lacking = f"{len(ids)} of {n_rows} rows have no image under {index.folders}: {first_five(ids)}"
    # asked only here, where some are missing: a phone's photographs are often HEIC
    unread = unread_of(index.root, set(ids.tolist()))
    return f"{lacking}; {unread_note(unread)}" if unread else lacking


def _report_missing(index: Index, rows: Rows, missing_images: str) -> None:
    missing = rows.status == MISSING
    if not missing.any():
        return
    message = _missing_message(index, rows.table["image_id"][missing], len(rows.table))
    if missing_images == "error":
        raise DataError(
            f"{message}. Download the images: {index.download}; or go on without them with "
            "data.missing_images=drop"
        )
    log.warning("%s; left out of training and scores, status=missing in predictions", message)


def _report_lacking(rows: Rows) -> None:
    """Rows with some of the views go on without the others."""
    for view, pack in rows.views.items():
        ids = rows.table["image_id"][(pack.status == MISSING) & (rows.status != MISSING)]
        if len(ids):
            log.warning(
                "%d of %d rows have no %s image: %s; they are used without it",
                *(len(ids), len(rows.table), view, first_five(ids)),
            )


def refuse_absent_views(rows: Rows) -> None:
    """A view that no training row has cannot be learned; to predict without it is fine.

    Raises:
        DataError: Names the view.
    """
    for view, pack in rows.views.items():
        if (pack.status == MISSING).all():
            raise DataError(
                f"data.views: none of {len(rows.table)} training rows has a {view} image: "
                f"{first_five(rows.table['image_id'])}. Download these images, or leave {view} out"
            )


def _report_bad(rows: Rows, on_bad_image: str) -> None:
    bad = [(p, i) for p in rows.packs for i in np.flatnonzero(p.status == UNREADABLE).tolist()]
    if not bad:
        return
    named = first_five(f"{rows.table['image_id'].iat[i]} ({p.reason(i)})" for p, i in bad)
    n_images = len(rows.table) * len(rows.packs)
    message = f"{len(bad)} of {n_images} images cannot be read: {named}"
    if on_bad_image == "error":
        raise DataError(
            f"{message}. Put whole files in their place (of an archive: download them again), or "
            "go on without them with data.on_bad_image=skip."
        )
    if rows.views:
        message += "; their rows go on with another view, and where there is none they are"
    log.warning("%s; left out of training, status=unreadable in predictions", message)


def _report_guessed(rows: Rows) -> None:
    """Log guesses about images that are used, such as the depth of 16-bit values."""
    guessed: dict[str, list[str]] = {}
    for pack in rows.packs:
        for i, note in pack.reasons.items():
            if pack.status[i] == OK:
                guessed.setdefault(note, []).append(str(rows.table["image_id"].iat[i]))
    for note, ids in guessed.items():
        log.warning("%d of %d images: %s: %s", len(ids), len(rows.table), note, first_five(ids))
