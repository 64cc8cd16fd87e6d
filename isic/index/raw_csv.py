"""One archive CSV -> a typed Arrow table and the list of everything that is wrong with it.

Source: any official metadata file; types are given, never inferred, since the same column reads
as int in one published copy and as float in another. Missing = empty cell or literal `NA`; in ids,
sex and site any word of `MISSING` too (`without_gaps`).
Handles a byte-order mark, CRLF, blanks around column names and any column order; 401,059 x 55 in
about a second.
Trap: `label` columns stay text here, so that `benign`, `2` and `1.0` can be told apart later.
"""

import codecs
import csv
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from isic.errors import DataError, first_five
from isic.index.csv_rows import refuse_lost_rows

# Of any column; "NA" stands in the hidden test file.
NULLS = ["", "NA"]
# What people and programs write where nothing is known, in lower case. For ids, sex and site only:
# "unknown" is a diagnosis of SIIM-ISIC 2020 and a location of ISIC 2024.
MISSING = ("", "-", "<na>", "n/a", "na", "nan", "none", "null", "unknown")
# Codes of the pre-resized sets for a patient or lesion that is not known.
NO_GROUP = ("-1", "-1.0")
DELIMITERS = (";", "\t", "|")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SAVE_AS = "save it as comma-separated UTF-8"
ROW_NUMBERS = re.compile(r"(Unnamed: \d+(\.\d+)*)?")  # `to_csv` of a frame with its index
NO_ALIASES: Mapping[str, str] = {}


@dataclass
class RawTable:
    """A file as read: `table` holds the known columns that are there, in file order.

    faults: What must be corrected; notes: what was met and left aside; unread: column -> sentence,
    of cells that are no number and are null in `table`.
    """

    path: Path
    table: Any
    faults: list[str]
    notes: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)

    def has(self, column: str) -> bool:
        """Whether the file has the column."""
        return column in self.table.column_names

    def column(self, name: str) -> pd.Series:
        """One column as a pandas Series."""
        return pd.Series(self.table.column(name).to_pandas())


def read_csv(
    path: Path,
    *,
    columns: Mapping[str, str],
    id_column: str,
    optional: Collection[str] = (),
    aliases: Mapping[str, str] = NO_ALIASES,
    refuse_extra: bool = True,
) -> RawTable:
    """Read `columns` of the file and note missing, extra and unreadable ones as faults.

    Faults do not stop the reading, so that a user sees all of them at once; the caller raises.

    columns: Name -> "text", "label" (kept as text) or "number", in official order.
    optional: Those of `columns` that may be absent.
    aliases: Other names of columns -> the name in `columns`, used where that is not there.
    refuse_extra: Whether a column that is not in `columns` is a fault; else it is noted. A column
        of row numbers without a name, as pandas writes it, is always a note.
    """
    raw = _header(path)
    header = [n if aliases.get(n, n) in raw else aliases[n] for n in raw]
    extra = [c for c in header if c not in columns and not ROW_NUMBERS.fullmatch(c)]
    faults = [f"{path.name}: {fault}" for fault in _header_faults(header, columns, optional)]
    notes = [
        f"{path.name}: its column {c!r} without a name is left out, as row numbers of pandas"
        for c in header
        if c not in columns and c not in extra
    ]
    strange = []
    if extra:
        named = first_five([repr(c) for c in extra])
        strange = [f"{path.name}: has {len(extra)} columns that the official file has not: {named}"]
    # Without ids, or with two columns of one name, no row can be named in a message.
    if len(set(header)) < len(header) or id_column not in header:
        found = f"its header is {first_five(header) or 'empty'}"
        known = _delimiter_fault(header) or faults
        raise DataError("\n".join([f"{path} cannot be read; {found}", *known]))
    present = {c: columns[c] for c in header if c in columns}
    unread: dict[str, str] = {}
    try:
        table = _read(path, present, header)
    except pa.ArrowInvalid as error:
        refuse_lost_rows(path)
        table = _read_as_text(path, present, header, error)
        table, unparsed = _parse_numbers(table, present, id_column)
        unread = {column: f"{path.name}: {fault}" for column, fault in unparsed.items()}
    refuse_lost_rows(path, table.num_rows + 1)
    if table.num_rows == 0:
        faults.append(f"{path.name}: has a header but no rows")
    if refuse_extra:
        faults += [f"{fault}; remove them from the file, or download it again" for fault in strange]
        return RawTable(path, table, faults, notes, unread)
    return RawTable(path, table, faults, notes + strange, unread)


