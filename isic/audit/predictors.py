"""The columns of a table as small integer codes: what each row's value is, and whether it is known.

Numbers become quantile bins, text its categories, ids the form of their name; image size, bytes and
format are columns like any other. Codes know no label, so that they may be made over all folds.
Trap: a category that only one group holds says nothing of other groups; the rarest beyond
`MAX_CODES` share a code.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.index.schema import USE, DatasetInfo

Codes = NDArray[np.int64]

N_BINS = 20
MAX_CODES = 500  # of text; a site or hospital has tens
IDS = ("image_id", "lesion_id", "patient_id", "image")
LABELS = ("target", "diagnosis", "split")
FILE_FACTS = ("width", "height", "n_bytes", "format")


class Predictor(NamedTuple):
    """One way to guess the class: a column's `value`, or whether it is `known`. Codes: (rows,)."""

    column: str
    kind: str
    codes: Codes


def predictors(
    rows: pd.DataFrame, info: DatasetInfo, files: pd.DataFrame | None = None
) -> Iterator[Predictor]:
    """Each guess that is not the same for all `rows`; `files` are the facts of their images."""
    for column in rows.columns:
        if column in LABELS or column in USE or column in info.classes:
            continue
        known = rows[column].notna().to_numpy()
        if column == "image" and files is not None:
            known = (files["status"] == "ok").to_numpy()
        yield from _varying(column, "known", known.astype(np.int64))
        if column == "image" or not known.any():
            continue
        value = _form(rows[column]) if column in IDS else rows[column]
        yield from _varying(column, "form" if column in IDS else "value", codes_of(value))
    if "image_id" in rows:
        number = rows["image_id"].str.extract(r"(\d+)\D*$", expand=False)
        yield from _varying("image_id", "number", codes_of(pd.to_numeric(number.astype("object"))))
    if files is not None:
        for column in FILE_FACTS:
            read = files[column].where(files["status"] == "ok")
            yield from _varying(f"image {column.removeprefix('n_')}", "value", codes_of(read))


def codes_of(values: pd.Series) -> Codes:
    """0 where missing; numbers in quantile bins or, where they are few, each on its own."""
    if pd.api.types.is_bool_dtype(values.dtype) or not pd.api.types.is_numeric_dtype(values.dtype):
        return _categories(values.astype("object") if values.dtype == "category" else values)
    number = values.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(number)
    codes = np.zeros(len(number), np.int64)
    if not known.any():
        return codes
    edges = np.unique(np.quantile(number[known], np.linspace(0, 1, N_BINS + 1)[1:-1]))
    # Left and right together give a value that equals an edge, a common one, a code of its own.
    sides = [np.searchsorted(edges, number[known], side) for side in ("left", "right")]
    codes[known] = 1 + sides[0] + sides[1]
    return codes


def _categories(values: pd.Series) -> Codes:
    """0 where missing, 1.. by falling frequency, the last for all beyond."""
    codes, names = pd.factorize(values.where(values.notna(), None))
    if len(names) <= MAX_CODES:
        return np.asarray(codes + 1, dtype=np.int64)
    often = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(names)), kind="stable")
    rank = np.empty(len(names) + 1, np.int64)
    rank[often] = np.minimum(np.arange(len(names)), MAX_CODES) + 1
    rank[-1] = 0  # where the code is -1: missing
    return rank[codes]


def _form(ids: pd.Series) -> pd.Series:
    """`BCN_0001234` -> `BCN_#`: the letters that tell where an id comes from."""
    return ids.str.replace(r"\d+", "#", regex=True)


def _varying(column: str, kind: str, codes: Codes) -> Iterator[Predictor]:
    if len(codes) and (codes != codes[0]).any():
        yield Predictor(column, kind, codes)
