"""What a `.wandb` file holds, read with W&B's own protobuf classes.

The file is a LevelDB log: blocks of 32 KiB after a header of 7 bytes, each chunk with checksum,
length and type (whole, first, middle, last). A torn end is left out, as W&B's own reader does.
"""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEAD = struct.Struct("<IHB")


def records(folder: Path) -> list[Record]:
    """Every record of an `offline-run-*` folder; W&B's service may be writing its last ones."""
    end = time.monotonic() + 60
    while True:
        data = next(folder.glob("*.wandb")).read_bytes()
        found = [Record.FromString(message) for message in messages(data)]
        if any(record.HasField("exit") for record in found):
            return found
        assert time.monotonic() < end, f"{folder} was never finished"
        time.sleep(0.05)


def messages(data: bytes) -> Iterator[bytes]:
    place, parts = 7, b""
    while place + HEAD.size <= len(data):
        if BLOCK - place % BLOCK < HEAD.size:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEAD.unpack_from(data, place)
        place += HEAD.size
        if not length and not kind:  # zeros to the end of the block
            place += -place % BLOCK
            continue
        if place + length > len(data):
            return
        parts = (b"" if kind in (1, 2) else parts) + data[place : place + length]
        place += length
        if kind in (1, 4):
            yield parts


class Written:
    """One offline run as a dashboard would show it."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.files: list[str] = []
        self.run: Any = None
        for record in records(folder):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config |= values(record.run.config.update)
            elif kind == "config":
                self.config |= values(record.config.update)
            elif kind == "summary":
                self.summary |= values(record.summary.update)
            elif kind == "history":
                self.history.append(values(record.history.item))
            elif kind == "files":
                self.files += [file.path for file in record.files.files]
        self.tags = list(self.run.tags)

    def logged(self, key: str) -> Any:
        """The last value of a key of the history."""
        return [row[key] for row in self.history if key in row][-1]


def values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
