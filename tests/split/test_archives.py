"""Folds of every archive: what must hold of any of them, and how even they are on real tables."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.index.schema import Index, sample_rows
from isic.split.grouped import assign_folds
from isic.split.groups import group_of, labelled
from tests.split.conftest import ARCHIVES

Tables = Callable[..., Index]


def check_folds(index: Index, *, n_folds: int, seed: int) -> None:
    rows = labelled(sample_rows(index))
    fold = assign_folds(rows, n_folds=n_folds, seed=seed)
    group = group_of(rows)
    assert fold.index.equals(rows.index)
    copy = rows["duplicate_of"].notna() if "duplicate_of" in rows else rows["target"].isna()
    assert (fold[copy] == -1).all()
    dealt = fold[~copy]
    assert set(dealt) == set(range(n_folds))
    assert (dealt.groupby(group).nunique() == 1).all()
    for target, members in rows[~copy].groupby("target"):
        own = group[members.index].nunique()
        if own >= n_folds:
            assert set(dealt[members.index]) == set(range(n_folds)), (target, own)
    mixed = rows.sample(frac=1, random_state=seed)
    again = assign_folds(mixed, n_folds=n_folds, seed=seed)
    pd.testing.assert_series_equal(again.sort_index(), fold.sort_index())


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_holds_of_any_folds(name: str, tables_of: Tables) -> None:
    for seed in range(10):
        check_folds(tables_of(name, n=300, seed=seed % 2), n_folds=2 + seed % 4, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHIVES)
def test_what_holds_of_any_folds_a_hundred_times(name: str, tables_of: Tables) -> None:
    for seed in range(100):
        check_folds(tables_of(name, n=600, seed=seed % 25), n_folds=2 + seed % 5, seed=seed)


# ---- real tables


def siim(root: Path) -> pd.DataFrame:
    """SIIM-ISIC 2020 with the second image of each pair of duplicates marked."""
    table = pd.read_csv(root / "isic2020" / "train.csv").rename(columns={"image_name": "image_id"})
    pairs = pd.read_csv(root / "isic2020" / "ISIC_2020_Training_Duplicates.csv")
    first = pairs.set_index("image_name_2")["image_name_1"]
    return table.assign(duplicate_of=table["image_id"].map(first))


def one_hot_table(path: Path, **names: str) -> pd.DataFrame:
    truth = pd.read_csv(path)
    target = truth.iloc[:, 1:].to_numpy().argmax(axis=1)
    return truth[[truth.columns[0]]].rename(columns=names).assign(target=target)


def isic2019(root: Path) -> pd.DataFrame:
    folder = root / "isic2019"
    table = one_hot_table(folder / "ISIC_2019_Training_GroundTruth.csv", image="image_id")
    lesion = pd.read_csv(folder / "ISIC_2019_Training_Metadata.csv")["lesion_id"]
    return table.assign(lesion_id=lesion)


def milk10k(root: Path) -> pd.DataFrame:
    path = root / "milk10k" / "MILK10k_Training_GroundTruth.csv"
    return one_hot_table(path, lesion_id="image_id")


def apart(values: pd.Series) -> float:
    return float(values.max() - values.min())


def test_siim_in_fifteen_parts_is_as_even_as_deottes(real_root: Path) -> None:
    # His published groups: 2,167-2,198 images, 38-40 melanomas, 137-138 patients each.
    table = siim(real_root)
    for seed in range(3):
        fold = assign_folds(table, n_folds=15, seed=seed)
        assert (fold == -1).sum() == 425
        used = table[fold >= 0].assign(fold=fold[fold >= 0])
        assert used.groupby("fold").size().between(2167, 2198).all()
        assert used.groupby("fold")["target"].sum().between(38, 40).all()
        assert used.groupby("fold")["patient_id"].nunique().between(137, 138).all()
        assert (used.groupby("patient_id")["fold"].nunique() == 1).all()
        sizes = used.groupby(["fold", "patient_id"]).size()
        quartiles = sizes.groupby("fold").quantile([0.25, 0.5, 0.75]).unstack()
        assert (quartiles.apply(apart) <= [1, 2, 3]).all()
        # Kolmogorov's distance to all patients; 138 at random are 0.07 off.
        every = np.sort(sizes.to_numpy())
        for _, part in sizes.groupby("fold"):
            ours, all_of_them = (
                np.searchsorted(np.sort(values), every, side="right") / len(values)
                for values in (part.to_numpy(), every)
            )
            assert np.abs(ours - all_of_them).max() < 0.06


@pytest.mark.parametrize("read", [siim, isic2019, milk10k])
def test_five_folds_of_a_real_table_are_even(
    read: Callable[[Path], pd.DataFrame], real_root: Path
) -> None:
    table = read(real_root)
    fold = assign_folds(table)
    used = table[fold >= 0].assign(fold=fold[fold >= 0], group=group_of(table)[fold >= 0])
    size = used.groupby("fold").size()
    assert apart(size) <= 0.02 * size.mean()
    assert apart(used.groupby("fold")["group"].nunique()) <= 1
    assert (used.groupby("group")["fold"].nunique() == 1).all()
    for target, members in used.groupby("target"):
        largest = members.groupby("group").size().max()
        counts = members.groupby("fold").size().reindex(range(5), fill_value=0)
        assert apart(counts) <= largest, target
        assert (counts > 0).all(), target
