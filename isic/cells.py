"""Tables for people, safe to open: no formula in a spreadsheet, no HTML in Markdown.

Names of classes, columns and images come from whoever made the archive. A spreadsheet runs a cell
that begins with one of `FORMULA`; quotes of CSV do not keep it from that (OWASP, CSV injection).
Trap: only tables for people. A split, a prediction or a submission is read again, and says what it
says; numbers keep their sign everywhere.
"""

from typing import Any

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def spreadsheet_csv(table: pd.DataFrame, *, index: bool = False, **options: Any) -> str:
    """Write the table as CSV, with an apostrophe before text that would be a formula.

    options: Arguments of `DataFrame.to_csv`.
    """
    safe = table.rename(columns=_inert)
    if index:
        safe = safe.rename(index=_inert).rename_axis(index=_inert(table.index.name))
    text = [i for i, kind in enumerate(table.dtypes) if not pd.api.types.is_numeric_dtype(kind)]
    for i in text:
        safe.isetitem(i, safe.iloc[:, i].map(_inert).array)
    written: str = safe.to_csv(index=index, **options)
    return written


def _inert(value: Any) -> Any:
    """Return text that a spreadsheet would run with an apostrophe; all else unchanged."""
    if not isinstance(value, str):
        return value
    # pandas leaves a lone carriage return unquoted: what follows would begin a row of its own
    text = value.replace("\r", " ")
    return f"'{text}" if value.startswith(FORMULA) and not _is_number(value) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return not text[0].isspace()


def markdown_cell(text: object) -> str:
    """Escape text so that a Markdown table shows it as it is."""
    shown = " ".join(str(text).splitlines())
    for character, written in (
        ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("](", "]\\("),
    ):  # fmt: skip
        shown = shown.replace(character, written)
    return shown
