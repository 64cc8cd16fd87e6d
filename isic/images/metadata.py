"""Original image bytes without EXIF, comments and other data apart from the pixels.

EXIF holds places, names, serial numbers and dates, comments anything; a pack is copied to clusters
and shared. Pixels stay bit for bit: what colour and orientation need is kept or written again.
Unit: one file's bytes in, the same format out, or PNG where a format cannot be cut that way.
Trap: a thumbnail is a picture as well, and so is what a phone appends after the end.
"""

import re
import struct

import cv2

from isic.images import jpeg, png, webp
from isic.images.decode import Decoded, ImageError

# sBIT says how 16 bits are meant; transparency is left out of what is decoded.
_PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"sBIT")
_WEBP_KEPT = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_WEBP_SAYS_MORE = 0b101100  # bits of VP8X: ICC, EXIF, XMP
# JFIF of 16 bytes, which has no thumbnail, and the first table after it.
_PLAIN_JFIF, _TABLES = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", b"\xff\xdb"
_APPLICATION_OR_END = re.compile(rb"\xff[\xe0-\xef\xfe\xd9]")


def without_metadata(data: bytes, decoded: Decoded) -> bytes:
    """Return bytes that decode to the same pixels, without EXIF, XMP, ICC, comments and the like.

    decoded: What `examine` made of `data`, at whatever size, a JPEG's; at full size of others.
    """
    if jpeg.is_jpeg(data):
        return _of_jpeg(data, decoded)
    if data.startswith(png.SIGNATURE):
        return _of_png(data, decoded.orientation)
    if data[:4] == b"RIFF":
        return _of_webp(data, decoded.orientation)
    # TIFF and BMP, whose tags and gaps lie anywhere
    done, encoded = cv2.imencode(".png", decoded.pixels[..., ::-1])
    if not done:
        raise ImageError(f"pixels of shape {decoded.pixels.shape} cannot be written as PNG")
    return encoded.tobytes()


def _tiff(orientation: int) -> bytes:
    """A TIFF header with one tag, as EXIF stores it."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _of_jpeg(data: bytes, decoded: Decoded) -> bytes:
    """Colour needs JFIF's and Adobe's segments alone."""
    turned = decoded.orientation in range(2, 9)
    if decoded.strict and not turned and data[:11] == _PLAIN_JFIF and data[20:22] == _TABLES:
        # Nearly every file of an archive: what is looked for first stands at its end.
        found = _APPLICATION_OR_END.search(data, 20)
        if found is not None and found.start() == len(data) - 2:
            return data
    kept = [jpeg.SOI]
    if turned:
        exif = b"Exif\0\0" + _tiff(decoded.orientation)
        kept.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    for marker, piece in jpeg.pieces(data):
        if marker == jpeg.APP0 and piece[4:9] == b"JFIF\0" and len(piece) >= 18:
            kept.append(b"\xff\xe0\0\x10" + piece[4:16] + b"\0\0")  # a thumbnail of 0 x 0
        elif marker == jpeg.APP14 and piece[4:9] == b"Adobe" and len(piece) >= 16:
            kept.append(b"\xff\xee\0\x0e" + piece[4:16])
        elif not (jpeg.APP0 <= marker <= jpeg.APP15 or marker == jpeg.COM):
            kept.append(piece)
    return b"".join(kept)


def _of_png(data: bytes, orientation: int) -> bytes:
    kept = [(name, body) for name, body, _ in png.chunks(data) if name in _PNG_KEPT]
    if orientation in range(2, 9):
        kept.insert(1, (b"eXIf", _tiff(orientation)))
    return png.SIGNATURE + b"".join(png.chunk(name, body) for name, body in kept)


def _of_webp(data: bytes, orientation: int) -> bytes:
    turned = orientation in range(2, 9)
    kept = []
    for name, body in webp.chunks(data):
        if name == b"VP8X":
            flags = body[0] & ~_WEBP_SAYS_MORE | (0b1000 if turned else 0)
            kept.append(webp.chunk(name, bytes((flags,)) + body[1:]))
        elif name in _WEBP_KEPT:
            kept.append(webp.chunk(name, body))
    if turned:
        kept.append(webp.chunk(b"EXIF", _tiff(orientation)))
    content = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(content).to_bytes(4, "little") + content
