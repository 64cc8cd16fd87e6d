"""Folds: whole groups, every class in every fold, order-free; refusals say what is short."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from isic.errors import ConfigError, DataError
from isic.split.grouped import _repair, assign_folds
from isic.split.groups import count_groups, group_of, labelled


def make_table(patient: list[int], target: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{i:07d}" for i in range(len(patient))],
            "patient_id": [f"IP_{p:05d}" for p in patient],
            "lesion_id": None,
            "target": pd.array(target, dtype="Int64"),
            "split": "train",
        }
    )


def archive_like(n: int = 20_000, patients: int = 230, positives: int = 60) -> pd.DataFrame:
    """Patients of heavy-tailed size, as in SLICE-3D."""
    rng = np.random.default_rng(0)
    weight = rng.lognormal(0, 0.97, patients)
    spare = rng.choice(patients, n - patients, p=weight / weight.sum())
    target = np.zeros(n, dtype=int)
    target[rng.choice(n, positives, replace=False)] = 1
    return make_table(np.concatenate([np.arange(patients), spare]).tolist(), target.tolist())


@st.composite
def tables(draw: st.DrawFn, n_classes: int = 2) -> pd.DataFrame:
    n = draw(st.integers(10, 60))
    patient = draw(st.lists(st.integers(0, 25), min_size=n, max_size=n))
    target = draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n))
    return make_table(patient, target)


def test_sizes_and_positives_are_even_on_an_archive() -> None:
    table = archive_like()
    fold = assign_folds(table)
    sizes, positives = fold.value_counts(), table["target"].groupby(fold).sum()
    assert sizes.max() - sizes.min() <= 0.02 * sizes.mean()
    assert positives.max() - positives.min() <= 1


def test_no_less_even_than_scikit_learn() -> None:
    table = archive_like(3_000, 80, 25)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(
        table, table["target"].astype(int), table["patient_id"]
    )
    theirs = np.array([[len(test), table["target"].iloc[test].sum()] for _, test in folds])
    fold = assign_folds(table)
    ours = np.array([[(fold == f).sum(), table["target"][fold == f].sum()] for f in range(5)])
    assert (ours.astype(float).std(axis=0) <= theirs.astype(float).std(axis=0) + 0.5).all()


@settings(max_examples=60)
@given(tables(), st.integers(2, 5), st.integers(0, 3), st.randoms())
def test_properties_of_any_binary_table(
    table: pd.DataFrame, n_folds: int, seed: int, random: object
) -> None:
    holders = table.groupby("target")["patient_id"].nunique()
    groups = table["patient_id"].nunique()
    try:
        fold = assign_folds(table, n_folds=n_folds, seed=seed)
    except DataError:
        # Few holders of a class, or too few groups to give each fold both.
        assert len(holders) < 2 or groups < 2 * n_folds or holders.min() < n_folds
        return
    assert fold.dtype == np.int64
    assert fold.name == "fold"
    assert set(fold) == set(range(n_folds))
    assert (fold.groupby(table["patient_id"]).nunique() == 1).all()
    assert (table.groupby(fold)["target"].nunique() == 2).all()
    shuffled = table.sample(frac=1, random_state=seed + 1)
    again = assign_folds(shuffled, n_folds=n_folds, seed=seed)
    pd.testing.assert_series_equal(again.sort_index(), fold)


@settings(max_examples=40)
@given(tables(n_classes=4), st.integers(2, 4))
def test_each_of_four_classes_reaches_each_fold_where_groups_abound(
    table: pd.DataFrame, n_folds: int
) -> None:
    pure = make_table(list(range(100, 100 + 4 * n_folds)), [0, 1, 2, 3] * n_folds)
    table = pd.concat([table, pure], ignore_index=True)
    table["image_id"] = [f"ISIC_{i:07d}" for i in range(len(table))]
    fold = assign_folds(table, n_folds=n_folds)
    assert (table.groupby(fold)["target"].nunique() == 4).all()


def test_every_fold_gets_a_positive_where_scikit_learn_leaves_one_without() -> None:
    sizes, positives = [19, 15, 8, 9, 2, 3, 1, 6, 24], [8, 5, 3, 4, 2, 0, 0, 0, 0]
    patient = np.repeat(np.arange(9), sizes)
    target = np.concatenate([np.arange(n) < p for n, p in zip(sizes, positives, strict=True)])
    table = make_table(patient.tolist(), target.astype(int).tolist())
    naive = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(table, target, patient)
    assert min(target[test].sum() for _, test in naive) == 0
    assert (table["target"].groupby(assign_folds(table)).sum() > 0).all()


def test_a_move_repairs_a_fold_that_lacks_a_class() -> None:
    table = make_table([0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1])
    groups = count_groups(labelled(table), group_of(table))
    fold = np.array([0, 0, 1, 1, 1, 1])
    _repair(groups, fold, n_folds=2)
    assert (table.groupby(fold)["target"].nunique() == 2).all()


def test_seeds_differ_and_repeat() -> None:
    table = archive_like(2_000, 70, 20)
    first, second = assign_folds(table, seed=0), assign_folds(table, seed=1)
    pd.testing.assert_series_equal(first, assign_folds(table, seed=0))
    assert (first != second).mean() > 0.3


def test_without_patients_each_image_is_its_own_group() -> None:
    table = archive_like(500, 20, 50).assign(patient_id=None)
    assert group_of(table).tolist() == table["image_id"].tolist()
    fold = assign_folds(table)
    assert fold.value_counts().tolist() == [100] * 5
    assert table["target"].groupby(fold).sum().tolist() == [10] * 5


def test_test_rows_and_unlabelled_rows_have_no_fold() -> None:
    table = archive_like(600, 30, 40)
    table.loc[:9, "split"] = "test"
    table.loc[10:19, "target"] = pd.NA
    assert assign_folds(table, n_folds=3).index.tolist() == list(range(20, 600))


def test_one_class_only_in_a_fold_is_refused_with_the_shortfall() -> None:
    table = make_table(list(range(20)), [1, 1] + [0] * 18)
    with pytest.raises(DataError, match=r"fold \d of 5 without target 1 \(in 2 groups of 20\)"):
        assign_folds(table)
    assert assign_folds(table, n_folds=2).nunique() == 2


def test_a_table_of_one_class_or_no_labels_is_refused() -> None:
    with pytest.raises(DataError, match="only target 0"):
        assign_folds(make_table(list(range(9)), [0] * 9), n_folds=3)
    with pytest.raises(DataError, match="labelled train rows, got none"):
        assign_folds(archive_like(50, 5, 5).assign(split="test"))


def test_too_many_folds_and_too_few_are_refused() -> None:
    table = archive_like(50, 4, 20)
    with pytest.raises(DataError, match="5 folds need as many groups"):
        assign_folds(table)
    with pytest.raises(ConfigError, match="n_folds must be 2 or more, got 1"):
        assign_folds(table, n_folds=1)


def test_a_rare_class_among_many_is_logged_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    table = make_table(list(range(30)), [0, 1] * 14 + [2, 2])
    fold = assign_folds(table, n_folds=3)
    assert "holds no target 2 (in 2 groups of 30)" in caplog.text
    assert fold.nunique() == 3
