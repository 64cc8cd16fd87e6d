"""What stands beside the images: `metadata.csv`, `attribution.txt`, `licenses/`, `download.json`.

Names, columns and order are those of the archive's own bundles and of its command line tool:
`isic_id, attribution, copyright_license`, then all other columns by name; one row an image; empty =
not known. Attributions stand one a paragraph, the most images first, `Anonymous` last. Most
licences ask for the attribution, and CC-BY-NC forbids commercial use; each image has its own.

Rows wait in a file without a name until all columns are known: half a million of them do not fit
into memory beside a training.
"""

import csv
import io
import json
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from isic.acquire.download.api import FIRST_COLUMNS, ArchiveApi
from isic.errors import ConfigError, DataError
from isic.files import whole_file, write_text

log = logging.getLogger(__name__)

REQUEST = "download.json"
FAILED = "failed.txt"
LICENCE_FOLDER = "licenses"


class RowSpool:
    """Rows in the order they came, on disk; `columns` are all of theirs."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8")  # noqa: SIM115
        self._columns: set[str] = set()

    def __enter__(self) -> "RowSpool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, row: Mapping[str, str]) -> None:
        """Keep a row."""
        self._columns |= row.keys()
        self._file.write(json.dumps(row) + "\n")

    @property
    def columns(self) -> list[str]:
        """`FIRST_COLUMNS`, then the others by name."""
        return [*FIRST_COLUMNS, *sorted(self._columns - set(FIRST_COLUMNS))]

    def __iter__(self) -> Iterator[dict[str, str]]:
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)


def write_tables(root: Path, rows: RowSpool, api: ArchiveApi, *, without: Container[str]) -> int:
    """Write the tables of the images that are there; how many these are.

    without: Ids that are listed but have no file: a row without an image would not open.
    """
    attributions, licences = Counter[str](), Counter[str]()
    with whole_file(root / "metadata.csv") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.DictWriter(text, rows.columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            if row["isic_id"] not in without:
                writer.writerow(row)
                attributions[row["attribution"]] += 1
                licences[row["copyright_license"]] += 1
        text.detach()  # flushes, and leaves the closing to whole_file
    write_text(root / "attribution.txt", "\n\n".join(by_weight(attributions)) + "\n")
    _write_licences(root / LICENCE_FOLDER, licences, api)
    return licences.total()


def by_weight(attributions: Counter[str]) -> list[str]:
    """Most images first, then by name; `Anonymous` last, no empty ones."""
    named = [a for a in attributions if a]
    return sorted(named, key=lambda a: (a == "Anonymous", -attributions[a], a))


def _write_licences(folder: Path, licences: Counter[str], api: ArchiveApi) -> None:
    """A file a licence, by the archive's name of it; one that is there is not asked for again."""
    if folder.is_symlink():
        raise DataError(f"{folder}: expected a folder, got a link, which leads elsewhere")
    said = ", ".join(f"{name or 'none given'} {n:,}" for name, n in licences.most_common())
    log.info("licences: %s; see %s and attribution.txt", said, folder.name)
    for name in sorted(filter(None, licences)):
        path = folder / (re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64] + ".txt")
        if path.is_symlink() or not path.exists():
            write_text(path, api.licence(name))


def claim(root: Path, request: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something else than this download.

    A folder holds one query: rows of two would be one table that no query gives.
    Another `limit` of the same query goes on with it.

    Raises:
        ConfigError: Another query or other collections, or files that this command did not write.
    """
    path = root / REQUEST
    if not path.exists():
        if (root / "metadata.csv").exists():
            raise ConfigError(
                f"{root} holds a metadata.csv that was not written by this command; it would be "
                "lost. Give an empty folder: data.root=..."
            )
        return
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise ConfigError(f"{path} cannot be read: give an empty folder, data.root=...") from None
    changed = [
        f"{key}: {stored.get(key)!r} -> {request[key]!r}"
        for key in ("query", "collections")
        if stored.get(key) != request[key]
    ]
    if changed:
        raise ConfigError(
            f"{root} holds another download: {'; '.join(changed)}. Give another data.root=..."
        )


def write_request(root: Path, request: Mapping[str, Any]) -> None:
    """Write down what was asked, how many the archive counted, and how many rows there are."""
    write_text(root / REQUEST, json.dumps(request, indent=2) + "\n")


def write_failures(root: Path, failures: Mapping[str, str]) -> None:
    """`failed.txt`: every image that is not there and why; no file where all are."""
    if failures:
        lines = (f"{name}: {reason}\n" for name, reason in failures.items())
        write_text(root / FAILED, "".join(lines))
    else:
        (root / FAILED).unlink(missing_ok=True)
