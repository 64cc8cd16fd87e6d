"""Columns -> a CSV in the form of an official file: quotes only where needed, LF or CRLF.

Unit: one file; memory stays at one batch of rows.
Trap: Arrow writes the float 45.0 as 45. Ages and one-hot cells of the form `45.0` come as text,
from `decimal`.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Arrow quotes every text cell or none; the official files quote those that hold a comma. Control
# characters stand in for comma and quote until the text is written.
_STAND_INS = bytes.maketrans(b"\x1e\x1f", b',"')
ROWS = 50_000  # 401,059 rows of text at once would take half a gigabyte


def write_csv(
    path: Path, columns: dict[str, Any], *, newline: str = "\n", last_newline: bool = True
) -> None:
    """Write the columns in order; the file appears whole or not at all.

    last_newline: False leaves the last line open, as some of the official files do.
    """
    from pyarrow import csv

    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write((",".join(columns) + newline).encode())
        plain = pa.table({name: _quoted(values) for name, values in columns.items()})
        options = csv.WriteOptions(include_header=False, quoting_style="none")
        for batch in plain.to_batches(max_chunksize=ROWS):
            text = pa.BufferOutputStream()
            csv.write_csv(batch, text, options)
            data = text.getvalue().to_pybytes().translate(_STAND_INS)
            file.write(data if newline == "\n" else data.replace(b"\n", newline.encode()))
        if not last_newline and plain.num_rows:
            file.truncate(file.tell() - len(newline))
    os.replace(part, path)


def masked(values: NDArray[Any], missing: NDArray[np.bool_]) -> Any:
    """Text that is an empty cell where missing."""
    return pa.array(np.asarray(values).astype(str).astype(object), pa.string(), mask=missing)


def decimal(values: NDArray[Any]) -> NDArray[np.str_]:
    """Whole numbers as `45.0`."""
    return np.char.add(np.asarray(values).astype(np.int64).astype(str), ".0")


def one_hot_cells(
    codes: NDArray[np.str_], classes: tuple[str, ...], *, integers: bool = False
) -> dict[str, Any]:
    """One column a class that holds `1.0` or `0.0`; `1` or `0` if integers.

    codes: (N,) names of classes.
    """
    one, zero = ("1", "0") if integers else ("1.0", "0.0")
    return {name: np.where(codes == name, one, zero) for name in classes}


def _quoted(values: Any) -> Any:
    """Mark the cells that need quotes, with stand-ins for quote and comma."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    if not pa.types.is_string(array.type):
        return array
    escaped = pc.replace_substring(array, ",", "\x1e")
    ends = pc.if_else(pc.match_substring(array, ","), "\x1f", "")
    return pc.binary_join_element_wise(ends, escaped, ends, "")
