"""Splits of every archive: what must hold of any of them, and how even they are on real tables.

Everything goes through `make_split`, as a training does.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.index.schema import Index, sample_rows
from isic.split import Split, SplitOptions, fold_rows, make_split, training_mask
from isic.split.grouped import assign_folds
from tests.split.conftest import ARCHIVES

Tables = Callable[..., Index]
HOLDOUTS = (0.0, 0.2)


def split(index: Index, folder: Path, *, n_folds: int, seed: int, holdout: float = 0.0) -> Split:
    options = SplitOptions(n_folds=n_folds, seed=seed, holdout=holdout, overlap=False)
    return make_split(index, options, runs_root=folder, cache_root=folder / "cache")


def with_uses(index: Index, seed: int) -> Index:
    """Mark one sample of 30 as a copy of another, whoever has that, and three as external."""
    rng = np.random.default_rng(seed)
    table, name = index.table.copy(), sample_rows(index)["image_id"].to_numpy()
    sample = "lesion_id" if index.info.row_unit == "lesion" else "image_id"
    first = pd.Series(name, index=sample_rows(index)[sample].to_numpy())
    own = first.loc[table[sample]].to_numpy()
    kind = pd.Series(rng.choice(30, len(name)), index=name).loc[own].to_numpy()
    other = pd.Series(rng.choice(name, len(name)), index=name).loc[own].to_numpy()
    train = (table["split"] == "train").to_numpy()
    copy = train & (kind == 0) & (other != own) & np.isin(other, own[train])
    known = table.get("duplicate_of", pd.Series(None, index=table.index, dtype=object))
    table["duplicate_of"] = known.astype(object).mask(copy, pd.Series(other, index=table.index))
    table["external"] = train & (kind > 26)
    return replace(index, table=table)


def components(index: Index) -> dict[str, str]:
    """Image -> the first image that anything ties it to: a plain union of all links of train."""
    kinds = ("patient_id", "lesion_id", "duplicate_of", "parent_id")
    columns = [c for c in ("image_id", *kinds) if c in index.table]
    rows = index.table.loc[index.table["split"] == "train", columns]
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    for row in rows.to_dict("records"):
        one = "image " + str(row["image_id"]).removesuffix("_downsampled")
        for kind in kinds:
            if pd.notna(other := row.get(kind)):
                image = kind in ("duplicate_of", "parent_id")
                name = str(other).removesuffix("_downsampled") if image else str(other)
                above[top(one)] = top(f"{'image' if image else kind} {name}")
    bare = rows["image_id"].str.removesuffix("_downsampled")
    return {i: top(f"image {b}") for i, b in zip(rows["image_id"], bare, strict=True)}


def check_split(index: Index, folder: Path, *, n_folds: int, seed: int, holdout: float) -> None:
    made = split(index, folder / "made", n_folds=n_folds, seed=seed, holdout=holdout)
    samples = sample_rows(index)
    rows = samples[(samples["split"] == "train") & samples["target"].notna()].set_index("image_id")
    whole = pd.concat([made.table, made.held_out]).set_index("image_id")
    assert sorted(whole.index) == sorted(rows.index), "each sample has one fold"
    fold, tied = whole["fold"].loc[rows.index], components(index)
    group = pd.Series({i: tied[i] for i in rows.index})
    assert whole["group"].groupby(group).nunique().max() == 1
    assert group.groupby(whole["group"]).nunique().max() == 1
    # Copies are never used; external rows train, but not beside a patient who is held out.
    none = pd.Series(False, index=rows.index)
    copy = rows["duplicate_of"].notna() if "duplicate_of" in rows else none
    external = rows.get("external", none) & ~copy
    apart = group.isin(group[fold == -3])
    assert (fold[copy] == -1).all()
    assert (fold[external] == np.where(apart[external], -1, -2)).all()
    own = fold[~copy & ~external]
    assert set(own) == set(range(n_folds)) | ({-3} if holdout else set())
    assert own.groupby(group).nunique().max() == 1, "no group in two folds"
    dealt = own[own >= 0]
    for target, members in rows.loc[dealt.index].groupby("target"):
        if group[members.index].nunique() >= n_folds:
            assert set(dealt[members.index]) == set(range(n_folds)), target
    usable = fold_rows(index, made)
    for k in range(n_folds):
        train = usable.loc[training_mask(usable, k), "image_id"].map(tied)
        assert not set(train) & set(group[fold == k])
        assert not set(train) & set(group[fold == -3])
    mixed = replace(index, table=index.table.sample(frac=1, random_state=seed))
    again = split(mixed, folder / "again", n_folds=n_folds, seed=seed, holdout=holdout)
    assert (again.hash, again.path.name) == (made.hash, made.path.name)


def check_splits(
    name: str, tables_of: Tables, folder: Path, *, seeds: Sequence[int], n: int
) -> None:
    for seed in seeds:
        index = tables_of(name, n=n, seed=seed % 25)
        chosen = {"n_folds": 2 + seed % 4, "seed": seed, "holdout": HOLDOUTS[seed // 2 % 2]}
        check_split(with_uses(index, seed) if seed % 2 else index, folder / str(seed), **chosen)


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_holds_of_any_split(name: str, tables_of: Tables, tmp_path: Path) -> None:
    check_splits(name, tables_of, tmp_path, seeds=range(4), n=300)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHIVES)
def test_what_holds_of_any_split_a_hundred_times(
    name: str, tables_of: Tables, tmp_path: Path
) -> None:
    check_splits(name, tables_of, tmp_path, seeds=range(100), n=600)


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_split_holds_what_assign_folds_gives(
    name: str, tables_of: Tables, tmp_path: Path
) -> None:
    index = with_uses(tables_of(name, n=300), 1)
    # What ties samples must stand in their own rows: views beside them are not seen there.
    samples = sample_rows(index)
    fold = assign_folds(samples, n_folds=3, seed=4)
    made = split(index, tmp_path, n_folds=3, seed=4).table.set_index("image_id")["fold"]
    assert fold.tolist() == made.loc[samples.loc[fold.index, "image_id"]].tolist()


# ---- real tables


def real(name: str, root: Path) -> Index:
    """The tables of an archive's sample; without images, which decide nothing here."""
    index: Index = importlib.import_module(f"isic.index.{name}").build_index(root / name)
    return replace(index, table=index.table.assign(image=None))


