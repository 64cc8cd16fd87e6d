"""Which units a bootstrap replicate draws, and how often: weights (R, U), no rows copied.

A unit is a patient, a lesion or an image. Each replicate draws as many units as there are, with
replacement; a unit drawn twice weighs 2. Where images are their own units, those that every metric
value treats alike are one unit of `size` images: drawing by size is the same distribution.
The trap: drawing rows instead of patients makes intervals too narrow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.metrics.inputs import Floats, Ints

BLOCK = 1 << 24  # elements a temporary may hold: 64 MB as float32


@dataclass(frozen=True)
class Draws:
    """The replicates of one bootstrap; the same arguments give the same weights.

    n_units: Units to draw from.
    size: Images behind each unit, or None where units are drawn with equal chance.
    """

    n_units: int
    n_replicates: int = 1000
    seed: int = 0
    size: Ints | None = None

    def weights(self) -> Iterator[Floats]:
        """Yield weights (r, U) float32 in blocks of replicates that fit into memory."""
        rng = np.random.default_rng(self.seed)
        at_once = max(1, BLOCK // self.n_units)
        for start in range(0, self.n_replicates, at_once):
            yield self._block(rng, min(at_once, self.n_replicates - start))

    def _block(self, rng: np.random.Generator, rows: int) -> Floats:
        if self.size is not None:
            total = int(self.size.sum())
            return rng.multinomial(total, self.size / total, size=rows).astype(np.float32)
        drawn = rng.integers(0, self.n_units, size=(rows, self.n_units), dtype=np.int32)
        flat = drawn + (np.arange(rows, dtype=np.int64) * self.n_units)[:, None]
        counts = np.bincount(flat.ravel(), minlength=rows * self.n_units)
        return counts.reshape(rows, self.n_units).astype(np.float32)


def unit_numbers(group: Any, n_rows: int) -> Ints:
    """Number the groups 0.. in order of appearance; without groups every row is its own."""
    if group is None:
        return np.arange(n_rows)
    import pandas as pd

    codes: Ints = pd.factorize(np.asarray(group) if isinstance(group, list) else group)[0]
    if len(codes) != n_rows:
        raise ValueError(f"group has {len(codes)} rows, target {n_rows}")
    if (codes < 0).any():
        rows = np.flatnonzero(codes < 0)
        raise ValueError(f"{len(rows)} rows have no group, first at {rows[:5].tolist()}")
    return codes


def tally(weights: Floats, unit: Ints, cell: Ints, n_cells: int) -> Floats:
    """Sum the weights of the rows in each cell, per replicate: (R, n_cells).

    Few units: one matrix product with the units' own tallies. Many units: gather and add.
    """
    n_units = weights.shape[1]
    # measured: one gathered weight costs as much as 150 to 300 multiply-adds of the product
    if n_units * n_cells <= min(150 * len(unit), BLOCK):
        flat = unit.astype(np.int64) * n_cells + cell
        table = np.bincount(flat, minlength=n_units * n_cells).reshape(n_units, n_cells)
        return _product(weights, table)
    return _gathered(weights, unit, cell, n_cells)


def _product(weights: Floats, table: Ints) -> Floats:
    """Multiply in float32 where every count is exact in it (< 2**24), else in float64."""
    rows = table.sum(axis=1).astype(np.float64)
    exact = len(weights) == 0 or float((weights @ rows).max()) < 2**24
    kind = np.float32 if exact else np.float64
    used = np.flatnonzero(table.any(axis=0))
    sums = np.zeros((len(weights), table.shape[1]))
    sums[:, used] = weights.astype(kind, copy=False) @ table[:, used].astype(kind)
    return sums


def _gathered(weights: Floats, unit: Ints, cell: Ints, n_cells: int) -> Floats:
    order = np.argsort(cell, kind="stable")
    used, starts = np.unique(cell[order], return_index=True)
    sums = np.zeros((len(weights), n_cells))
    at_once = max(1, BLOCK // max(1, len(unit)))
    for start in range(0, len(weights) if len(unit) else 0, at_once):
        part = weights[start : start + at_once].astype(np.float64)[:, unit[order]]
        sums[start : start + at_once, used] = np.add.reduceat(part, starts, axis=1)
    return sums


def expanded(weights: npt.NDArray[Any], unit: Ints) -> Ints:
    """Row numbers of one replicate, rows of a unit drawn twice listed twice."""
    return np.repeat(np.arange(len(unit)), weights[unit].astype(np.int64))
