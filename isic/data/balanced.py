"""Training batches that even out classes or patients; see `isic.data.sampler` for what they share.

Both walk through their rows, so that none is left out for ever: what this epoch leaves comes in
the next ones.

Trap: a loss that weighs classes is told what an epoch of the sampler shows, not what the fold
holds; with `power=1` there is nothing left for it to balance.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.data.sampler import Positions, TrainingBatches, walk
from isic.errors import ConfigError


class ClassBalancedBatches(TrainingBatches):
    """Classes in shares of n^(1 - power): 0 as the rows are, 1 every class equally often.

    A row of a class of n comes with weight n^-power. The rows of a class come in laps, each row
    once a lap, and an epoch goes on where the last one stopped.

    target: (N,) int; rows below 0 are never drawn.
    samples_per_epoch: Default: as many as there are rows.
    """

    def __init__(
        self,
        target: Positions,
        *,
        power: float,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        samples_per_epoch: int | None = None,
        drop_last: bool = True,
    ) -> None:
        classes = np.unique(target[target >= 0])
        self._rows = [np.flatnonzero(target == c) for c in classes]
        n_epoch = samples_per_epoch or sum(map(len, self._rows))
        if not 0 <= power <= 1 or n_epoch < len(classes):
            raise ConfigError(
                f"expected power in 0..1 and a sample for each of {len(classes)} classes an "
                f"epoch, got sampler.power={power} and samples_per_epoch={samples_per_epoch}"
            )
        super().__init__(
            n_epoch=n_epoch,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        sizes = np.array([len(rows) for rows in self._rows], float)
        self._counts = _apportioned(sizes ** (1 - power), n_epoch)
        self._seed = seed

    def _order(self, epoch: int) -> Positions:
        drawn = [
            rows[walk(len(rows), start=epoch * count, count=count, seed=self._seed)]
            for rows, count in zip(self._rows, self._counts.tolist(), strict=True)
        ]
        return np.random.default_rng((self._seed, epoch, 1)).permutation(np.concatenate(drawn))


class CappedNegativesBatches(TrainingBatches):
    """All positives, and of each patient at most `per_group` negatives, other ones every epoch.

    A patient of ISIC 2024 has 1 to 9,184 negatives; uncapped, few patients are most of an epoch.
    The negatives of a patient come in turn.

    target: (N,) int, 1 positive and 0 negative; other values are never drawn.
    group: (N,) patient of each row, or whatever the folds keep together; given by the data module.
    samples_per_epoch: An epoch is the next so many of a capped epoch; longer ones are not made.
    """

    def __init__(
        self,
        target: Positions,
        *,
        per_group: int,
        batch_size: int,
        seed: int,
        group: npt.NDArray[Any] | None = None,
        rank: int = 0,
        world_size: int = 1,
        samples_per_epoch: int | None = None,
        drop_last: bool = True,
    ) -> None:
        if group is None or len(group) != len(target):
            got = "none" if group is None else f"{len(group)}"
            raise ConfigError(f"sampler: expected a group of each of {len(target)} rows, got {got}")
        self._positive, negative = np.flatnonzero(target == 1), np.flatnonzero(target == 0)
        if min(len(self._positive), len(negative), per_group) < 1:
            raise ConfigError(
                "expected positives, negatives and sampler.per_group of 1 or more, got "
                f"{len(self._positive)} positives, {len(negative)} negatives and {per_group}"
            )
        self._negatives, self._per_group, self._seed = _by_group(negative, group), per_group, seed
        self._n_whole = len(self._positive) + sum(
            min(len(rows), per_group) for rows in self._negatives
        )
        super().__init__(
            n_epoch=min(samples_per_epoch or self._n_whole, self._n_whole),
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )

    def _order(self, epoch: int) -> Positions:
        parts = -(-self._n_whole // self._n_epoch)
        whole, part = divmod(epoch, parts)
        # the last part is filled up from the first: all of one whole epoch, so within the cap
        return np.roll(self._whole(whole), -part * self._n_epoch)[: self._n_epoch]

    def _whole(self, epoch: int) -> Positions:
        drawn = [self._positive]
        for number, rows in enumerate(self._negatives):
            if len(rows) > self._per_group:
                count = self._per_group
                at = walk(len(rows), start=epoch * count, count=count, seed=self._seed + number)
                rows = rows[at]
            drawn.append(rows)
        return np.random.default_rng((self._seed, epoch, 1)).permutation(np.concatenate(drawn))


def _apportioned(shares: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Whole numbers in these shares that sum to `total`, at least 1 each: largest remainders."""
    exact = shares / shares.sum() * total
    counts: npt.NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    while counts.sum() != total:
        missing = exact - counts
        if counts.sum() < total:
            counts[missing.argmax()] += 1
        else:
            counts[np.where(counts > 1, missing, np.inf).argmin()] -= 1
    return counts


def _by_group(rows: Positions, group: npt.NDArray[Any]) -> list[Positions]:
    """These rows, a list for each group, in the order of the rows."""
    codes = pd.factorize(np.asarray(group)[rows])[0]
    if (codes < 0).any():
        raise ConfigError(f"sampler: {np.count_nonzero(codes < 0)} rows have no group to cap by")
    order = np.argsort(codes, kind="stable")
    return list(np.split(rows[order], np.flatnonzero(np.diff(codes[order])) + 1))