def without_gaps(values: pd.Series, *, group: bool = False) -> pd.Series:
    """Text of an id, sex or site: no blanks around it, null where it is a word of `MISSING`.

    group: Whether it names a patient or a lesion, where -1 means none: rows of one such word would
        all be one patient.
    """
    text = values.str.strip()
    words = MISSING + NO_GROUP if group else MISSING
    return text.mask(text.str.lower().isin(words))


def _header(path: Path) -> list[str]:
    """Read the column names alone; refuses what is no text at all."""
    with path.open("rb") as raw:
        start = raw.read(2)
    if not start:
        raise DataError(f"{path} is empty (0 bytes); download or copy it again")
    if start in UTF16:
        raise DataError(f"{path} is UTF-16 text, expected UTF-8; {SAVE_AS}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = [name.strip() for name in next(csv.reader(file), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a UTF-8 CSV ({error}); is it still compressed? Unpack it, or {SAVE_AS}"
        ) from error
    if any("\0" in name for name in names):
        refuse_lost_rows(path)  # says so
    return names


def _delimiter_fault(header: list[str]) -> list[str]:
    """A fault for a header that something else than commas separates."""
    line = ",".join(header)
    other = max(DELIMITERS, key=line.count)
    if line.count(other) <= line.count(","):
        return []
    return [f"its columns are separated by {other!r}, expected ','; {SAVE_AS}"]


def _header_faults(
    header: list[str], columns: Mapping[str, str], optional: Collection[str]
) -> list[str]:
    """Compare the header with the official one; optional columns may be absent."""
    faults = []
    missing = [c for c in columns if c not in header and c not in optional]
    twice = sorted({c for c in header if header.count(c) > 1})
    expected = len(columns) - len(optional)
    if missing:
        faults.append(f"lacks {len(missing)} of {expected} columns: {first_five(missing)}")
    if twice:
        faults.append(f"names a column twice: {first_five(twice)}")
    return faults


def _read(path: Path, kinds: Mapping[str, str], header: list[str]) -> Any:
    """Read with given types: one cell that does not fit raises ArrowInvalid."""
    types = {c: pa.float64() if kind == "number" else pa.string() for c, kind in kinds.items()}
    options = pa_csv.ConvertOptions(
        column_types=types,
        include_columns=list(kinds),
        null_values=NULLS,
        strings_can_be_null=True,
    )
    named = pa_csv.ReadOptions(column_names=header, skip_rows=1)
    return pa_csv.read_csv(path, read_options=named, convert_options=options)


def _read_as_text(path: Path, kinds: Mapping[str, str], header: list[str], cause: Exception) -> Any:
    """Read every cell as it stands, to find out which did not fit; rows must still be whole."""
    try:
        return _read(path, dict.fromkeys(kinds, "text"), header)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} is not a readable CSV: {error}; compare its size with the download, "
            f"or {SAVE_AS}"
        ) from cause


def _parse_numbers(
    table: Any, kinds: Mapping[str, str], id_column: str
) -> tuple[Any, dict[str, str]]:
    """Turn text into numbers (NaN where it is none); column -> rows and values that are not."""
    unread = {}
    ids = table.column(id_column).to_pandas()
    for column in (c for c, kind in kinds.items() if kind == "number"):
        values = table.column(column).to_pandas()
        number = pd.to_numeric(values, errors="coerce")
        bad = values.notna() & number.isna()
        if bad.any():
            got = f"{values[bad].iloc[0]!r} in {bad.sum()} rows: {first_five(ids[bad])}"
            unread[column] = f"{column} must be a number, got {got}"
        parsed = pa.array(number.astype("float64"), from_pandas=True)
        table = table.set_column(table.column_names.index(column), column, parsed)
    return table, unread


def parse_binary(values: pd.Series, ids: pd.Series, *, what: str) -> tuple[pd.Series, list[str]]:
    """Turn `0 1 0.0 1.0` texts into Int64 (bad or absent ones <NA>) and name what is neither."""
    number = pd.to_numeric(values, errors="coerce")
    faults = []
    absent = values.isna() | values.isin(["nan", "NaN"])
    bad = ~absent & ~number.isin([0, 1])
    if bad.any():
        got = first_five([repr(v) for v in values[bad].unique()])
        faults.append(
            f"{what} must be 0 or 1, got {got} in {bad.sum()} rows: {first_five(ids[bad])}"
        )
    if absent.any():
        faults.append(f"{what} is empty in {absent.sum()} rows: {first_five(ids[absent])}")
    # Int64 holds no NaN: bad cells pass through 0 and are masked below.
    code = np.where(number == 1, 1, 0)
    parsed = pd.Series(code, index=values.index).astype("Int64")
    return parsed.mask(absent | bad), faults
