"""Check that every line of a CSV becomes a row: an open quote swallows others in silence.

Parsers take a cell that opens a quote to the next quote, over any number of lines, and to the end
of the file where none comes. Lines are counted first, a gigabyte a second; only where they are more
than the rows, as in a table with notes of several lines, the records are gone through one by one.
Unit: one physical line, counted from 1.
Trap: a quoted cell may hold line breaks and delimiters. It is taken for a swallowed part of the
table where its lines have the columns of the table and at least half of their cells look like those
of the column that they would stand in; nothing else tells the two apart.
"""

import csv
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from isic.errors import DataError

CHUNK = 1 << 24  # bytes
SAMPLE = 5000  # rows that say what the cells of a column look like
LIKE = 0.5  # of the cells of swallowed lines that look like their column
SHOWN = 60  # characters of a line in a message
NEXT_STEP = 'close the quote on that line, or write a quote inside of a quoted cell twice ("")'

Shapes = list[set[str]]  # of each column: what its cells look like


def refuse_lost_rows(path: Path, n_records: int | None = None, *, delimiter: str = ",") -> None:
    """Raise DataError where a quote swallows lines of a CSV, or where it holds NUL bytes.

    n_records: Rows that a parser found, the header among them; None where it found none.
    """
    n_lines, last_line = _count_lines(path)
    if n_lines == n_records and not _ends_inside_quotes(last_line, delimiter):
        return
    found = _go_through(path, delimiter)
    if n_records is not None and found != n_records:
        raise DataError(
            f"{path}: {n_records} rows were read, the header among them, of {found} in the file; "
            "save it as plain comma-separated UTF-8"
        )


def _count_lines(path: Path) -> tuple[int, bytes]:
    """Return the number of lines, -1 where some end in a lone CR, and the last line's bytes."""
    n_lines, end, lone = 0, b"\n", False
    last = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if b"\0" in chunk:
                line = n_lines + chunk[: chunk.index(b"\0")].count(b"\n") + 1
                raise DataError(
                    f"{path}: line {line} holds NUL bytes: the file is damaged, or it is UTF-16 "
                    "text; copy it again, or save it as comma-separated UTF-8"
                )
            n_lines += chunk.count(b"\n")
            if b"\r" in chunk:
                # A chunk may end between CR and LF: the slow way is right, too.
                lone |= chunk.count(b"\r") != chunk.count(b"\r\n")
            tail = chunk[:-1].rpartition(b"\n")
            last = tail[2] + chunk[-1:] if tail[1] else last + chunk
            end = chunk[-1:]
    return -1 if lone else n_lines + (end != b"\n"), last


def _ends_inside_quotes(line: bytes, delimiter: str) -> bool:
    """Return whether the last line opens a quote and ends: a file that was cut off."""
    if b'"' not in line:
        return False
    try:
        list(csv.reader([line.decode("utf-8", "replace")], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return _at_end(error)
    return False


def _go_through(path: Path, delimiter: str) -> int:
    """Return how many records the file holds. Raises DataError where one swallows others."""
    n_records, n_columns, shapes = 0, 0, None
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            start = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                if _at_end(error) or reader.line_num > start:
                    raise _open_quote(path, start, reader.line_num, _at_end(error)) from None
                n_records += 1  # `"5" mm` within a line costs no row
                continue
            if record is None:
                return n_records
            if not record or not (n_records or "".join(record).strip()):
                continue  # blank, or blanks before the header
            n_records += 1
            n_columns = n_columns or len(record)
            # A header may hold line breaks; whether its names are known is for the reader to say.
            if reader.line_num == start or n_records == 1:
                continue
            if shapes is None:
                shapes = _shapes(path, delimiter)
            if len(record) != n_columns or _is_swallowed(record, shapes, delimiter):
                raise _open_quote(path, start, reader.line_num, False)


def _is_swallowed(record: Sequence[str], shapes: Shapes, delimiter: str) -> bool:
    """Return whether a cell of several lines holds lines of the table."""
    for column, cell in enumerate(record):
        first, *others = re.split(r"\r\n|\r|\n", cell)
        if not others:
            continue
        before, behind = column, len(record) - 1 - column
        expected = [*[len(record) - 1] * (len(others) - 1), before]
        if [first.count(delimiter), *(line.count(delimiter) for line in others)] != [
            behind,
            *expected,
        ]:
            continue
        if not before:  # the name of an image has no line break
            return True
        # What stands in the cell's own column says nothing: notes look like notes.
        whole = [line.split(delimiter) for line in others[:-1]]
        whole.append(others[-1].split(delimiter)[:before])
        whole = [line[: len(shapes) or None] for line in whole]
        cells = [(i, _shape(c)) for line in whole for i, c in enumerate(line) if c.strip()]
        like = sum(shape in shapes[i] for i, shape in cells)
        if cells and like >= LIKE * len(cells):
            return True
    return False


def _shapes(path: Path, delimiter: str) -> Shapes:
    """Return the shapes of each column's cells, those of several lines left out."""
    shapes: Shapes = []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        records = filter(None, csv.reader(file, delimiter=delimiter))
        header = next(records)
        for record in islice(records, SAMPLE):
            shapes = shapes or [set() for _ in header]
            for found, cell in zip(shapes, record, strict=False):
                if not re.search(r"[\r\n]", cell):
                    found.add(_shape(cell))
    return shapes


def _shape(cell: str) -> str:
    """`IMG_0012.jpg` -> `IMG_#.jpg`, a hash -> `##`: what the cells of one column share."""
    hashless = re.sub(r"[A-Za-z\d]{13,}", "##", cell.strip())
    return re.sub(r"\d[A-Za-z\d]*", "#", hashless)


def _at_end(error: csv.Error) -> bool:
    return "unexpected end" in str(error)


def _open_quote(path: Path, start: int, end: int, at_end: bool) -> DataError:
    """Say where the quote opens and what it swallows."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        line = next(text for number, text in enumerate(file, 1) if number == start)
    shown = line.strip() if len(line.strip()) <= SHOWN else f"{line.strip()[:SHOWN]}..."
    if at_end:
        what = "opens a quote that nothing closes"
        lost = f", so that it takes the {end - start} lines behind it" if end > start else ""
    else:
        what, lost = "opens a quote", f" that takes the lines to {end}, which are rows of the table"
    return DataError(f"{path}: line {start} {what}{lost}: {shown!r}; {NEXT_STEP}")
