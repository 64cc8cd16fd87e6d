"""What a feature family is, how it reads its columns from a table of samples, and what comes of it.

A family is a small frozen dataclass in a file of its own; its fields are the keys of
`conf/features/<name>.yaml`. Row unit: a sample (`isic.index.schema.sample_rows`), train and test
rows alike. A family that `learns` is fitted on training rows only and keeps what it learned as
plain JSON; the others look at the rows of a patient, or at one row, and keep nothing.
Trap: a column the test table lacks, or text where a number belongs, must not become silent NaN.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import DataError, first_five

Floats = npt.NDArray[np.floating[Any]]
State = Mapping[str, Any]  # of one family: plain dicts, lists, strings, numbers

LARGEST = 1e30  # no unit makes more of a lesion; sums and squares of what is smaller are finite


class Family(Protocol):
    """What every family offers.

    A family that can say which columns some of its features are made of offers
    `sources(available, kept, state)` too, see `used_columns`.

    learns: Whether `fit` looks at other patients' rows; then it must see training rows only.
    """

    @property
    def name(self) -> str: ...

    @property
    def learns(self) -> bool: ...

    def needs(self, available: Sequence[str]) -> tuple[str, ...]:
        """The columns of the samples that it reads; `available` resolves patterns."""
        ...

    def fit(self, rows: pd.DataFrame) -> State:
        """What training rows say; empty for a family that does not learn."""
        ...

    def transform(self, rows: pd.DataFrame, state: State) -> pd.DataFrame:
        """Features (N, F) as float32, in the order and with the index of `rows`."""
        ...


def used_columns(
    family: Family, available: Sequence[str], kept: Collection[str], state: State
) -> tuple[str, ...]:
    """The columns behind the features `kept`; all that it needs of a family that cannot say."""
    ask = getattr(family, "sources", None)
    return family.needs(available) if ask is None else tuple(ask(available, kept, state))


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of samples.

    ids: (N,) image_id of each sample, as in the predictions tables.
    names: (F,) each once, letters, digits and `_`.
    values: (N, F) float32, column-major; NaN where missing, never infinite.
    """

    ids: npt.NDArray[np.object_]
    names: tuple[str, ...]
    values: npt.NDArray[np.float32]

    def frame(self) -> pd.DataFrame:
        """The same as a table indexed by image_id; shares memory."""
        index = pd.Index(self.ids, name="image_id")
        return pd.DataFrame(self.values, index=index, columns=list(self.names), copy=False)


def frame_of(columns: Mapping[str, Floats], rows: pd.DataFrame) -> pd.DataFrame:
    """Named columns (N,) as a float32 table over one column-major block."""
    values = np.empty((len(rows), len(columns)), np.float32, order="F")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted later
        for i, column in enumerate(columns.values()):
            values[:, i] = column
    return pd.DataFrame(values, index=rows.index, columns=list(columns), copy=False)


def number(rows: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    """A column as float64 (N,), NaN where missing, infinite or beyond `LARGEST`.

    Raises:
        DataError: Not there, or text in it.
    """
    require(rows, [name])
    column = rows[name]
    if column.dtype != np.float64:
        numbers = pd.to_numeric(column, errors="coerce")
        text = column[numbers.isna() & column.notna()]
        # Kaggle's hidden test table is known to hold "NA" in ages.
        text = text[~text.astype(str).isin(("NA", "nan", ""))]
        if len(text):
            raise DataError(f"features: {name} must be numbers, got {first_five(map(repr, text))}")
        column = numbers
    values: npt.NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return without_infinities(values)


def without_infinities(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same array where all is well, else a copy with NaN for what is beyond `LARGEST`."""
    beyond = np.abs(values) > LARGEST
    return np.where(beyond, np.nan, values) if beyond.any() else values


def require(
    rows: pd.DataFrame, columns: Iterable[str], *, by: str = "", formulas: Iterable[str] = ()
) -> None:
    """Raise DataError where the table lacks one of `columns`, with the names that are nearest.

    formulas: Names that would do as well.
    """
    absent = [c for c in dict.fromkeys(columns) if c not in rows]
    if absent:
        known = [*map(str, rows.columns), *formulas]
        near = [n for c in absent for n in get_close_matches(c, known, n=2, cutoff=0.7)]
        hint = f" Near it: {', '.join(list(dict.fromkeys(near))[:5])}." if near else ""
        raise DataError(
            f"features{f' {by}' if by else ''}: the table has no column {first_five(absent)}"
            f"{', and no formula has that name' if formulas else ''}.{hint} Choose families that "
            "suit the archive: features=[...]"
        )
