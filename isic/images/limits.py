"""Limits that refuse an image before memory or time is spent on it; each names its key.

Unit: pixels of one image; bytes where a container states or inflates them.
"""

# A phone's 50 megapixels (8192 x 6144); the largest image of an archive has 24 (ISIC 2020).
MAX_PIXELS = 50_400_000
# The most that an uncompressed image of so many pixels takes: four channels of 16 bits.
PIXEL_BYTES = 8
ALLOWANCE = 1 << 24  # bytes of whatever else a container holds


class ImageError(ValueError):
    """These bytes are no whole image; the message is the reason, without a name."""


def over_limit(limit: int | None) -> str:
    """The limit, and what to do about it."""
    said = "" if limit is None else f" of {limit / 1e6:g} megapixels"
    return f"over the limit{said}; raise data.max_megapixels, or store it smaller"


def refuse_bomb(height: int, width: int, limit: int | None = MAX_PIXELS) -> None:
    """Refuse by the header alone, before any memory for pixels is taken; None knows no limit."""
    if limit is not None and height * width > limit:
        size = f"{width} x {height} pixels ({height * width / 1e6:.1f} megapixels)"
        raise ImageError(f"{size}, {over_limit(limit)}")


def refuse_bytes(n_bytes: int, what: str, limit: int | None = MAX_PIXELS) -> None:
    """Refuse `what` of more bytes than an image within the limit of pixels can take."""
    if limit is not None and n_bytes > PIXEL_BYTES * limit + ALLOWANCE:
        raise ImageError(f"{what} of {n_bytes:,} bytes, {over_limit(limit)}")
