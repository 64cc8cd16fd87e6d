"""Encoded bytes to uint8 (H, W, 3) RGB: the one decoder of training, prediction and the demo.

JPEG goes to libjpeg-turbo (simplejpeg, strict), all else and every JPEG that it declines (CMYK,
stray bytes between markers) to Pillow. Pixels are those stored: an EXIF rotation is not applied.

Trap: `Image.verify` and a lenient decoder both pass a truncated JPEG, with a grey lower part.
Strict decoding does not, so that what decodes here is whole.
"""

import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000  # twice the largest ISIC 2020 image (6000 x 4000); a bomb is far larger
PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_SHRINK = 2  # below this factor libjpeg's partial IDCTs have no SIMD and cost more than they save


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
    _refuse_bomb(height, width)
    if space in ("CMYK", "YCCK"):
        return _decode_with_pillow(data)
    try:
        if min_side is None or min(height, width) < _SHRINK * min_side:
            return simplejpeg.decode_jpeg(data)  # type: ignore[no-any-return]
        return simplejpeg.decode_jpeg(  # type: ignore[no-any-return]
            data, min_height=min_side, min_width=min_side, min_factor=_SHRINK
        )
    except ValueError:
        return _decode_with_pillow(data)


def fit(image: Pixels, size: int, *, out: Pixels | None = None) -> Pixels:
    """Resize to (size, size, 3), not keeping the aspect; averages areas from a factor of 2 on.

    Plain bilinear beyond a factor of 2 skips source pixels (31 dB against 39 dB at 1024 -> 224).
    """
    height, width = image.shape[:2]
    if height == width == size:
        if out is None:
            return image
        np.copyto(out, image)
        return out
    method = cv2.INTER_AREA if max(height, width) >= _SHRINK * size else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), dst=out, interpolation=method)  # type: ignore[return-value]


def _refuse_bomb(height: int, width: int) -> None:
    """Refuse by the header alone, before any memory for pixels is taken."""
    if height * width > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels, over the limit of {MAX_PIXELS:,}")


def _decode_with_pillow(data: bytes | npt.NDArray[Any]) -> Pixels:
    """Any of PILLOW_FORMATS, in any colour mode, to RGB at full size."""
    raw = bytes(data)
    try:
        with Image.open(io.BytesIO(raw), formats=PILLOW_FORMATS) as image:
            _refuse_bomb(image.height, image.width)
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise ImageError(f"over the limit of {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image: begins with {raw[:8]!r}, {len(raw):,} bytes") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, EOFError, ...
        raise ImageError(f"truncated or damaged, {len(raw):,} bytes: {error}") from error
