"""Encoded bytes to uint8 (H, W, 3) RGB: the one decoder of training, prediction and the demo.

JPEG goes to libjpeg-turbo (simplejpeg, strict), all else and every JPEG that it declines (CMYK,
stray bytes between markers) to Pillow, once it is known that nothing is damaged; what the bytes
begin with decides, never a file's name. Images come out upright (EXIF orientation applied), without
their alpha channel, 16 bits scaled to 8 (`depth`).

Trap: `Image.verify` and a lenient decoder both pass a truncated JPEG, with a grey lower part, and
Pillow is one. Strict decoding is not, and costs nothing: what decodes here is whole, as far as
libjpeg, a PNG's checksums or the format's own structure can tell.
"""

import io
import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from isic.images import jpeg, png, tiff, webp
from isic.images.depth import Deep, Said, said_by_png, to_8_bits
from isic.images.limits import MAX_PIXELS, ImageError, over_limit, refuse_bomb

__all__ = ["MAX_PIXELS", "Decoded", "ImageError", "Pixels", "decode", "examine", "fit", "halved"]

Pixels = npt.NDArray[np.uint8]

PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_HEAD_BYTES = 65_536  # a marker segment ends below 64 KiB, and Exif comes first or second
_ORIENTATION = 0x0112
_PNG_DEPTH = 24  # where IHDR says it
_UPRIGHT = {  # EXIF orientation: turn or flip that brings the stored rows upright
    2: (None, 1), 3: (cv2.ROTATE_180, None), 4: (None, 0), 5: (cv2.ROTATE_90_CLOCKWISE, 1),
    6: (cv2.ROTATE_90_CLOCKWISE, None), 7: (cv2.ROTATE_90_COUNTERCLOCKWISE, 1),
    8: (cv2.ROTATE_90_COUNTERCLOCKWISE, None),
}  # fmt: skip


_UNREAD = {
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "PSD",
}


class Decoded(NamedTuple):
    """An image, and what is to be known of how it came about.

    orientation: 1..8, already applied to `pixels`.
    strict: Decoded by simplejpeg, so that no stray byte stands between its segments.
    note: What was guessed; empty where nothing was.
    """

    pixels: Pixels
    orientation: int = 1
    strict: bool = False
    note: str = ""


