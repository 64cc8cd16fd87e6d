"""TFRecord files of `tf.train.Example`, as SIIM-ISIC 2020 was stored by C. Deotte.

Trap: a compressed file, or an offset between records, shows only as a wrong checksum.
"""

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from struct import error, iter_unpack
from typing import Any, BinaryIO

import google_crc32c

from isic.errors import DataError
from isic.images.decode import ImageError

Features = dict[str, bytes | list[bytes] | list[int] | list[float]]  # a list of one bytes: bare


def read_record(path: str | Path, offset: int) -> Features:
    """The record that begins at byte `offset`; ImageError where none does, or it is not whole."""
    with open(path, "rb") as file:
        file.seek(offset)
        return _example(file, offset)


def records(path: str | Path) -> Iterator[tuple[int, Features]]:
    """Every record with its offset; DataError where one is not whole."""
    with open(path, "rb") as file:
        try:
            while file.peek(1):
                offset = file.tell()
                yield offset, _example(file, offset)
        except ImageError as fault:
            raise DataError(f"{fault}; download the file again") from fault


def _example(file: BinaryIO, offset: int) -> Features:
    data = _checked(file, int.from_bytes(_checked(file, 8, offset), "little"), offset)
    try:
        pairs = [dict(_fields(pair)) for _, group in _fields(data) for _, pair in _fields(group)]
        return {pair[1].decode(): _values(pair.get(2, b"")) for pair in pairs}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, error) as fault:
        raise ImageError(f"{file.name}: no tf.train.Example at byte {offset}") from fault


def _checked(file: BinaryIO, size: int, offset: int) -> bytes:
    """The next `size` bytes, which their masked CRC-32C follows.

    What the file does not hold is not asked for: memory would be taken for it first.
    """
    left = os.fstat(file.fileno()).st_size - file.tell() - 4
    data, stored = file.read(min(size, max(left, 0))), file.read(4)
    if len(data) < size or len(stored) < 4:
        raise ImageError(f"{file.name}: truncated in the record at byte {offset}")
    crc = google_crc32c.value(data)
    if ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF != int.from_bytes(stored, "little"):
        raise ImageError(f"{file.name}: no TFRecord at byte {offset}, or a damaged one (CRC-32C)")
    return data


def _values(feature: bytes) -> Any:
    """Of the lists bytes (1), float (2) and int64 (3) the one that is there; numbers are packed."""
    for kind, content in _fields(feature):
        values = [value for _, value in _fields(content)]
        if kind == 1:
            return values[0] if len(values) == 1 else values
        if kind == 2:
            return [number for part in values for (number,) in iter_unpack("<f", part)]
        plain = [n for v in values for n in ([v] if isinstance(v, int) else _varints(BytesIO(v)))]
        return [n - (n >> 63 << 64) for n in plain]  # two's complement
    return []


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: int, or bytes yet to be read."""
    stream = BytesIO(message)
    while stream.tell() < len(message):
        number, kind = divmod(next(_varints(stream)), 8)
        size = {1: 8, 5: 4}.get(kind)
        plain = next(_varints(stream)) if size is None else size
        yield number, plain if kind == 0 else stream.read(plain)


def _varints(stream: BytesIO) -> Iterator[int]:
    """Numbers in groups of seven bits, the lowest first; the eighth bit says that more follow."""
    number = shift = 0
    while byte := stream.read(1):
        number |= (byte[0] & 127) << shift
        shift += 7
        if shift > 70:
            raise ValueError("a number of more than 64 bits")
        if byte[0] < 128:
            yield number
            number = shift = 0
