"""The columns of a table as small integer codes: what each row's value is, and whether it is known.

Numbers become quantile bins, text its categories, ids the form and number of their name; a text
that differs from row to row also its form, length, first and last letter. Image size, bytes and
format are columns like any other, and so are the sizes of groups (`group_predictors`) and features
(`feature_predictors`). Codes know no label, so that they may be made over all folds.
Trap: a category that only one group holds says nothing of other groups; the rarest beyond
`MAX_CODES` share a code.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.index.schema import USE, DatasetInfo

Codes: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.floating[Any]]

N_BINS = 20
EDGE_ROWS = 20_000  # enough for the edges of bins; every row gets its code
MAX_CODES = 500  # of text; a site or hospital has tens
IDS = ("image_id", "lesion_id", "patient_id", "image")
LABELS = ("target", "diagnosis", "split")
FILE_FACTS = ("width", "height", "n_bytes", "format")
# Group -> what its rows are counted as; `lesions of a patient` are its lesions.
SIZES = {"patient_id": "rows of a patient", "lesion_id": "rows of a lesion"}
LESIONS = "lesions of a patient"


class Predictor(NamedTuple):
    """One way to guess the class: a column's `value`, or whether it is `known`. (rows,)

    numbers: The values where they are numbers, NaN where missing.
    """

    column: str
    kind: str
    codes: Codes
    numbers: Numbers | None = None

    def __str__(self) -> str:
        return named(self.column, self.kind)


def named(column: str, kind: str) -> str:
    """Return a predictor's name in messages: `hair`, `hair being known`, `form of image_id`."""
    if kind in ("value", "together", "rest"):
        return column
    said = {"known": f"{column} being known", "alone": f"{column} being one"}
    return said.get(kind, f"{kind} of {column}")


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
        if column in IDS:
            yield from _varying(column, "form", codes_of(_form(rows[column])))
            yield from _varying(column, "number", codes_of(_number(rows[column])))
            continue
        yield from _value(rows[column], column)
        yield from _spelled(rows[column], column)
    if files is not None:
        for column in FILE_FACTS:
            read = files[column].where(files["status"] == "ok")
            yield from _value(read, f"image {column.removeprefix('n_')}")


def group_predictors(table: pd.DataFrame, labelled: NDArray[np.bool_]) -> Iterator[Predictor]:
    """How many rows a patient and a lesion have, how many lesions a patient; who is alone.

    table: Every row of an index, since a group's other rows may be test rows. labelled: (rows,),
        those whose codes are wanted.
    """
    if "patient_id" not in table or "lesion_id" not in table:
        return
    counted = {name: _sizes(table[column]) for column, name in SIZES.items()}
    pairs = table[["patient_id", "lesion_id"]].dropna().drop_duplicates()
    of_patient = table["patient_id"].map(pairs["patient_id"].value_counts())
    counted[LESIONS] = np.asarray(of_patient, dtype=np.float64)
    for name, size in counted.items():
        own = size[labelled]
        yield from _value(pd.Series(own), name)
        yield from _varying(name, "alone", np.where(np.isnan(own), 0, 1 + (own > 1)).astype(int))


def feature_predictors(features: pd.DataFrame) -> Iterator[Predictor]:
    """The value of each feature, and where it is missing unless another one is in the same rows."""
    met: set[bytes] = set()
    for column in features.columns:
        values = features[column]
        yield from _value(values, str(column))
        known = values.notna().to_numpy()
        pattern = np.packbits(known).tobytes()
        if pattern not in met:
            met.add(pattern)
            yield from _varying(str(column), "known", known.astype(np.int64))


def codes_of(values: pd.Series) -> Codes:
    """0 where missing; numbers in quantile bins or, where they are few, each on its own."""
    if pd.api.types.is_bool_dtype(values.dtype) or not pd.api.types.is_numeric_dtype(values.dtype):
        return _categories(values.astype("object") if values.dtype == "category" else values)
    number = values.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(number)
    codes = np.zeros(len(number), np.int64)
    if not known.any():
        return codes
    found = number if known.all() else number[known]
    some = found[:: max(1, len(found) // EDGE_ROWS)]
    edges = np.unique(np.quantile(some, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    left = np.searchsorted(edges, found, "left")
    # A value that equals an edge, a common one, has a code of its own.
    codes[known] = 1 + 2 * left + (edges[np.minimum(left, len(edges) - 1)] == found)
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


def _spelled(values: pd.Series, column: str) -> Iterator[Predictor]:
    """Describe the form of texts that are too many to be categories: a code, a hash, a path."""
    if not pd.api.types.is_string_dtype(values.dtype) or values.nunique() <= MAX_CODES:
        return
    text = values.astype("string")
    yield from _varying(column, "form", codes_of(_form(text)))
    yield from _varying(column, "number", codes_of(_number(text)))
    yield from _varying(column, "length", codes_of(text.str.len()))
    yield from _varying(column, "first letter", codes_of(text.str[:1]))
    yield from _varying(column, "last letter", codes_of(text.str[-1:]))


def _form(ids: pd.Series) -> pd.Series:
    """`BCN_0001234` -> `BCN_#`: the letters that tell where an id comes from."""
    return ids.str.replace(r"\d+", "#", regex=True)


def _number(ids: pd.Series) -> pd.Series:
    """`BCN_0001234` -> 1234: what is numbered in order tells when it came."""
    number = ids.str.extract(r"(\d+)\D*$", expand=False)
    return pd.Series(pd.to_numeric(number.astype("object"), errors="coerce"))


def _sizes(ids: pd.Series) -> NDArray[np.float64]:
    """Rows of each row's group, NaN where it has none. (rows,)"""
    codes = pd.factorize(ids)[0]
    counts = np.bincount(codes[codes >= 0], minlength=int(codes.max(initial=-1)) + 1)
    return np.where(codes >= 0, np.append(counts, 0)[codes], np.nan)


def _value(values: pd.Series, column: str) -> Iterator[Predictor]:
    """The value of a column, with its numbers."""
    is_number = pd.api.types.is_numeric_dtype(values.dtype)
    is_number &= not pd.api.types.is_bool_dtype(values.dtype)
    numbers = None
    if is_number:
        is_plain = isinstance(values.dtype, np.dtype) and values.dtype.kind == "f"
        # A view where that can be: 130 features of 401,059 rows are 200 MB as they are.
        numbers = values.to_numpy() if is_plain else values.to_numpy(np.float64, na_value=np.nan)
    yield from _varying(column, "value", codes_of(values), numbers)


def _varying(
    column: str, kind: str, codes: Codes, numbers: Numbers | None = None
) -> Iterator[Predictor]:
    if len(codes) and (codes != codes[0]).any():
        yield Predictor(column, kind, codes, numbers)
