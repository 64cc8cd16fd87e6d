"""Samples of 16 bits to 8, by the bits that are used: 12 of 16 would come out nearly black.

Source: TIFF 6.0, Min- and MaxSampleValue (280, 281) and their SMin-, SMaxSampleValue (340, 341);
PNG's sBIT. What the file says counts where its values agree with it.
The rule where it says nothing: the least of 8, 10, 12, 14 and 16 bits that holds the image's
highest value; the decoder returns a note.
Trap: a PNG with sBIT should hold its bits at the upper end, filled below with the same bits again;
many writers leave them at the lower end.
"""

import numpy as np
import numpy.typing as npt

from isic.images import png

DEPTHS = (8, 10, 12, 14, 16)

Deep = npt.NDArray[np.uint16]
Said = tuple[int, int] | None  # black and white by the file's own word


def to_8_bits(deep: Deep, said: Said = None) -> tuple[npt.NDArray[np.uint8], str]:
    """Return the samples in 8 bits, the others cut off, and a note where their scale is a guess."""
    lowest, highest = int(deep.min(initial=0xFFFF)), int(deep.max(initial=0))
    note = ""
    if said is not None and said[0] <= lowest and highest <= said[1]:
        black, white = said
    else:
        bits = least_depth(highest)
        black, white = 0, 2**bits - 1
        if bits < 16:
            note = f"16-bit values that fit in {bits} bits, read as {bits} bits"
    if (black, white) == (0, 0xFFFF):
        return (deep >> 8).astype(np.uint8), note
    scaled = (deep.astype(np.uint32) - black) * 256 // (white - black + 1)
    return scaled.astype(np.uint8), note


def least_depth(highest: int) -> int:
    """The rule: the least of `DEPTHS` that holds this value."""
    return next(bits for bits in DEPTHS if highest < 2**bits)


def said_by_png(data: bytes, deep: Deep) -> Said:
    """Black and white by sBIT; None without one."""
    bits = next((max(body) for name, body, _ in png.chunks(data) if name == b"sBIT" and body), 0)
    if not 0 < bits <= 16:
        return None
    low = deep & (2 ** (16 - bits) - 1)
    # At the upper end, with zeros below or with the bits again; either way black stays black.
    upper = bits == 16 or not low.any() or (bits >= 8 and bool((low == deep >> bits).all()))
    return (0, 0xFFFF) if upper else (0, 2**bits - 1)
