"""TIFF facts that Pillow's reader does not check: sides of tiles, depth, JPEG strips.

Source: TIFF 6.0 (Adobe) and its Technical Note 2 on JPEG; tags by number as Pillow reads them.
Trap: libtiff only warns of a damaged JPEG strip, and takes its memory by a tile's sides, which may
be far above the image's.
"""

from typing import Any

from PIL import Image

from isic.images import jpeg

_BITS, _COMPRESSION, _MIN, _MAX, _SMIN, _SMAX = 258, 259, 280, 281, 340, 341
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_TILE_WIDTH, _TILE_HEIGHT, _JPEG_TABLES = 322, 323, 347
_JPEG = 7  # of Compression


def _numbers(image: Image.Image, *names: int) -> tuple[int, ...]:
    """The values of the first of these tags that is there."""
    tags: Any = getattr(image, "tag_v2", {})
    found = next((tags[name] for name in names if name in tags), ())
    return tuple(int(n) for n in (found if isinstance(found, tuple) else (found,)))


def tile_sides(image: Image.Image) -> tuple[int, int]:
    """Height and width of a tile in pixels; 1 where there are none."""
    return max(_numbers(image, _TILE_HEIGHT) or (1,)), max(_numbers(image, _TILE_WIDTH) or (1,))


def depth(image: Image.Image) -> tuple[int, tuple[int, int] | None]:
    """Bits a sample, and the values of black and white by the file's own word; None without it."""
    bits, named = max(_numbers(image, _BITS) or (1,)), _numbers(image, _SMAX, _MAX)
    white = max(named) if named else 2**bits - 1 if bits < 16 else 0
    black = max(_numbers(image, _SMIN, _MIN) or (0,))
    return bits, (black, white) if 0 <= black < white <= 0xFFFF else None


def fault(data: bytes, image: Image.Image) -> str:
    """Return what libjpeg finds damaged in JPEG strips or tiles; empty where nothing is."""
    if _numbers(image, _COMPRESSION) != (_JPEG,):
        return ""
    tables = getattr(image, "tag_v2", {}).get(_JPEG_TABLES, b"")
    starts, sizes = _numbers(image, _STRIPS, _TILES), _numbers(image, _STRIP_BYTES, _TILE_BYTES)
    for start, size in zip(starts, sizes, strict=False):
        # The tables are a file of their own, of which SOI and EOI are not wanted.
        found = jpeg.fault(jpeg.SOI + tables[2:-2] + data[start + 2 : start + size])
        if found:
            return found
    return ""
