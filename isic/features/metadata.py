"""What the table says of a sample, as it is: numbers as numbers, texts one column a value.

MILK10k: 14 MONET scores (0..1, seven of each view), age (years), skin tone (0 darkest .. 5), sex,
site. Other archives: age, sex, site, and how many images the patient has. A missing number stays
missing; a text that training rows did not hold, and a missing one, is `<column>_unknown`.
Trap: categories come from training rows in alphabetical order, never from the table at hand, or
train and test tables would differ in columns.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.features.family import State, frame_of, number
from isic.features.grouped import group_rows
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
        made = {}
        for column in state["columns"]:
            if column not in state["categories"]:
                made[safe_name(column)] = number(rows, column)
                continue
            values = state["categories"][column]
            code = _texts(rows[column]).map({v: i for i, v in enumerate(values)})
            place = code.fillna(len(values)).to_numpy(np.int64)
            for i, name in enumerate(_names(column, values)):
                made[name] = (place == i).astype(np.float64)
        if self.patient_rows:
            groups = group_rows(rows, ("patient_id",))
            made["images_patient"] = groups.spread(groups.sizes.astype(np.float64))
        return frame_of(made, rows)


def safe_name(text: str) -> str:
    """Letters, digits and `_` only: `Torso Back - Upper` is `Torso_Back_Upper`."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


def _names(column: str, values: Sequence[str]) -> list[str]:
    """A name a value, numbered where two values would share it, and the unknown."""
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
