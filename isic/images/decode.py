"""Encoded bytes to uint8 (H, W, 3) RGB: the one decoder of training, prediction and the demo.

JPEG goes to libjpeg-turbo (simplejpeg, strict), all else and every JPEG that it declines (CMYK,
stray bytes between markers) to Pillow; what the bytes begin with decides, never a file's name.
Images come out upright (EXIF orientation applied), without their alpha channel, 16 bits scaled
to 8 by dropping the lower byte.

Trap: `Image.verify` and a lenient decoder both pass a truncated JPEG, with a grey lower part.
Strict decoding does not, so that what decodes here is whole.
"""

import io
import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]

# Three times the largest ISIC 2020 image (6000 x 4000), and a phone's 50 (8192 x 6144) or 64
# megapixels; below the 89 at which Pillow itself begins to warn. A bomb is far larger.
MAX_PIXELS = 80_000_000
PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_HEAD_BYTES = 65_536  # a marker segment ends below 64 KiB, and Exif comes first or second
_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF orientation: turn or flip that brings the stored rows upright
    2: (None, 1), 3: (cv2.ROTATE_180, None), 4: (None, 0), 5: (cv2.ROTATE_90_CLOCKWISE, 1),
    6: (cv2.ROTATE_90_CLOCKWISE, None), 7: (cv2.ROTATE_90_COUNTERCLOCKWISE, 1),
    8: (cv2.ROTATE_90_COUNTERCLOCKWISE, None),
}  # fmt: skip


class ImageError(ValueError):
    """These bytes are no whole image; the message is the reason, without a name."""


def decode(data: bytes | npt.NDArray[Any], *, min_side: int | None = None) -> Pixels:
    """Decode `data`; sides may come out reduced, but not below `min_side` where they were above.

    Raises ImageError with the reason: empty, not an image, truncated, too many pixels.
    """
    if len(data) == 0:
        raise ImageError("empty: 0 bytes")
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # no JPEG, or one that Pillow may still read
        return _decode_with_pillow(data)
    refuse_bomb(height, width)
    if space in ("CMYK", "YCCK"):
        return _decode_with_pillow(data)
    try:
        shrink = _shrink(min(height, width), min_side)
        if shrink == 1:
            image: Pixels = simplejpeg.decode_jpeg(data)
        else:
            image = simplejpeg.decode_jpeg(
                data, min_height=-(-height // shrink), min_width=-(-width // shrink)
            )
    except ValueError:
        return _decode_with_pillow(data)
    head = bytes(data[:_HEAD_BYTES])
    # Application segments come before the first table: a search to there alone costs 0.5 us.
    at = head.find(b"Exif\0\0", 0, head.find(b"\xff\xdb"))
    return image if at < 0 else _upright(image, _orientation(head[at + 6 :]))


def fit(image: Pixels, size: int, *, out: Pixels | None = None) -> Pixels:
    """Resize to (size, size, 3), not keeping the aspect; averages pixels before it skips any.

    Plain bilinear beyond a factor of 2 skips source pixels (31 dB against 39 dB at 1024 -> 224).
    """
    height, width = image.shape[:2]
    if height == width == size:
        if out is None:
            return image
        np.copyto(out, image)
        return out
    image = halved(image, size)
    # A side of up to three times the size: for an oblong image's longer one bilinear will do.
    method = cv2.INTER_AREA if max(image.shape[:2]) > 3 * size else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), dst=out, interpolation=method)  # type: ignore[return-value]


def halved(image: Pixels, size: int) -> Pixels:
    """Means of 2 x 2 pixels, again while both sides stay at `size` or above.

    A factor below 2 is left, which bilinear does well. Averaging by it at once
    (`cv2.INTER_AREA`) costs ten times as much where it is no whole number.
    """
    height, width = image.shape[:2]
    while min(height, width) >= 2 * size:
        height, width = height // 2, width // 2
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return image


def _shrink(shorter: int, min_side: int | None) -> int:
    """The power of two by which libjpeg is to shrink, so that `min_side` is left.

    Of its scales k/8 those alone have SIMD (3/8 takes longer than 1/2), and they keep the pixel
    grid where it was (37 dB against 47 dB, 180 to 56 pixels).
    """
    if min_side is None or shorter < 2 * min_side:
        return 1
    return 8 if shorter >= 8 * min_side else 4 if shorter >= 4 * min_side else 2


def refuse_bomb(height: int, width: int) -> None:
    """Refuse by the header alone, before any memory for pixels is taken."""
    if height * width > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels, over the limit of {MAX_PIXELS:,}")


def _orientation(tiff: bytes) -> int:
    """The orientation 1..8 that a TIFF header's first directory names; 1 where it does not."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(f"{order}4xI", tiff)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for at in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, at)
            if tag == _ORIENTATION:  # a short by the standard; some writers use four bytes
                return int(struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, at + 8)[0])
    except struct.error:  # cut short
        pass
    return 1


def _upright(image: Pixels, orientation: int) -> Pixels:
    turn, flip = _UPRIGHT.get(orientation, (None, None))
    if turn is not None:
        image = cv2.rotate(image, turn)  # type: ignore[assignment]
    if flip is not None:
        image = cv2.flip(image, flip)  # type: ignore[assignment]
    return image


def _decode_with_pillow(data: bytes | npt.NDArray[Any]) -> Pixels:
    """Any of PILLOW_FORMATS, in any colour mode, to RGB at full size."""
    raw = bytes(data)
    try:
        with Image.open(io.BytesIO(raw), formats=PILLOW_FORMATS) as image:
            refuse_bomb(image.height, image.width)
            image.load()  # a TIFF is turned upright here, and then says so
            return _upright(_to_rgb(image), _exif_orientation(image))
    except Image.DecompressionBombError as error:
        raise ImageError(f"over the limit of {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image: begins with {raw[:8]!r}, {len(raw):,} bytes") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, EOFError, ...
        raise ImageError(f"truncated or damaged, {len(raw):,} bytes: {error}") from error


def _to_rgb(image: Image.Image) -> Pixels:
    """RGB of 8 bits; Pillow's own conversion clips 16-bit grey, and all of it turns white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ImageError(f"pixels of 32 bits ({image.mode}) have no known scale; store 8 or 16")
    return np.asarray(image.convert("RGB"))


def _exif_orientation(image: Image.Image) -> int:
    """As Pillow reads it; damaged EXIF says nothing, and is no reason to refuse whole pixels."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # SyntaxError, struct.error, ValueError, ...
        return 1
