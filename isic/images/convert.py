"""What becomes of one image on its way into a pack: checked, and where asked for made smaller.

Without options the original bytes are kept, without EXIF, comments and the like (`metadata`).
`resize` and `pixels` decode at a reduced scale of the JPEG (a half, a quarter, an eighth), never
below the target.

Trap: `resize` encodes each image again (quality 95) and so changes its pixels a little. All images
get that shorter side, those below it too: they are enlarged, not kept.
"""

from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from isic.images.appearance import MIN_KEPT, crop_border, shades_of_gray
from isic.images.decode import MAX_PIXELS, ImageError, Pixels, examine, fit, halved
from isic.images.metadata import without_metadata
from isic.images.packfile import MISSING, OK, UNREADABLE

QUALITY = 95  # of `resize`: 35.8 dB against a direct resize, measured at 1024 -> 256


class Options(NamedTuple):
    """What to do with each image; all of it is part of a pack's key.

    resize: Shorter side in pixels that images are brought to and encoded again with.
    pixels: Side in pixels of decoded squares to store in place of encoded bytes.
    crop_border: Cut off the black border that a dermoscope's round view leaves.
    colour_constancy: Give every image the colours of white light (Shades of Gray).
    max_pixels: Larger images are refused before they are decoded.
    """

    resize: int | None = None
    pixels: int | None = None
    crop_border: bool = False
    colour_constancy: bool = False
    max_pixels: int = MAX_PIXELS

    def checked(self) -> "Options":
        """These options; ValueError for a combination that would change bytes unasked."""
        if self.resize is not None and self.pixels is not None:
            raise ValueError(f"expected resize or pixels, got {self.resize} and {self.pixels}")
        if (self.crop_border or self.colour_constancy) and not (self.resize or self.pixels):
            raise ValueError(
                "expected resize or pixels with crop_border or colour_constancy, got neither: "
                "the original images would be encoded again at their full size"
            )
        return self


class Row(NamedTuple):
    """One image as it is stored: bytes, status, and why it is not OK, or what was guessed."""

    data: bytes
    status: int
    reason: str


def convert(data: bytes | OSError | None, options: Options) -> Row:
    """Check one image by decoding it, and bring it into the pack's form."""
    blank = bytes(3 * options.pixels**2) if options.pixels else b""
    if data is None:
        return Row(blank, MISSING, "no such image in the archive")
    if isinstance(data, OSError):
        return Row(blank, UNREADABLE, str(data))
    side = options.pixels or options.resize
    # What is left after the crop is to be no smaller than the target either.
    min_side = ceil(side / MIN_KEPT) if side and options.crop_border else side
    try:
        decoded = examine(data, min_side=min_side, max_pixels=options.max_pixels)
        if side is None:
            return Row(without_metadata(data, decoded), OK, decoded.note)
    except ImageError as error:
        return Row(blank, UNREADABLE, str(error))
    image = decoded.pixels
    if options.crop_border:
        image = crop_border(image)
    image = fit(image, side) if options.pixels else shorten(image, side)
    if options.colour_constancy:
        image = shades_of_gray(image)
    return Row(image.tobytes() if options.pixels else _encoded(image), OK, decoded.note)


def shorten(image: Pixels, side: int) -> Pixels:
    """Resize so that the shorter side is `side`; averages pixels before it skips any."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    image = halved(image, side)
    if size == (image.shape[1], image.shape[0]):
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _encoded(image: Pixels) -> bytes:
    """JPEG with 4:2:0 colour."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=QUALITY, colorsubsampling="420"
    )
    return encoded
