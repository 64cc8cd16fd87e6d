"""Where what a killed process wrote for W&B ends.

A `.wandb` file is a LevelDB log: blocks of 32 KiB after a header of 7 bytes, each chunk with
checksum, length and type. W&B writes a block when it is full, and the rest every ten seconds or so:
what a killed run leaves may end in the middle of a record, or hold none.
The trap: W&B's `sync` refuses such a file, and every later part of the same run with it.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

BLOCK = 32768
HEAD = struct.Struct("<IHB")
START = 7  # bytes before the first chunk
NOTHING, WHOLE, LAST = (
    0,
    1,
    4,
)  # types of a chunk; 2 and 3 are the first and middle ones of a record


def whole_size(file: BinaryIO) -> int:
    """Bytes up to the end of the last whole record; `START` or less where there is none."""
    size = file.seek(0, os.SEEK_END)
    place, whole = START, min(START, size)
    while place + HEAD.size <= size:
        left = BLOCK - place % BLOCK
        file.seek(place)
        _, length, kind = HEAD.unpack(file.read(HEAD.size))
        if left < HEAD.size or kind == NOTHING:
            place += left
            continue
        place += HEAD.size + length
        if kind in (WHOLE, LAST) and place <= size:
            whole = place
    return whole


def holds_records(folder: Path) -> bool:
    """Whether the `.wandb` file of an `offline-run-*` folder has anything to send."""
    for path in folder.glob("*.wandb"):
        with path.open("rb") as file:
            if whole_size(file) > START:
                return True
    return False


def cut_torn_end(path: Path) -> None:
    """Drop the half of a record that a killed process left; call it when no process writes."""
    with path.open("r+b") as file:
        whole = whole_size(file)
        if whole < file.seek(0, os.SEEK_END):
            file.truncate(whole)
