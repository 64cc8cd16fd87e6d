"""PNG files chunk by chunk: their checksums, which Pillow leaves unread, and depth.

Source: PNG specification, third edition (W3C), sections 5 and 11.
Trap: Pillow passes over the checksums of IDAT, and over whatever a damaged stream still inflates
to.
"""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 25  # after IHDR, which comes first


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield name, content and whether its checksum holds of each chunk, to IEND or the end."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + size]
        stored = data[at + 8 + size : at + 12 + size]
        yield body[:4], body[4:], stored == zlib.crc32(body).to_bytes(4, "big")
        if body[:4] == b"IEND":
            return
        at += 12 + size


def chunk(name: bytes, content: bytes) -> bytes:
    """Encode a chunk as a file holds it."""
    body = name + content
    return struct.pack(">I", len(content)) + body + zlib.crc32(body).to_bytes(4, "big")


def fault(data: bytes) -> str:
    """Return what is damaged in chunks that pixels depend on; empty where nothing is."""
    name = b""
    for name, _, whole in chunks(data):
        # A capital first letter: pixels cannot be had without it. Transparency is left out.
        if not whole and name[:1].isupper():
            return f"checksum of chunk {name.decode('latin-1')} does not match"
    return "" if name == b"IEND" else "no IEND at its end"
