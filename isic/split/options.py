"""What can be chosen of a split, what a split is, and which of its rows train.

Fold of a sample: 0..k-1 validates; -1 is never used; -2 trains in every fold and never validates;
-3 (an empty cell of the file) is held out: nothing trains, validates or is put together on it.
Trap: a row that trains everywhere may be of a patient whom fold f validates; `training_mask` is the
one place that leaves it out there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import ConfigError
from isic.split.split_file import COLUMNS, HELD_OUT, NEVER, TRAINS

METHODS = ("grouped", "hospital", "given")


@dataclass(frozen=True)
class SplitOptions:
    """The `split` keys.

    n_folds: Of the method `grouped`; the others have as many as there are hospitals or numbers.
    seed: Of the deal, of what is held out and of `data.fraction`.
    file: Folds as published or made before, a CSV; method, number and seed then do not matter.
    method: `grouped`, `hospital` (leave one attribution out) or `given` (needs `file`).
    holdout: Share of the rows that is set aside before the folds, as whole groups.
    overlap: Keep images that show the same in one fold; the first time, all images are read.
    columns: What `image_id`, `fold` and `group` are called in `file`.
    """

    n_folds: int | None = 5
    seed: int = 0
    file: str | None = None
    method: str = "grouped"
    holdout: float = 0.0
    overlap: bool = True
    columns: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse values that are no choices, and keys that exclude each other."""
        if self.method not in METHODS:
            raise ConfigError(f"split.method: expected {', '.join(METHODS)}, got {self.method!r}")
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"split.holdout: expected a share in [0, 1), got {self.holdout}")
        if self.file is None:
            self._check_without_file()
        elif self.holdout:
            raise ConfigError(
                f"split.holdout: expected 0 with split.file, got {self.holdout}; rows to hold out "
                "have an empty fold in the file"
            )
        unknown = sorted(set(self.columns or {}) - set(COLUMNS))
        if unknown:
            raise ConfigError(
                f"split.columns: expected the keys {', '.join(COLUMNS)}, got {', '.join(unknown)}"
            )

    def _check_without_file(self) -> None:
        if self.method == "given":
            raise ConfigError("split.file: expected a CSV, as split.method=given needs, got none")
        if self.columns:
            raise ConfigError("split.columns names the columns of split.file, got no file")
        if self.method == "grouped" and (self.n_folds is None or self.n_folds < 2):
            raise ConfigError(
                f"split.n_folds must be 2 or more, got {self.n_folds}; use fold=all for one"
            )


@dataclass(frozen=True)
class Split:
    """A split file: its path, its content's hash, and its rows.

    table: `image_id`, `group`, `fold` (-2 and up) of the samples that may be used.
    held_out: The same columns of those that are held out; `fold` is -3.
    """

    path: Path
    hash: str
    table: pd.DataFrame
    held_out: pd.DataFrame

    @property
    def n_folds(self) -> int:
        """Folds that validate: negative ones do not."""
        return int(self.table["fold"].max()) + 1


def training_mask(table: pd.DataFrame, fold: int | str) -> NDArray[np.bool_]:
    """Which rows of a split's table train when `fold` validates, or with `all`: bool (rows,).

    Other folds' rows, and those that train everywhere unless their group has a row in `fold`. To
    be asked for all rows of the split at once, before any is left out for want of an image.

    table: With `group` and `fold`, as `Split.table` or what `fold_rows` gives.
    """
    number = table["fold"].to_numpy()
    if fold == "all":
        return np.asarray((number != NEVER) & (number != HELD_OUT))
    mask: NDArray[np.bool_] = (number >= 0) & (number != fold)
    everywhere = np.flatnonzero(number == TRAINS)
    if len(everywhere):  # comparing names of groups takes a second for 401,059 rows
        group = table["group"]
        mask[everywhere] = ~group.iloc[everywhere].isin(group[number == fold]).to_numpy()
    return mask