def decode(
    data: bytes | npt.NDArray[Any],
    *,
    min_side: int | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> Pixels:
    """Decode `data`; sides may come out reduced, but not below `min_side` where they were above.

    max_pixels: Of the whole image; None for bytes that were examined before.

    Raises ImageError with the reason: empty, not an image, truncated, damaged, too large.
    """
    return examine(data, min_side=min_side, max_pixels=max_pixels).pixels


def examine(
    data: bytes | npt.NDArray[Any],
    *,
    min_side: int | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> Decoded:
    """The same, with what was found on the way."""
    if len(data) == 0:
        raise ImageError("empty: 0 bytes")
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # no JPEG, or one that Pillow may still read
        return _with_pillow(bytes(data), max_pixels)
    if max_pixels is not None:
        refuse_bomb(height, width, max_pixels)
        jpeg.refuse_scans(bytes(data), height * width)
    if space in ("CMYK", "YCCK"):
        return _with_pillow(bytes(data), max_pixels)
    try:
        shrink = _shrink(min(height, width), min_side)
        if shrink == 1:
            image: Pixels = simplejpeg.decode_jpeg(data)
        else:
            image = simplejpeg.decode_jpeg(
                data, min_height=-(-height // shrink), min_width=-(-width // shrink)
            )
    except (ValueError, KeyError):
        return _with_pillow(bytes(data), max_pixels)
    start = bytes(data[:22])
    # JFIF of the usual length, and the first table after it: no EXIF can be there.
    if start[3:6] == b"\xe0\0\x10" and start[20:] == b"\xff\xdb":
        return Decoded(image, 1, True)
    head = bytes(data[:_HEAD_BYTES])
    # Application segments come before the first table: a search to there alone costs 0.5 us.
    at = head.find(b"Exif\0\0", 0, head.find(b"\xff\xdb"))
    if at < 0:
        return Decoded(image, strict=True)
    orientation = _orientation(head[at + 6 :])
    return Decoded(_upright(image, orientation), orientation, strict=True)


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


def _with_pillow(data: bytes, max_pixels: int | None) -> Decoded:
    """Any of PILLOW_FORMATS, in any colour mode, to RGB at full size."""
    _lift_pillows_limit(max_pixels)
    if jpeg.is_jpeg(data) and data[2:3] != b"\xff":  # stray bytes at once: Pillow knows it no more
        data = jpeg.SOI + b"".join(piece for _, piece in jpeg.pieces(data))
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
            refuse_bomb(image.height, image.width, max_pixels)
            note = "" if max_pixels is None else _refuse_damaged(data, image, max_pixels)
            # A TIFF's tags are gone once it is loaded.
            bits, said = tiff.depth(image) if image.format == "TIFF" else (_png_depth(data), None)
            image.load()  # a TIFF is turned upright here, and then says so
            pixels, guessed = _to_rgb(image, data, bits, said)
            orientation = _exif_orientation(image)
            return Decoded(_upright(pixels, orientation), orientation, note=note or guessed)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{error}: {over_limit(max_pixels)}") from error
    except UnidentifiedImageError as error:
        if other := _unread_format(data):  # under any name: phones write HEIC into x.jpg
            raise ImageError(f"a {other} file, which is not read: convert it to JPEG") from error
        raise ImageError(f"not an image: begins with {data[:8]!r}, {len(data):,} bytes") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, EOFError, ...
        raise ImageError(f"truncated or damaged, {len(data):,} bytes: {error}") from error


def _unread_format(raw: bytes) -> str | None:
    """The format that the first bytes claim, of those that are known and not read."""
    if raw[4:8] == b"ftyp":
        return "AVIF" if raw[8:12] in (b"avif", b"avis") else "HEIC"
    return next((name for magic, name in _UNREAD.items() if raw.startswith(magic)), None)


def _lift_pillows_limit(max_pixels: int | None) -> None:
    """Pillow has a limit of its own, which no call can raise, only its module."""
    own = Image.MAX_IMAGE_PIXELS
    if own is not None and (max_pixels is None or max_pixels > own):
        Image.MAX_IMAGE_PIXELS = max_pixels


def _refuse_damaged(data: bytes, image: Image.Image, max_pixels: int) -> str:
    """Look for what Pillow would pass over; returns a note where that cannot be done."""
    found = ""
    if jpeg.is_jpeg(data):
        jpeg.refuse_scans(data, image.height * image.width)
        found = jpeg.fault(data)
    elif data.startswith(png.SIGNATURE):
        found = png.fault(data)
    elif image.format == "TIFF":
        refuse_bomb(*tiff.tile_sides(image), max_pixels)
        found = tiff.fault(data, image)
    elif image.format == "WEBP":
        found = webp.fault(data, image.height * image.width)
    if found in ("", jpeg.UNTOLD):
        return found
    raise ImageError(f"truncated or damaged, {len(data):,} bytes: {found}")


def _png_depth(data: bytes) -> int:
    """Bits a sample by a PNG's header; 8 of anything else."""
    return data[_PNG_DEPTH] if data.startswith(png.SIGNATURE) else 8


def _to_rgb(image: Image.Image, data: bytes, bits: int, said: Said) -> tuple[Pixels, str]:
    """RGB of 8 bits and a note; Pillow's own conversion clips 16-bit grey, which turns white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        deep = np.asarray(image).astype(np.uint16)
        grey, note = to_8_bits(deep, said or said_by_png(data, deep))
        return np.repeat(grey[..., None], 3, axis=-1), note
    if image.mode in ("I", "F"):
        raise ImageError(f"pixels of 32 bits ({image.mode}) have no known scale; store 8 or 16")
    pixels: Pixels = np.asarray(image.convert("RGB"))
    if bits <= 8:
        return pixels, ""
    # Pillow drops the lower byte of 16-bit colour: what is left of 12 bits is nearly black.
    colour = image.mode in ("RGB", "RGBA", "RGBX", "LA")  # OpenCV takes CMYK for RGBA
    deep_colour = _deep_colour(data, pixels.shape[:2]) if colour else None
    if deep_colour is None:
        return pixels, f"colour of {bits} bits, of which the lower ones could not be read"
    return to_8_bits(deep_colour, said or said_by_png(data, deep_colour))


def _deep_colour(data: bytes, shape: tuple[int, ...]) -> Deep | None:
    """16-bit colour (H, W, 3), upright; None where the file has 8 bits a sample."""
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.ndim != 3 or found.shape[:2] != shape:
        return None
    return np.ascontiguousarray(found[..., 2::-1])  # OpenCV reads BGR, alpha after it


def _exif_orientation(image: Image.Image) -> int:
    """As Pillow reads it; damaged EXIF says nothing, and is no reason to refuse whole pixels."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # SyntaxError, struct.error, ValueError, ...
        return 1
