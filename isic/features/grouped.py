"""Rows of a group put together once; then every column's statistics within the group, exactly.

Groups are patients, or a patient's rows of one site. Each column is sorted within each group; mean
and deviation are summed over the sorted values, in float64. So no order of the rows changes a bit,
and a group gives the same alone as among others. Missing values are left out, as pandas does.
Cost: one sort a column, linear in rows for groups of bounded size; columns run in threads, since
NumPy holds no lock while it sorts.
Trap: rows without a group key are one group each, not one large group of strangers.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

Scalar = TypeVar("Scalar", bound=np.generic)
Column = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

GUARD = 1e-5  # added to deviations, as the 2024 winners did: a constant column gives 0, not NaN


@dataclass(frozen=True, eq=False)
class Groups:
    """N rows in G groups.

    order: (N,) rows, group by group.
    starts: (G,) first place of each group in `order`.
    sizes: (G,) rows of each.
    """

    order: Places
    starts: Places
    sizes: Places

    def spread(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """A value a group (G,) -> a value a row in the order of the table (N,)."""
        rows = np.empty(len(self.order), values.dtype)
        rows[self.order] = np.repeat(values, self.sizes)
        return rows


def group_rows(rows: pd.DataFrame, keys: Sequence[str]) -> Groups:
    """Group rows by the values of `keys`; the first must be known, others may be missing alike."""
    code = pd.factorize(rows[keys[0]])[0].astype(np.int64)
    lonely = code < 0
    code[lonely] = len(code) + np.arange(int(lonely.sum()))
    for key in keys[1:]:
        inner, values = pd.factorize(rows[key])
        code = code * (len(values) + 1) + inner + 1
    order = np.argsort(code, kind="stable").astype(np.int64)
    ranked = code[order]
    first = np.ones(len(code), bool)
    first[1:] = ranked[1:] != ranked[:-1]
    starts = np.flatnonzero(first)
    return Groups(order, starts, np.diff(np.append(starts, len(code))))


@dataclass(frozen=True, eq=False)
class Sorted:
    """One column, ascending within each group.

    values: (N,) missing ones last in their group. places: (N,) row that each came from.
    known: (G,) values that are not missing.
    """

    groups: Groups
    values: Column
    places: Places
    known: Places

    def each(self, group_values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """(G,) -> (N,) in this order."""
        return np.repeat(group_values, self.groups.sizes)


def sort_within(groups: Groups, column: Column) -> Sorted:
    """Sort a column (N,) of float64 within each group."""
    gathered = column[groups.order]
    inner = np.arange(len(gathered))
    many = groups.sizes > 1
    bounds = zip(groups.starts[many].tolist(), groups.sizes[many].tolist(), strict=True)
    for start, size in bounds:
        # One short sort a patient stays in the cache, and needs no key that packs the patient.
        inner[start : start + size] = gathered[start : start + size].argsort()
        inner[start : start + size] += start
    values = gathered[inner]
    missing = np.isnan(values)
    known = groups.sizes
    if missing.any():
        known = known - np.add.reduceat(missing, groups.starts, dtype=np.int64)
    return Sorted(groups, values, groups.order[inner], known)


def mean_of(column: Sorted) -> Column:
    """Mean of each group (G,); NaN where nothing is known."""
    return _divide(total_of(column), column.known)


def total_of(column: Sorted) -> Column:
    """Sum of each group (G,); 0 where nothing is known."""
    return _total(column, column.values)


def _total(column: Sorted, values: Column) -> Column:
    """Sum over the known rows of each group (G,)."""
    if not len(values):
        return np.zeros(0)
    if (column.known < column.groups.sizes).any():
        values = np.where(np.isnan(values), 0.0, values)
    total: Column = np.add.reduceat(values, column.groups.starts)
    return total


def _divide(above: npt.ArrayLike, below: npt.ArrayLike) -> Column:
    """Quotient, NaN where the divisor is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient


def std_of(column: Sorted) -> Column:
    """Deviation of each group over n - 1 (G,); NaN for fewer than two known rows."""
    return _std(column, column.values - column.each(mean_of(column)))


def _std(column: Sorted, away: Column) -> Column:
    variance = _divide(_total(column, away * away), column.known - 1.0)
    variance[column.known < 2] = np.nan
    return np.sqrt(variance)


def z_score(column: Sorted) -> Column:
    """(x - mean) / (std + 1e-5), std over n - 1; NaN where the group has one known row."""
    away = column.values - column.each(mean_of(column))
    away /= column.each(_std(column, away) + GUARD)
    return away


def ratio(column: Sorted) -> Column:
    """x / mean; NaN where the mean is 0."""
    mean = mean_of(column)
    mean[mean == 0] = np.nan
    return column.values / column.each(mean)


def rank(column: Sorted) -> Column:
    """1 for the smallest of the group, equal values share the mean of their ranks."""
    n = len(column.values)
    first = np.ones(n, bool)
    np.not_equal(column.values[1:], column.values[:-1], out=first[1:])
    first[column.groups.starts] = True
    place = np.arange(1.0, n + 1)
    if not first.all():
        starts = np.flatnonzero(first)
        counts = np.diff(np.append(starts, n))
        place = np.repeat(starts + (counts + 1) / 2, counts)
    place -= column.each(column.groups.starts)
    if (column.known < column.groups.sizes).any():
        place[np.isnan(column.values)] = np.nan
    return place


def percentile(column: Sorted) -> Column:
    """rank / number of known rows: in (0, 1], 1 for the only row of a group."""
    place = rank(column)
    place /= column.each(np.maximum(column.known, 1))
    return place


STATISTICS: Mapping[str, Callable[[Sorted], Column]] = {
    "z": z_score,
    "ratio": ratio,
    "rank": rank,
    "percentile": percentile,
}


def statistics_within(
    groups: Groups,
    columns: Sequence[Column],
    names: Sequence[str],
    out: npt.NDArray[np.float32],
) -> None:
    """Write statistics of columns (N,) into `out` (N, columns x names), columns in threads.

    names: Of STATISTICS.
    """

    def work(i: int) -> None:
        column = sort_within(groups, columns[i])
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted later
            for j, name in enumerate(names):
                out[column.places, i * len(names) + j] = STATISTICS[name](column)

    with ThreadPoolExecutor(threads()) as pool:
        list(pool.map(work, range(len(columns))))


def threads() -> int:
    """Cores that this process may use, at most 8: beyond that memory is what limits."""
    mine = getattr(os, "sched_getaffinity", None)
    return max(1, min(8, len(mine(0)) if mine else os.cpu_count() or 1))
