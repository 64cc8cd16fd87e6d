"""What the table says of a sample, as it is: numbers as numbers, texts one column a value.

MILK10k: 14 MONET scores (0..1, seven of each view), age (years), skin tone (0 darkest .. 5), sex,
site. Other archives: age, sex, site, and how many images the patient has. A missing number stays
missing; a text that training rows did not hold, and a missing one, is `<column>_unknown`.
Trap: categories come from training rows in alphabetical order, never from the table at hand, or
train and test tables would differ in columns.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.features.family import State, frame_of, number
from isic.features.grouped import group_rows
from isic.features.naming import plain_name, unique_names
from isic.features.patient_context import resolve

MOST = 100  # categories; the longest vocabulary of an archive has about 20
IDS = ("image_id", "lesion_id", "patient_id", "image")


@dataclass(frozen=True)
class Metadata:
    """Columns of the table as features.

    columns: Names or patterns. patient_rows: Whether to add `images_patient`.
    """

    columns: Sequence[str] = ("age", "sex", "site")
    patient_rows: bool = False

    name: ClassVar[str] = "metadata"
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if found := [c for c in self.columns if c in IDS]:
            raise ConfigError(f"features.metadata: {first_five(found)} names rows, is no feature")

    def needs(self, available: Sequence[str]) -> tuple[str, ...]:
        """The columns, and the patient where its rows are counted."""
        counted = ("patient_id",) if self.patient_rows else ()
        return (*resolve(self.columns, available), *counted)

    def fit(self, rows: pd.DataFrame) -> State:
        """Which columns are numbers, and the values of the others."""
        columns = resolve(self.columns, list(rows.columns))
        texts = [c for c in columns if not pd.api.types.is_numeric_dtype(rows[c])]
        return {
            "columns": columns,
            "categories": {c: _categories(rows[c]) for c in texts},
        }

    def transform(self, rows: pd.DataFrame, state: State) -> pd.DataFrame:
        """Features (N, numbers + values of the texts)."""
        values: list[npt.NDArray[np.float64]] = []
        for column in state["columns"]:
            if column not in state["categories"]:
                values.append(number(rows, column))
                continue
            texts = state["categories"][column]
            code = _texts(rows[column]).map({v: i for i, v in enumerate(texts)})
            place = code.fillna(len(texts)).to_numpy(np.int64)
            values += [(place == i).astype(np.float64) for i in range(len(texts) + 1)]
        if self.patient_rows:
            groups = group_rows(rows, ("patient_id",))
            values.append(groups.spread(groups.sizes.astype(np.float64)))
        names = [name for name, _ in self._named(state)]
        return frame_of(dict(zip(names, values, strict=True)), rows)

    def sources(
        self, available: Sequence[str], kept: Collection[str], state: State
    ) -> tuple[str, ...]:
        """The columns that the features `kept` are made of."""
        return tuple(dict.fromkeys(owner for name, owner in self._named(state) if name in kept))

    def _named(self, state: State) -> list[tuple[str, str]]:
        """Name and column of each feature, each name once over all columns."""
        names: list[str] = []
        origins: list[str] = []
        owners: list[str] = []
        for column in state["columns"]:
            if column in state["categories"]:
                texts = state["categories"][column]
                names += _names(column, texts)
                origins += [f"{column}={text}" for text in texts] + [f"{column} unknown"]
            else:
                names.append(safe_name(column))
                origins.append(column)
            owners += [column] * (len(names) - len(owners))
        if self.patient_rows:
            names.append("images_patient")
            origins.append("images of the patient")
            owners.append("patient_id")
        return list(zip(unique_names(names, origins), owners, strict=True))


def safe_name(text: str) -> str:
    """Letters, digits and `_` only: `Torso Back - Upper` is `Torso_Back_Upper`."""
    return plain_name(text).strip("_")


def _names(column: str, values: Sequence[str]) -> list[str]:
    """A name a value, numbered where two values would share it, and the unknown.

    Not yet unique: `a_2` may be the third value's name and the second value's text.
    """
    names: list[str] = []
    for value in values:
        name = safe_name(f"{column}_{value}")
        names.append(f"{name}_{len(names)}" if name in names else name)
    unknown = safe_name(f"{column}_unknown")
    # ISIC 2024 has places that are called Unknown
    return [*names, f"{unknown}_value" if unknown in names else unknown]


def _texts(column: pd.Series) -> pd.Series:
    """Values as text, None where missing; `1` and `1.0` differ, as in the file."""
    return column.astype(object).where(column.notna(), None).map(str, na_action="ignore")


def _categories(column: pd.Series) -> list[str]:
    found = sorted(_texts(column).dropna().unique())
    if len(found) > MOST:
        raise DataError(
            f"features.metadata: {column.name} has {len(found)} different texts, at most {MOST} "
            f"make categories: {first_five(found)}"
        )
    return [str(value) for value in found]
