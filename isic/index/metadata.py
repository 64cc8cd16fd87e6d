"""Metadata columns of a table -> float32 features, learned from training rows alone.

A number becomes two features: standardised (median where missing) and a flag of missing. A text
becomes one feature a category of the training rows and one of unknown, which takes unseen and
missing values. Column groups (age / sex / site / ...) are what a network drops as a whole.
Units: those of the table, e.g. `age` in years; features are in deviations from the mean, or 0 or 1.
Trap: a column that is known of train rows only gives the label away, and an id learns its rows by
heart: both are refused.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import filter as filter_names
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import DataError, first_five
from isic.index.in_test import say_strange_texts
from isic.index.schema import DatasetInfo, refuse_train_only

log = logging.getLogger(__name__)

MOST_CATEGORIES = 100  # MILK10k's and ISIC 2024's longest vocabularies have about 20
UNKNOWN = "(unknown)"
IDS = ("image_id", "lesion_id", "patient_id", "image", "split", "parent_id", "duplicate_of")
MADE = ("group", "fold")  # by the split: rows to be predicted have none

Features = npt.NDArray[np.float32]


def fit_metadata(
    rows: pd.DataFrame, names: Sequence[str], *, info: DatasetInfo
) -> "MetadataEncoder":
    """An encoder of the named columns of training rows.

    names: Columns, or patterns as `MONET_*`, which stand for all columns that they match. What
        comes with the image of one view is one group: without that image none of it is known.

    Raises:
        DataError: See `MetadataEncoder.fit`; or no row knows any of the columns.
    """
    columns = named_columns(rows, names, info=info)
    _say_unknown(rows, columns)
    spread = {view: [f"{c}_{view}" for c in info.view_columns] for view in info.views}
    groups = {view: [c for c in columns if c in own] for view, own in spread.items()}
    return MetadataEncoder.fit(
        rows, columns, info=info, groups={view: own for view, own in groups.items() if own}
    )


def _say_unknown(rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """A column without a value teaches nothing; all of them so is a mistake."""
    unknown = [name for name in columns if rows[name].isna().all()]
    if unknown and len(unknown) == len(columns):
        raise DataError(
            f"metadata: none of {len(rows)} training rows has a value of {first_five(unknown)}; "
            "name other columns, or leave data.metadata null"
        )
    if unknown:
        log.warning("metadata: no training row knows %s", first_five(unknown))


def metadata_hash(rows: pd.DataFrame, names: Sequence[str], *, info: DatasetInfo) -> str:
    """Hash of what some rows say in named columns, in any row order. Twelve hex digits.

    Raises:
        DataError: A column that `fit_metadata` would refuse.
    """
    columns = named_columns(rows, names, info=info)
    lines = rows[["image_id", *columns]].sort_values("image_id").to_csv(index=False)
    return hashlib.blake2b(lines.encode(), digest_size=6).hexdigest()


def named_columns(rows: pd.DataFrame, names: Sequence[str], *, info: DatasetInfo) -> list[str]:
    """The columns that names and patterns stand for.

    Raises:
        DataError: A column that gives the label away, an id, or one the table lacks.
    """
    found = [filter_names(list(rows.columns), name) or [name] for name in names]
    columns = list(dict.fromkeys(c for group in found for c in group))
    _refuse(rows, columns, info)
    return columns


@dataclass(frozen=True)
class Number:
    """What training rows say of a numeric column, in its own unit."""

    median: float
    mean: float
    std: float


@dataclass(frozen=True)
class MetadataEncoder:
    """Columns in the order of their features; `fit` makes it, `encode` applies it.

    numbers: Of numeric columns.
    categories: Of the others, the values of training rows in alphabetical order.
    groups: Name -> columns.
    """

    columns: tuple[str, ...]
    numbers: Mapping[str, Number]
    categories: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...]]

    @classmethod
    def fit(
        cls,
        rows: pd.DataFrame,
        columns: Sequence[str],
        *,
        info: DatasetInfo,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> "MetadataEncoder":
        """Learn medians, deviations and categories from training rows, and from nothing else.

        groups: Name -> columns that are known or missing together; a column without one is its own.

        Raises:
            DataError: A column that gives the label away, an id, or one the table lacks.
        """
        _refuse(rows, columns, info)
        numbers, categories = {}, {}
        for name in columns:
            if pd.api.types.is_numeric_dtype(rows[name]) and not _is_bool(rows[name]):
                numbers[name] = _number(rows[name])
            else:
                categories[name] = _categories(rows[name])
        return cls(tuple(columns), numbers, categories, _groups(columns, groups or {}))

    @property
    def names(self) -> list[str]:
        """Of the features: `age`, `age:missing`, `sex=female`, `sex=(unknown)`."""
        return [feature for name in self.columns for feature in self._features(name)]

    @property
    def layout(self) -> dict[str, Any]:
        """What a network needs: `groups`, name -> positions of features; `absent`, all missing."""
        owner = [name for name in self.columns for _ in self._features(name)]
        positions = {
            group: [i for i, name in enumerate(owner) if name in columns]
            for group, columns in self.groups.items()
        }
        nothing = pd.DataFrame({name: [None] for name in self.columns})
        return {"groups": positions, "absent": self._encoded(nothing)[0].tolist()}

    def encode(self, rows: pd.DataFrame) -> Features:
        """Features (N, M); a column that is absent, empty or strange in every row is logged.

        Raises:
            DataError: Text in a numeric column.
        """
        if absent := [name for name in self.columns if name not in rows]:
            log.warning("metadata: no column %s; taken as missing", first_five(absent))
        empty = [name for name in self.columns if name in rows and rows[name].isna().all()]
        if empty and len(rows):
            log.warning("metadata: no value in %s; taken as missing", first_five(empty))
        for name, values in self.categories.items():
            if name in rows:
                say_strange_texts(rows[name], values)
        return self._encoded(rows)

    def _encoded(self, rows: pd.DataFrame) -> Features:
        table = rows.reindex(columns=list(self.columns))
        parts = [
            self._encode_number(table[name], name)
            if name in self.numbers
            else self._encode_text(table[name], name)
            for name in self.columns
        ]
        return np.concatenate([np.empty((len(rows), 0), np.float32), *parts], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and floats: safe for JSON and `weights_only=True`."""
        return {
            "columns": list(self.columns),
            "numbers": {name: asdict(number) for name, number in self.numbers.items()},
            "categories": {name: list(values) for name, values in self.categories.items()},
            "groups": {name: list(columns) for name, columns in self.groups.items()},
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "MetadataEncoder":
        """The inverse of `to_dict`."""
        return cls(
            tuple(plain["columns"]),
            {name: Number(**number) for name, number in plain["numbers"].items()},
            {name: tuple(values) for name, values in plain["categories"].items()},
            {name: tuple(columns) for name, columns in plain["groups"].items()},
        )

    def _features(self, name: str) -> list[str]:
        if name in self.numbers:
            return [name, f"{name}:missing"]
        return [f"{name}={value}" for value in self.categories[name]] + [f"{name}={UNKNOWN}"]

    def _encode_number(self, column: pd.Series, name: str) -> Features:
        """(N, 2): standardised value, flag of missing."""
        values, number = _finite(column, name), self.numbers[name]
        missing = np.isnan(values)
        filled = np.where(missing, number.median, values)
        scaled = np.clip((filled - number.mean) / number.std, -_FAR, _FAR)
        return np.stack([scaled, missing], axis=1).astype(np.float32)

    def _encode_text(self, column: pd.Series, name: str) -> Features:
        """(N, categories + 1), one 1 a row."""
        place: dict[str | None, int] = {value: i for i, value in enumerate(self.categories[name])}
        code = [place.get(value, len(place)) for value in _texts(column)]
        return np.eye(len(place) + 1, dtype=np.float32)[np.array(code, np.int64)]


_LARGEST = 1e30  # sums and squares of what is smaller are finite
_FAR = 1e4  # deviations: a typing error of any size stays a finite float32 and a finite gradient


def _refuse(rows: pd.DataFrame, columns: Sequence[str], info: DatasetInfo) -> None:
    """Refuse what is no feature, or not there."""
    ends = tuple(f"_{view}" for view in info.views)
    stems = [next((c.removesuffix(e) for e in ends if c.endswith(e)), c) for c in columns]
    refuse_train_only(dict.fromkeys([*columns, *stems]), info)
    names = {*IDS, *MADE, info.id_column}
    ids = [c for c, stem in zip(columns, stems, strict=True) if {c, stem} & names]
    if ids:
        raise DataError(f"metadata: {', '.join(ids)} names rows and is no feature of them")
    twice = sorted({c for c in columns if list(columns).count(c) > 1})
    if twice:
        raise DataError(f"metadata: expected each column once, got {first_five(twice)} twice")
    absent = [c for c in columns if c not in rows]
    if absent:
        raise DataError(
            f"metadata: the {info.name} table has no column {first_five(absent)}; "
            f"it has {', '.join(map(str, rows.columns))}"
        )


def _groups(
    columns: Sequence[str], given: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Each column in exactly one group, in the order of the columns."""
    listed = [c for group in given.values() for c in group]
    alone = {c: (c,) for c in columns if c not in listed}
    wrong = sorted(
        {c for c in listed if c not in columns or listed.count(c) > 1} | {*alone} & {*given}
    )
    if wrong:
        raise DataError(
            f"metadata groups: expected columns of metadata, each in one group; "
            f"got {first_five(wrong)}"
        )
    return {**{name: tuple(group) for name, group in given.items()}, **alone}


def _number(column: pd.Series) -> Number:
    """Median, mean and deviation of what is known; 0, 0 and 1 where nothing is."""
    values = _finite(column, str(column.name))
    known = values[~np.isnan(values)]
    if not len(known):
        return Number(0.0, 0.0, 1.0)
    std = float(known.std())
    return Number(float(np.median(known)), float(known.mean()), std if std > 0 else 1.0)


def _categories(column: pd.Series) -> tuple[str, ...]:
    found = tuple(sorted({value for value in _texts(column) if value is not None}))
    if len(found) > MOST_CATEGORIES:
        raise DataError(
            f"metadata: {column.name} has {len(found)} different texts in training rows, at most "
            f"{MOST_CATEGORIES} make a category: {first_five(found)}"
        )
    return found


def _finite(column: pd.Series, name: str) -> npt.NDArray[np.float64]:
    """float64 with NaN where missing, infinite or beyond what any unit makes of a lesion."""
    numbers = pd.to_numeric(column, errors="coerce")
    text = column[numbers.isna() & column.notna()]
    if len(text):
        raise DataError(
            f"metadata: {name} was a number in training, got {first_five(map(repr, text))}"
        )
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.abs(values) < _LARGEST, values, np.nan)


def _texts(column: pd.Series) -> list[str | None]:
    """Each value as text, None where missing."""
    missing = column.isna().to_numpy()
    return [None if gone else str(v) for v, gone in zip(column, missing, strict=True)]


def _is_bool(column: pd.Series) -> bool:
    return bool(pd.api.types.is_bool_dtype(column))
