"""Which CSV of a folder is its table: at the root, or, where none is there, the only one below.

Source: files whose names end in .csv; at the root also other texts whose first line says what they
are. Unit: one table. A table is one of images where a column bears a known name of an image column
(`ROLES`), or where its values are names of image files.
Order: the file named; metadata.csv; the only one; train.csv with test.csv; the only one of images;
and down to two folders below, the only one of images, if at least half of its images are there.
Trap: what was unpacked side by side looks like class folders. A table of images below the root is
therefore never passed over in silence: it is read with a note, or it is an error.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.index.folder.files import is_hidden
from isic.index.folder.match import Finder
from isic.index.folder.read import head_of, header_of, read_text
from isic.index.folder.table import MATCHED_ROWS, ROLES
from isic.index.image_files import place_below
from isic.outputs import OUTPUT_MARK

OTHER_ENDINGS = ("", ".tab", ".tsv", ".txt")
DEPTH = 2  # folders below the root
ENOUGH = 0.5  # of a table's images


class Table(NamedTuple):
    """A table's name for messages, its cells as text, and what was guessed."""

    name: str
    cells: pd.DataFrame
    notes: list[str]


def read_table(root: Path, table: str | bool | None, finder: Finder) -> Table | None:
    """The table of the root (None: by the module's order), or None where there is none to read.

    table: A file relative to the root; False reads none.

    Raises:
        ConfigError: A name that leaves the root.
        DataError: No such file, one that cannot be read, or several to choose from.
    """
    if table is False:
        return None
    if table is not None:
        return _named(root, str(table))
    names = [p for p in sorted(root.iterdir()) if not is_hidden(p.name)]
    found = {p.name.lower(): p for p in names if p.is_file() and _is_table(p)}
    if "metadata.csv" in found or len(found) == 1:
        path = found.get("metadata.csv") or next(iter(found.values()))
        return Table(path.name, read_text(path), [])
    if {"train.csv", "test.csv"} <= set(found):
        frames = [read_text(found[f"{s}.csv"]).assign(split=s) for s in ("train", "test")]
        cells = pd.concat(frames, ignore_index=True).astype("string")
        return Table("train.csv and test.csv", cells, [])
    if found:
        return _one_of(root, list(found.values()), finder)
    return _below(root, finder)


def _named(root: Path, given: str) -> Table:
    """The table of `data.index.table`, however its path is spelled."""
    name = place_below(root, given)
    if name is None and os.path.normpath(given).startswith(("/", "..")):
        raise ConfigError(
            f"data.index.table: expected a file inside data.root, got {given}; set data.root to a "
            "folder that holds table and images, or give rows of other folders with data.extra=CSV"
        )
    return Table(given, read_text(root / (given if name is None else name)), [])


def _one_of(root: Path, found: list[Path], finder: Finder) -> Table:
    """Of several tables at the root the only one of images."""
    about = [p for p in found if _share(p, finder) is not None]
    if len(about) != 1:
        raise DataError(
            f"{root.absolute()} holds {len(found)} tables: {first_five(p.name for p in found)}; "
            f"name the one to read with data.index.table=FILE, or read class folders with "
            f"data.index.table=false"
        )
    note = (
        f"{about[0].name} is read, the only one of {len(found)} tables that names images; "
        f"data.index.table=FILE reads another"
    )
    return Table(about[0].name, read_text(about[0]), [note])


def _below(root: Path, finder: Finder) -> Table | None:
    """The only table of images below the root; several, or one of other images, are an error."""
    shares = {p.relative_to(root).as_posix(): _share(p, finder) for p in _tables_below(root)}
    about = {name: share for name, share in shares.items() if share is not None}
    if not about:
        return None
    name, share = next(iter(about.items()))
    if len(about) == 1 and share >= ENOUGH:
        note = (
            f"{name} is read, the only table of images below data.root; class folders are read "
            f"with data.index.table=false"
        )
        return Table(name, read_text(root / name), [note])
    few = f" ({share:.0%} of its first images are there)" if len(about) == 1 else ""
    raise DataError(
        f"{root.absolute()} holds no table, but {first_five(about)} below it name images{few}; "
        f"read one with data.index.table=PATH (its images may lie anywhere below data.root), or "
        f"set data.root to the folder of one; class folders are read with data.index.table=false"
    )


def _tables_below(folder: Path, depth: int = 1) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        listed = list(entries)
    if depth > 1 and any(e.name == OUTPUT_MARK for e in listed):
        return
    inside = sorted((e for e in listed if not is_hidden(e.name)), key=lambda e: e.name)
    for entry in inside:
        if depth > 1 and entry.name.lower().endswith(".csv") and entry.is_file():
            yield Path(entry.path)
        elif depth <= DEPTH and entry.is_dir():
            yield from _tables_below(Path(entry.path), depth + 1)


def _share(path: Path, finder: Finder) -> float | None:
    """Which part of a table's first rows has an image file; None where it is no table of images."""
    try:
        header, *rows = head_of(path, MATCHED_ROWS)
    except (OSError, csv.Error, ValueError):  # no text, or empty
        return None
    known = set(ROLES["image"].split()) & {name.strip().lower() for name in header}
    columns = zip(*(row for row in rows if len(row) == len(header)), strict=True)
    # Distinct names: a column of 0 and 1 is none of 0.jpg and 1.jpg.
    hits = max((finder.names({v.strip() for v in column}) for column in columns), default=0)
    share = hits / max(len(rows), 1)
    return share if known or share >= ENOUGH else None


def _is_table(path: Path) -> bool:
    """A CSV by its ending, or a text whose first line names images and something else known.

    HAM10000's table came as `HAM10000_metadata` and as `.tab`.
    """
    if path.suffix.lower() == ".csv":
        return True
    if path.suffix.lower() not in OTHER_ENDINGS:
        return False
    try:
        header = {name.strip().lower() for name in header_of(path)[1]}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    known = [role for role, names in ROLES.items() if header & set(names.split())]
    return "image" in known and len(known) > 1
