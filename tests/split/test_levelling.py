"""Swaps that level rows: closer than before, with the groups and rarer classes as they were."""

import numpy as np
import pandas as pd
import pytest

from isic.split.groups import Groups
from isic.split.levelling import level_rows


def many(seed: int, n: int = 60) -> tuple[Groups, np.ndarray]:
    """Groups of heavy-tailed size, every third with one row of a rarer class; any three folds."""
    rng = np.random.default_rng(seed)
    common = np.ceil(rng.lognormal(2, 1, n)).astype(np.int64)
    counts = np.column_stack([common, np.arange(n) % 3 == 0]).astype(np.int64)
    rows = int(counts.sum())
    names = [str(i) for i in range(n)]
    groups = Groups(
        pd.RangeIndex(rows), names, np.zeros(rows, np.int64), counts, [0, 1], ["0", "1"]
    )
    return groups, np.arange(n, dtype=np.int64) * 3 // n


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_level_and_all_else_is_as_it_was(seed: int) -> None:
    groups, fold = many(seed)
    before = fold.copy()
    level_rows(groups, fold, n_folds=3)
    rows = np.bincount(fold, weights=groups.size)
    assert np.ptp(rows) <= 2
    assert np.ptp(rows) < np.ptp(np.bincount(before, weights=groups.size))
    assert np.bincount(fold).tolist() == [20, 20, 20]
    for f in range(3):
        assert groups.counts[fold == f, 1].sum() == groups.counts[before == f, 1].sum()


def test_groups_that_hold_different_classes_do_not_change_places() -> None:
    counts = np.array([[9, 0], [0, 1], [0, 1], [1, 1]])
    groups = Groups(
        pd.RangeIndex(12), list("abcd"), np.zeros(12, np.int64), counts, [0, 1], ["0", "1"]
    )
    fold = np.array([0, 0, 1, 1])
    level_rows(groups, fold, n_folds=2)
    assert fold.tolist() == [0, 0, 1, 1]
