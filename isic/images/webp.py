"""WebP files chunk by chunk.

Source: RFC 9649. Unit: a chunk is four letters, its size, its content, padded to an even length.
Trap: neither form of compression has a checksum, and both decode anything to the end. What can be
seen is a part of the file that was never written.
"""

from collections.abc import Iterator

# A coder that meets a flat area writes a zero for more pixels of it than this, and a file system
# leaves whole blocks of zeros.
PIXELS_A_ZERO, SOME = 64, 64
PIXELS = (b"VP8 ", b"VP8L")


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk of the file."""
    at, end = 12, 8 + int.from_bytes(data[4:8], "little")
    while at + 8 <= min(end, len(data)):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def chunk(name: bytes, content: bytes) -> bytes:
    """Encode a chunk as a file holds it."""
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def fault(data: bytes, n_pixels: int) -> str:
    """Return what can be seen of damage; empty where nothing can."""
    zeros = bytes(max(SOME, n_pixels // PIXELS_A_ZERO))
    if any(name in PIXELS and zeros in content for name, content in chunks(data)):
        return f"{len(zeros):,} zeros and more in its compressed data"
    return ""
