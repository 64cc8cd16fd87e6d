"""A writer of TFRecords that shares nothing with the reader under test."""

import struct

import google_crc32c


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def values(feature: object, *, packed: bool) -> bytes:
    """A tf.train.Feature: bytes, or a list of int or float."""
    if isinstance(feature, bytes):
        return field(1, field(1, feature))
    if all(isinstance(v, int) for v in feature):
        if packed:
            return field(3, field(1, b"".join(map(varint, feature))))
        return field(3, b"".join(varint(1 << 3) + varint(v) for v in feature))
    floats = [struct.pack("<f", v) for v in feature]
    if packed:
        return field(2, field(1, b"".join(floats)))
    return field(2, b"".join(varint(1 << 3 | 5) + v for v in floats))


def record(features: dict[str, object], *, packed: bool = True) -> bytes:
    """A record as TensorFlow writes it; packed=False as older protobuf wrote numbers."""
    pairs = [
        field(1, field(1, k.encode()) + field(2, values(v, packed=packed)))
        for k, v in features.items()
    ]
    return framed(field(1, b"".join(pairs)))


def framed(data: bytes) -> bytes:
    """Data with its length and the two checksums."""
    out = b""
    for part in (struct.pack("<Q", len(data)), data):
        crc = google_crc32c.value(part)
        masked = ((crc >> 15) + ((crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
        out += part + struct.pack("<I", masked)
    return out
