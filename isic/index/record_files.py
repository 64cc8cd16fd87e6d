"""Where the record of each id lies in the TFRecord files below an archive's root.

Source: `.tfrec`, `.tfrecord` and `.tfrecords` files as C. Deotte made them of SIIM-ISIC 2020 and
ISIC 2019: features `image` (JPEG) and `image_name`.
Unit: one reference `file.tfrec#<offset>` a row, null where no record bears its name. Every file is
read once in full, since a record has no table of contents: about 300 MB a second.
Trap: file names and the integer-coded columns decide nothing; a public `test16-26.tfrec` holds
training records. Records that no table names are counted and dropped.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from isic.errors import DataError, first_five
from isic.images.sources import TFRECORDS
from isic.images.tfrecord import records
from isic.index.image_files import Folders, id_of, marked_otherwise, references, walk

log = logging.getLogger(__name__)


def find_records(
    root: Path, ids: pd.Series, *, within: Folders = None
) -> tuple[pd.Series, list[str]]:
    """Return the reference of each id, and notes on records that no row has or that came twice.

    within: The only folder to look in, or folders, relative to the root.

    Raises:
        DataError: A file that is damaged or empty.
    """
    known, found = set(ids.dropna()), dict[str, str]()
    marked: list[str] = []
    strange: list[str] = []
    twice: list[str] = []
    for name in walk(root, within, suffixes=TFRECORDS):
        _refuse_empty(root / name)
        log.info("looking for images in %s", name)
        for offset, features in records(root / name):
            record = _name_of(features.get("image_name"))
            image_id = id_of(record, known)
            if image_id is None:
                strange.append(record)
            elif image_id in found:
                twice.append(image_id)
            else:
                found[image_id] = f"{name}#{offset}"
                marked += [image_id] if image_id != record else []
    notes = marked_otherwise(marked)
    if strange:
        notes.append(f"{len(strange)} TFRecords are of no row and left out: {first_five(strange)}")
    if twice:
        notes.append(
            f"{len(twice)} TFRecords repeat an image, the first counts: {first_five(twice)}"
        )
    return references(ids, found), notes


def _refuse_empty(path: Path) -> None:
    """A download that broke off at once looks like a file without records."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); download it again, or remove it")


def _name_of(value: Any) -> str:
    """The image's id; a record without one gets a name that no row has."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "(no image_name)"
