"""What a fit sees: features as float32 columns, targets, folds, and who may train.

Unit: row = sample (`isic.index.schema.sample_rows`). Matrices are column-major, as the features
come; `take` gives some rows of the used columns, row by row in memory, as boosters read them.
Trap: a row without a label trains nothing, and -1 is no class: `training` is the one place that
says who trains.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.split.options import training_mask

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]
Fold = int | str  # 0..k-1, or `all`


@dataclass(frozen=True, eq=False)
class FoldInputs:
    """What one fold's fits see: columns made without it, and those its training rows made.

    parts: Matrices (N, F_i) float32 side by side; the first is shared by all folds.
    names: Of all columns.
    kept: Positions of the columns that are used; None = all.
    blank: Names of columns that were left out because they have no value, or a single one, in the
        rows that train.
    """

    parts: tuple[Matrix, ...]
    names: tuple[str, ...]
    kept: Ints | None = None
    blank: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that `take` gives."""
        return self.names if self.kept is None else tuple(self.names[i] for i in self.kept)

    def take(self, rows: Ints | slice) -> Matrix:
        """The used columns of some rows, (n, F) float32; every row of one part is not copied."""
        whole = isinstance(rows, slice) and rows == slice(None)
        if whole and len(self.parts) == 1 and self.kept is None:
            return self.parts[0]
        starts = np.cumsum([0, *(part.shape[1] for part in self.parts)])
        kept = np.arange(starts[-1]) if self.kept is None else self.kept
        first = np.arange(len(self.parts[0]))[rows]
        out = np.empty((len(first), len(kept)), np.float32)
        for part, start in zip(self.parts, starts, strict=False):
            inside = np.flatnonzero((kept >= start) & (kept < start + part.shape[1]))
            for at in inside:  # parts are column-major: one pass over memory a column
                out[:, at] = part[rows, kept[at] - start]
        return out


@dataclass(frozen=True, eq=False)
class Samples:
    """The rows of a split, with what is learnt.

    table: `group` and `fold`, as `fold_rows` gives them.
    target: (N,) class number; -1 = unlabelled, never trains.
    trains: Which rows may train at all.
    weight: (N,) of the loss, or None.
    """

    table: pd.DataFrame
    target: Ints
    classes: tuple[str, ...]
    trains: Bools | None = None
    weight: Floats | None = None

    @property
    def folds(self) -> list[int]:
        """That validate."""
        number = self.table["fold"].to_numpy()
        return [int(f) for f in np.unique(number[number >= 0])]

    def training(self, fold: Fold) -> Ints:
        """Positions of the rows that train when `fold` is held out, or with `all`."""
        mask = training_mask(self.table, fold) & (self.target >= 0)
        return np.flatnonzero(mask if self.trains is None else mask & self.trains)
