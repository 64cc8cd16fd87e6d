"""Rows of one training fold drawn again, so that the rare class weighs more and fits are quick.

Source: ISIC 2024's winners (imbalanced-learn's RandomOverSampler 0.003, then RandomUnderSampler
0.01): of 393 positives among 401,059 rows, 0.003 draws positives up to 3 a 1,000 negatives, 0.01
keeps 100 negatives a positive. With more classes, each is measured by the largest (raised) or by
all others together (cut): a class of 8 rows must not cost a common one two thirds of its own.
Trap: before the folds are made, drawn copies of one row would stand on both sides of a fold.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isic.errors import ConfigError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Resample:
    """The `resample` keys; null leaves a side as it is.

    over: A class of fewer rows than this share of the largest class is drawn up to it.
    under: A class is cut down until all others together are this share of it.
    """

    over: float | None = 0.003
    under: float | None = 0.01

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        for key in ("over", "under"):
            share = getattr(self, key)
            if share is not None and not 0 < share <= 1:
                raise ConfigError(f"resample.{key}: expected a share in (0, 1], got {share}")

    def rows(self, target: Ints, rng: np.random.Generator) -> Ints:
        """Positions in `target` (N,), ascending; every row of a class that is not cut stays once.

        Every class of `target` counts; with one class nothing is drawn.
        """
        members = [np.flatnonzero(target == c) for c in np.unique(target)]
        if self.over is not None:
            wanted = int(self.over * max(map(len, members)))
            members = [_raised(rows, wanted, rng) for rows in members]
        if self.under is not None:
            counts = [len(rows) for rows in members]
            others = [(sum(counts) - count) or count for count in counts]
            members = [
                _cut(rows, int(other / self.under), rng)
                for rows, other in zip(members, others, strict=True)
            ]
        return np.sort(np.concatenate(members))


def _raised(rows: Ints, wanted: int, rng: np.random.Generator) -> Ints:
    """All rows, and some drawn again with replacement."""
    if len(rows) >= wanted:
        return rows
    return np.concatenate([rows, rng.choice(rows, wanted - len(rows))])


def _cut(rows: Ints, most: int, rng: np.random.Generator) -> Ints:
    """A sample of the rows without replacement."""
    return rows if len(rows) <= most else rng.choice(rows, most, replace=False)
