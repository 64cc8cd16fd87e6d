"""A lesion beside the others of its patient: the "ugly duckling", two thirds of the boosters' gain.

Source: 1st and 2nd place of ISIC 2024 (z-scores, counts, sums of areas, |z| over columns). For each
column and each grouping of `GROUPINGS`, the statistics of `isic.features.grouped`: z-score,
ratio to the mean, rank, percentile. No labels are used, and no other patient's rows.
Trap: all rows of a patient must be in the table: the features of half a patient are others. For a
patient with one lesion a z-score is missing (its deviation is undefined), a percentile 1.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import filter as filter_names
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import ConfigError, first_five
from isic.features.family import State
from isic.features.grouped import (
    STATISTICS,
    Groups,
    group_rows,
    sort_within,
    statistics_within,
    total_of,
)
from isic.features.lesion_shape import MEASURED, PREFIX, LesionValues, columns_of
from isic.features.naming import ascii_name, unique_names

GROUPINGS: Mapping[str, tuple[str, ...]] = {
    "patient": ("patient_id",),
    "patient_site": ("patient_id", "site"),
    "patient_location": ("patient_id", "tbp_lv_location"),
    "patient_location_simple": ("patient_id", "tbp_lv_location_simple"),
}
UNUSUAL = 2.0  # |z| beyond which the 2nd place counted a column


@dataclass(frozen=True)
class PatientContext:
    """Columns within groups of a patient's rows.

    within: Grouping -> statistics: z, ratio, rank, percentile.
    columns: Measured columns, formulas of `lesion_shape`, or patterns of columns; null means
        the 33 measured ones.
    counts: Rows of the group. sums: Columns to sum over the group.
    summary: Over the columns of a grouping with z: largest |z|, number of |z| > 2, deviation of z.
    """

    within: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {"patient": ("z", "ratio", "percentile")}
    )
    columns: Sequence[str] | None = None
    counts: bool = True
    sums: Sequence[str] = ("tbp_lv_areaMM2",)
    summary: bool = True

    name: ClassVar[str] = "patient_context"
    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        kinds = [kind for given in self.within.values() for kind in given]
        odd = [n for n in self.within if n not in GROUPINGS]
        odd += [n for n in kinds if n not in STATISTICS]
        if odd:
            raise ConfigError(
                f"features.{self.name}.within: expected groupings of {', '.join(GROUPINGS)} and "
                f"statistics of {', '.join(STATISTICS)}, got {first_five(odd)}"
            )

    def needs(self, available: Sequence[str]) -> tuple[str, ...]:
        """Columns behind the features, and those that group."""
        keys = [key for grouping in self.within for key in GROUPINGS[grouping]]
        return columns_of([*resolve(self.columns, available), *self.sums, *keys])

    def sources(
        self, available: Sequence[str], kept: Collection[str], state: State
    ) -> tuple[str, ...]:
        """The columns that the features `kept` are made of, and those that group."""
        columns, used = resolve(self.columns, available), dict[str, None]()
        names = iter(self._all_names(columns))
        for grouping in self.within:
            of_features = self._sources(grouping, columns)
            made = [c for of in of_features if next(names) in kept for c in of]
            keys = GROUPINGS[grouping] if made else ()
            used |= dict.fromkeys([*made, *keys])
        return columns_of(list(used))

    def fit(self, rows: pd.DataFrame) -> State:
        """Nothing."""
        return {}

    def transform(self, rows: pd.DataFrame, state: State) -> pd.DataFrame:
        """Features (N, F): by grouping, then by column, then by statistic."""
        columns = resolve(self.columns, list(rows.columns))
        names = self._all_names(columns)
        out = np.empty((len(rows), len(names)), np.float32, order="F")
        at, values = 0, LesionValues(rows)
        for grouping in self.within:
            part = out[:, at : at + len(self._names(grouping, columns))]
            self._fill(part, grouping, columns, values)
            at += part.shape[1]
        return pd.DataFrame(out, index=rows.index, columns=names, copy=False)

    def _all_names(self, columns: Sequence[str]) -> list[str]:
        """Of the features, each once, grouping by grouping."""
        names = [name for g in self.within for name in self._names(g, columns)]
        behind = [" ".join(of) for g in self.within for of in self._sources(g, columns)]
        return unique_names(names, behind)

    def _sources(self, grouping: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
        """The columns behind each of `_names`; `patient_id` where rows are counted."""
        behind: list[tuple[str, ...]] = [(c,) for c in columns for _ in self.within[grouping]]
        summarised = [tuple(columns)] * 3 if self._summarised(grouping) else []
        counted = [(GROUPINGS[grouping][0],)] if self.counts else []
        return [*behind, *summarised, *counted, *((c,) for c in self.sums)]

    def _names(self, grouping: str, columns: Sequence[str]) -> list[str]:
        """In the order in which `_fill` writes."""
        short = [ascii_name(column.removeprefix(PREFIX)) for column in columns]
        names = [f"{c}_{grouping}_{kind}" for c in short for kind in self.within[grouping]]
        if self._summarised(grouping):
            names += [f"z_{what}_{grouping}" for what in ("largest", "unusual", "std")]
        if self.counts:
            names.append(f"lesions_{grouping}")
        sums = [ascii_name(c.removeprefix(PREFIX)) for c in self.sums]
        return [*names, *(f"{c}_{grouping}_sum" for c in sums)]

    def _summarised(self, grouping: str) -> bool:
        return self.summary and "z" in self.within[grouping]

    def _fill(
        self,
        out: npt.NDArray[np.float32],
        grouping: str,
        columns: Sequence[str],
        values: LesionValues,
    ) -> None:
        """Write one grouping's features (N, F)."""
        groups, kinds = group_rows(values.rows, GROUPINGS[grouping]), list(self.within[grouping])
        n = len(columns) * len(kinds)
        statistics_within(groups, [values[column] for column in columns], kinds, out[:, :n])
        extra: list[npt.NDArray[np.generic]] = []
        if self._summarised(grouping):
            extra += summarise(out[:, kinds.index("z") : n : len(kinds)])
        if self.counts:
            extra.append(groups.spread(groups.sizes))
        extra += [sum_within(groups, values[column]) for column in self.sums]
        for i, column in enumerate(extra):
            out[:, n + i] = column


def resolve(columns: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """Names as they are, patterns as the columns they stand for; null: the measured ones."""
    if columns is None:
        return list(MEASURED)
    found = [filter_names(available, name) or [name] for name in columns]
    return list(dict.fromkeys(name for group in found for name in group))


def summarise(z: npt.NDArray[np.float32]) -> list[npt.NDArray[np.generic]]:
    """Of z-scores (N, C): largest |z|, how many |z| > 2, deviation over columns; (N,) each."""
    n = z.shape[0]
    largest, unusual = np.full(n, np.nan, np.float32), np.zeros(n, np.float32)
    known, total, square = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(z.shape[1]):  # column by column: the block is column-major and large
        column = z[:, i]
        size = np.abs(column)
        largest = np.fmax(largest, size)
        unusual += size > UNUSUAL
        zero = np.where(np.isnan(column), 0.0, column.astype(np.float64))
        known += ~np.isnan(column)
        total += zero
        square += zero * zero
    count = np.where(known > 1, known, np.nan)
    variance = np.maximum(square - total * total / count, 0.0) / (count - 1)
    return [largest, unusual, np.sqrt(variance)]


def sum_within(groups: Groups, column: npt.NDArray[np.float64]) -> npt.NDArray[np.generic]:
    """Sum of a column over each group's known rows (N,), the same in any order of rows."""
    return groups.spread(total_of(sort_within(groups, column)))
