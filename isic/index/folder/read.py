"""Any CSV as text: cells as they stand, missing ones null, for tables that nobody has described.

Source: a user's own file. Unit: one row a line, string columns in file order. Handles a byte-order
mark, CRLF, blank lines before the header, blanks around names and values, and `;` or tab between
columns. Missing is an empty cell, `NA`, `N/A`, `nan` or `null`.
Trap: a number read as a number loses its zeros, and ids are often numbers: nothing is converted.
"""

import csv
import re
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from isic.errors import DataError, first_five
from isic.index.csv_rows import refuse_lost_rows

# Not `none` or `unknown`: a class may be called so. Ids, sex and site: `raw_csv.MISSING`.
MISSING = ["", "NA", "N/A", "nan", "NaN", "<NA>", "null", "NULL"]


def read_text(path: Path) -> pd.DataFrame:
    """Read a CSV into string columns, cells without blanks around them, missing ones null.

    Raises:
        DataError: As `read_cells`, or no rows.
    """
    frame = read_cells(path)
    if frame.empty:
        raise DataError(f"{path} has a header but no rows")
    text: pd.DataFrame = frame.apply(lambda c: c.str.strip().mask(lambda v: v.isin(MISSING)))
    return text.astype("string")


def read_cells(path: Path) -> pd.DataFrame:
    """Read a CSV's cells as they stand, each of them text, an empty one `""`.

    Raises:
        DataError: No such file, no text, rows of different lengths, a column named twice, or a
            quote that swallows rows.
    """
    if not path.is_file():
        raise DataError(f"no such file {path.absolute()}")
    comma = ","
    try:
        blank, names, comma = header_of(path)
        # pandas saves row numbers under no name
        header = [c.strip() or f"column_{i + 1}" for i, c in enumerate(names)]
        # pandas takes a line that breaks off for one with empty cells; Arrow refuses it.
        cells = pa_csv.read_csv(
            path,
            read_options=pa_csv.ReadOptions(
                column_names=[str(i) for i in range(len(header))], skip_rows=blank
            ),
            parse_options=pa_csv.ParseOptions(delimiter=comma, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types={str(i): pa.string() for i in range(len(header))}
            ),
        )
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        refuse_lost_rows(path, delimiter=comma)
        raise DataError(f"{path} is not a readable UTF-8 CSV: {error}") from error
    refuse_lost_rows(path, cells.num_rows, delimiter=comma)
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise DataError(f"{path} names a column twice: {first_five(twice)}")
    frame: pd.DataFrame = cells.slice(1).to_pandas().set_axis(header, axis=1)
    return frame


def header_of(path: Path) -> tuple[int, list[str], str]:
    """How many blank lines come first, the column names after them, and what separates them.

    Raises UnicodeDecodeError or csv.Error where the file is no such text.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        blank, first = _first_line(file)
    comma = _comma(first)
    return blank, next(csv.reader([first], delimiter=comma), []), comma


def head_of(path: Path, n_rows: int) -> list[list[str]]:
    """The column names and the first rows as they stand, to see what a file is.

    What is no UTF-8 is replaced: whether it may be read is for `read_text` to say.
    Raises csv.Error where the file is no text.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = _first_line(file)[1]
        rows = csv.reader(chain([first], file), delimiter=_comma(first))
        return list(islice(filter(None, rows), n_rows + 1))


def _first_line(file: Iterable[str]) -> tuple[int, str]:
    """How many blank lines come first, and the line after them; empty where there is none."""
    blank = 0
    for line in file:
        if line.strip():
            return blank, line
        blank += 1
    return blank, ""


def _comma(line: str) -> str:
    return max(",;\t", key=line.count)


def to_number(values: pd.Series) -> pd.Series:
    """Numbers as float64, `85+` and `85.0` alike; NaN where missing or no number."""
    bare = values.str.replace(re.compile(r"\+$"), "", regex=True)
    return pd.to_numeric(bare, errors="coerce").astype("float64")


def with_ages(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows with ages as numbers, null where a cell holds none, and a sentence on such cells."""
    if "age" not in rows:
        return rows, {}
    age = to_number(rows["age"])
    bad = rows["age"].notna() & age.isna()
    rows, words = rows.assign(age=age), rows.loc[bad, "age"]
    if words.empty:
        return rows, {}
    got = f"{words.iloc[0]!r} in {len(words)} rows: {first_five(rows.loc[bad, 'image_id'])}"
    mend = "data.index.columns.age=COLUMN names another column"
    return rows, {"age": f"age must be a number, got {got} ({mend})"}


def flags_of(cells: pd.DataFrame) -> list[str]:
    """The columns whose known cells are all 0 or 1."""
    number = cells.apply(pd.to_numeric, errors="coerce")
    return [
        str(c)
        for c in cells
        if cells[c].notna().any() and (cells[c].isna() | number[c].isin([0, 1])).all()
    ]


def plain_text(values: pd.Series) -> pd.Series:
    """Text in the type that the readers' tables have, whatever type of missing it came with."""
    text: pd.Series = pa.array(values.tolist(), pa.string(), from_pandas=True).to_pandas()
    return pd.Series(text.to_numpy(), index=values.index, dtype=text.dtype)
