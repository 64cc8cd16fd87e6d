"""What is held out and what a fraction keeps: whole groups, every class, about the share."""

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.split.grouped import assign_folds
from isic.split.groups import count_groups, group_of
from isic.split.shares import held_out_groups, subsample_groups
from tests.split.test_grouped import archive_like, make_table


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_about_the_share_of_rows_and_of_each_class_is_held_out(share: float, seed: int) -> None:
    table = archive_like()
    groups = count_groups(table, group_of(table))
    out = held_out_groups(groups, share=share, seed=seed, n_folds=5)
    rows = out[groups.of_row]
    assert abs(rows.mean() - share) < 0.03
    assert abs(table["target"][rows].sum() - 60 * share) <= 2
    assert abs(out.mean() - share) < 0.05


def test_a_class_of_few_groups_is_left_to_the_folds(caplog: pytest.LogCaptureFixture) -> None:
    table = make_table(list(range(45)), [0, 1] * 20 + [2] * 5)
    groups = count_groups(table, group_of(table))
    out = held_out_groups(groups, share=0.2, seed=0, n_folds=5)
    assert set(table["target"][out[groups.of_row]]) == {0, 1}
    assert "the held-out rows hold no target 2 (in 5 groups)" in caplog.text
    more = make_table(list(range(46)), [0, 1] * 20 + [2] * 6)
    groups = count_groups(more, group_of(more))
    out = held_out_groups(groups, share=0.05, seed=0, n_folds=5)
    assert set(more["target"][out[groups.of_row]]) == {0, 1, 2}


def test_nothing_to_hold_out_is_refused() -> None:
    table = make_table(list(range(6)), [0, 1] * 3)
    groups = count_groups(table, group_of(table))
    with pytest.raises(DataError, match="leaves nothing to hold out: 3 folds need"):
        held_out_groups(groups, share=0.3, seed=0, n_folds=3)
    with pytest.raises(ConfigError, match="split.holdout"):
        held_out_groups(groups, share=1.5, seed=0, n_folds=3)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_a_fraction_keeps_whole_groups_of_each_fold_and_class(fraction: float) -> None:
    table = archive_like()
    fold = assign_folds(table)
    kept = subsample_groups(table, fold, fraction=fraction, seed=0)
    assert (kept.groupby(table["patient_id"]).nunique() == 1).all()
    assert abs(kept.mean() - fraction) < 0.05
    assert (table[kept].groupby(fold[kept])["target"].nunique() == 2).all()
    assert fold[kept].nunique() == 5


def test_a_smaller_fraction_is_part_of_a_larger_one() -> None:
    table = archive_like(5_000, 100, 40)
    fold = assign_folds(table)
    small, large = (subsample_groups(table, fold, fraction=f, seed=0) for f in (0.2, 0.6))
    assert (small <= large).all()
    with pytest.raises(ConfigError, match="fraction"):
        subsample_groups(table, fold, fraction=0.0, seed=0)


def test_a_fraction_keeps_rows_that_train_everywhere_with_their_group() -> None:
    table = archive_like(2_000, 60, 30)
    fold = assign_folds(table)
    fold[::7] = -2
    fold[3::50] = -1
    kept = subsample_groups(table, fold, fraction=0.5, seed=0)
    assert not kept[fold == -1].any()
    used = fold != -1
    assert (kept[used].groupby(table["patient_id"][used]).nunique() == 1).all()
    alone = pd.Series(np.where(np.arange(2_000) % 2, fold, -2), index=fold.index)
    alone[table["patient_id"] == "IP_00003"] = -2
    assert 0.3 < subsample_groups(table, alone, fraction=0.5, seed=0).mean() < 0.7