def used_rows(index: Index, made: Split) -> pd.DataFrame:
    return fold_rows(index, made).query("fold >= 0")


def apart(values: pd.Series) -> float:
    return float(values.max() - values.min())


def test_siim_in_fifteen_parts_is_as_even_as_deottes(real_root: Path, tmp_path: Path) -> None:
    # His published groups: 2,167-2,198 images, 38-40 melanomas, 137-138 patients each.
    index = real("isic2020", real_root)
    for seed in range(3):
        made = split(index, tmp_path, n_folds=15, seed=seed)
        assert (made.table["fold"] == -1).sum() == 425
        used = used_rows(index, made)
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


@pytest.mark.parametrize("name", ARCHIVES)
def test_five_folds_of_a_real_table_are_even(name: str, real_root: Path, tmp_path: Path) -> None:
    index = real(name, real_root)
    used = used_rows(index, split(index, tmp_path, n_folds=5, seed=0))
    size = used.groupby("fold").size()
    assert apart(size) <= 0.02 * size.mean()
    assert apart(used.groupby("fold")["group"].nunique()) <= 1
    assert (used.groupby("group")["fold"].nunique() == 1).all()
    for target, members in used.groupby("target"):
        largest = members.groupby("group").size().max()
        counts = members.groupby("fold").size().reindex(range(5), fill_value=0)
        assert apart(counts) <= largest, target
        assert (counts > 0).all(), target
