"""Is every image there, and whole? Each is read and decoded once, to its last byte.

Source: the index (already validated) and the files its `image` column refers to.
Unit: one row per image, in the order of the table; about 8,000 tiles a second and core.
Trap: the header of a truncated JPEG is sound, so that all of it is decoded, strictly; a large one
to fewer pixels, which reads every byte too (24 megapixels in 61 ms, not 225).
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import pandas as pd
import simplejpeg

from isic.images.decode import MAX_PIXELS, ImageError, Pixels, examine
from isic.images.fingerprint import DECODED_SIDE, PRINT, fingerprint
from isic.images.scan import scan
from isic.images.sources import Ref
from isic.index.schema import Index

OK, MISSING, UNREADABLE = "ok", "missing", "unreadable"
TITLE = "checking images"
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WEBP",
}


class ImageFacts(NamedTuple):
    """What one image is: sides in pixels as stored, bytes, format; `fault` where it is none.

    note: What had to be guessed of it.
    """

    width: int
    height: int
    n_bytes: int
    format: str
    fault: str = ""
    note: str = ""


def image_facts(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode all of it and say what it was. Never raises: the reason stands in `fault`."""
    return _decoded(data, max_pixels)[0]


def facts_and_print(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[ImageFacts, bytes]:
    """The facts and the fingerprint, decoded once."""
    facts, image = _decoded(data, max_pixels)
    return facts, fingerprint(data, image, max_pixels=max_pixels)


def _decoded(data: bytes, max_pixels: int) -> tuple[ImageFacts, Pixels | None]:
    """The facts, and the pixels that a fingerprint is made of."""
    name = format_of(data)
    try:
        image, _, _, note = examine(data, min_side=DECODED_SIDE, max_pixels=max_pixels)
    except ImageError as error:
        return ImageFacts(0, 0, len(data), name, str(error) or "does not decode"), None
    height, width = image.shape[:2]
    if name == "JPEG":  # others are never reduced
        with suppress(ValueError, KeyError):  # one that Pillow alone can read, at full size
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
    return ImageFacts(width, height, len(data), name, note=note), image


def format_of(data: bytes) -> str:
    """The format that the first bytes claim, `other` where they claim none we know."""
    if data[128:132] == b"DICM":
        return "DICOM"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), "other")


def read_images(index: Index, *, workers: int | None = None, progress: bool = True) -> pd.DataFrame:
    """The facts of every image, row for row: status, width, height, n_bytes, format, fault.

    Raises:
        DataError: A store that does not open says nothing of single images.
    """
    refs = _refs(index)
    work = partial(image_facts, max_pixels=index.max_pixels)
    read = scan(index.sources, refs, work, workers=workers, progress=progress, title=TITLE)
    return _frame(index, read)


def read_with_prints(
    index: Index, *, workers: int | None = None, progress: bool = True
) -> tuple[pd.DataFrame, bytearray]:
    """The same in one pass with the fingerprints of the rows that have a reference, end to end."""
    refs = _refs(index)
    work = partial(facts_and_print, max_pixels=index.max_pixels)
    read = scan(index.sources, refs, work, workers=workers, progress=progress, title=TITLE)
    prints = bytearray(PRINT.itemsize * sum(ref is not None for ref in refs))

    def facts_alone() -> Iterator[ImageFacts | OSError | None]:
        at = 0
        for ref, result in zip(refs, read, strict=True):
            if result is None or isinstance(result, OSError):
                yield result
            else:
                prints[at : at + PRINT.itemsize] = result[1]
                yield result[0]
            at += PRINT.itemsize if ref is not None else 0

    return _frame(index, facts_alone()), prints


def _refs(index: Index) -> list[Ref]:
    refs = index.table["image"].astype("object")
    return list(refs.where(refs.notna(), None))


def _frame(index: Index, read: Iterable[ImageFacts | OSError | None]) -> pd.DataFrame:
    """A row of facts for each row of the table."""
    status, facts = [], []
    absent = ImageFacts(0, 0, 0, "")
    for result in read:
        if result is None:
            status.append(MISSING)
            facts.append(absent)
        elif isinstance(result, OSError):
            status.append(UNREADABLE)
            facts.append(absent._replace(fault=str(result)))
        else:
            status.append(UNREADABLE if result.fault else OK)
            facts.append(result)
    frame = pd.DataFrame(facts, columns=list(ImageFacts._fields), index=index.table.index)
    frame.insert(0, "status", status)
    return frame
