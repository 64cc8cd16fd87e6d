"""From an index to its split file: made once, named after what decides it, held-out rows out."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from isic.errors import DataError
from isic.index.schema import Index, sample_rows
from isic.predictions.store import assemble_oof, write_predictions
from isic.split import Split, SplitOptions, fold_rows, make_split, training_mask
from tests.split.conftest import ARCHIVES

Tables = Callable[..., Index]


@pytest.fixture(scope="module")
def index(tables_of: Tables) -> Index:
    return tables_of("isic2024", n=300)


def split(index: Index, folder: Path, fraction: float = 1.0, **options: Any) -> Split:
    places = {"runs_root": folder, "cache_root": folder / "cache"}
    return make_split(index, SplitOptions(**options), **places, fraction=fraction)


def train_table(index: Index) -> pd.DataFrame:
    return index.table[index.table["split"] == "train"].reset_index(drop=True)


def with_columns(index: Index, **columns: Any) -> Index:
    return Index(index.table.assign(**columns), index.info, index.root)


def test_a_split_is_made_once_and_read_by_all(
    index: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = split(index, tmp_path)
    assert made.path.parent == tmp_path / "splits"
    assert made.path.name.startswith("isic2024-grouped-k5-seed0-")
    assert f"split: wrote {made.path}" in caplog.text
    caplog.clear()
    again = split(index, tmp_path)
    assert (again.hash, again.n_folds) == (made.hash, 5)
    assert again.table.equals(made.table)
    assert caplog.text == ""
    rows = fold_rows(index, made)
    assert rows["image_id"].tolist() == train_table(index)["image_id"].tolist()
    assert rows.groupby("patient_id")["fold"].nunique().max() == 1


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_file_has_a_line_a_sample_and_no_group_in_two_folds(
    name: str, tables_of: Tables, tmp_path: Path
) -> None:
    index = tables_of(name, 300)
    made = split(index, tmp_path, n_folds=3, holdout=0.2)
    whole = pd.concat([made.table, made.held_out])
    samples = sample_rows(index)
    train = samples[(samples["split"] == "train") & samples["target"].notna()]
    assert sorted(whole["image_id"]) == sorted(train["image_id"])
    used = whole[whole["fold"] != -1]
    assert (used.groupby("group")["fold"].nunique() == 1).all()
    assert (made.held_out["fold"] == -3).all()
    assert 0.1 < len(made.held_out) / len(used) < 0.3


def test_the_name_follows_what_decides_the_folds(index: Index, tmp_path: Path) -> None:
    row = index.table.index[0]
    moved = index.table["patient_id"].mask(index.table.index == row, "IP_9999999")
    copied = pd.Series(None, index=index.table.index, dtype=object)
    copied[row] = index.table["image_id"].iloc[1]
    variants = [
        split(index, tmp_path),
        split(index, tmp_path, seed=1),
        split(index, tmp_path, n_folds=4),
        split(index, tmp_path, overlap=False),
        split(index, tmp_path, holdout=0.2),
        split(index, tmp_path, fraction=0.5),
        split(with_columns(index, patient_id=moved), tmp_path),
        split(with_columns(index, duplicate_of=copied), tmp_path),
        split(with_columns(index, external=index.table.index == row), tmp_path),
    ]
    assert len({v.path for v in variants}) == len(variants)
    assert variants[4].path.stem.endswith("-h0.2")
    assert variants[5].path.stem.endswith("-f0.5")
    test = index.table["split"] == "test"
    other_tests = with_columns(index, patient_id=index.table["patient_id"].mask(test, "IP_1"))
    assert split(other_tests, tmp_path).path == variants[0].path
    mixed = Index(index.table.sample(frac=1, random_state=0), index.info, index.root)
    assert split(mixed, tmp_path / "mixed").hash == variants[0].hash


def test_a_part_keeps_whole_patients_in_the_folds_of_the_full_split(
    index: Index, tmp_path: Path
) -> None:
    full = split(index, tmp_path, n_folds=3, holdout=0.1)
    part = split(index, tmp_path, n_folds=3, holdout=0.1, fraction=0.5)
    joined = part.table.merge(full.table, on="image_id", suffixes=("", "_full"))
    assert (joined["fold"] == joined["fold_full"]).all()
    assert 0.3 * len(full.table) < len(part.table) < 0.7 * len(full.table)
    assert part.held_out.equals(full.held_out)
    whole = train_table(index).groupby("patient_id")["image_id"].count()
    kept = fold_rows(index, part).groupby("patient_id")["image_id"].count()
    assert (kept == whole[kept.index]).all()
    assert (fold_rows(index, part).groupby("fold")["target"].nunique() == 2).all()


# ---- rows that do not validate


def used_in_three_ways(index: Index) -> tuple[Index, pd.Series]:
    """Some copies, some external rows: of patients with own rows, and of patients without."""
    ids, patient = index.table["image_id"], index.table["patient_id"]
    first = index.table.groupby("patient_id")["image_id"].transform("first")
    copy = pd.Series(np.where(np.arange(len(ids)) % 11 == 5, first, None), index=ids.index)
    copy = copy.mask(copy == ids)
    external = (np.arange(len(ids)) % 7 == 3) | patient.isin(patient.unique()[:4])
    return with_columns(index, duplicate_of=copy, external=external), copy


@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_copies_are_never_used_and_external_rows_only_train(
    index: Index, tmp_path: Path, holdout: float
) -> None:
    mixed, copy = used_in_three_ways(index)
    made = split(mixed, tmp_path, n_folds=3, holdout=holdout)
    fold = pd.concat([made.table, made.held_out]).set_index("image_id")["fold"]
    rows = train_table(mixed).set_index("image_id")
    copied = rows["duplicate_of"].notna()
    external = rows["external"] & ~copied
    assert (fold[copied[copied].index] == -1).all()
    assert set(fold[external[external].index]) == ({-2} if not holdout else {-1, -2})
    held_out = set(made.held_out["group"])
    usable = fold_rows(mixed, made)
    assert bool(held_out) == bool(holdout)
    assert not (usable["fold"] == -1).any()
    for k in (0, 1, 2, "all"):
        train = usable[training_mask(usable, k)]
        assert not set(train["group"]) & held_out
        assert not set(train["group"]) & set(usable["group"][usable["fold"] == k])
        assert (train["fold"] == -2).any()


def test_what_is_held_out_is_in_no_out_of_fold_table(index: Index, tmp_path: Path) -> None:
    made = split(index, tmp_path, n_folds=2, holdout=0.2)
    out = fold_rows(index, made, held_out=True)
    assert set(out["image_id"]) == set(made.held_out["image_id"])
    about = {"index_hash": "i", "split_hash": made.hash, "split_file": made.path}
    for k in (0, 1):
        rows = fold_rows(index, made).query("fold == @k")
        write_predictions(tmp_path / f"fold{k}" / "oof.parquet", predicted(rows), run="r", **about)
    whole = assemble_oof(tmp_path)
    assert set(whole["image_id"]) == set(made.table["image_id"])
    assert not set(whole["image_id"]) & set(out["image_id"])
    rows = pd.concat([fold_rows(index, made).query("fold == 1"), out])
    write_predictions(tmp_path / "fold1" / "oof.parquet", predicted(rows), run="r", **about)
    with pytest.raises(DataError, match=f"{len(out)} rows are not in the split"):
        assemble_oof(tmp_path)


def predicted(rows: pd.DataFrame) -> pd.DataFrame:
    from isic.predictions.table import COLUMNS

    known = {
        "image_id": rows["image_id"],
        "lesion_id": None,
        "target": rows["target"],
        "fold": rows["fold"].clip(lower=0).astype("Int64"),
        "split": "train",
        "status": "ok",
    }
    columns = {c: known[c] for c in COLUMNS}
    return pd.DataFrame(
        {**columns, "prob_benign": 0.5, "prob_malignant": 0.5}, index=rows.index
    ).reset_index(drop=True)


# ---- other methods


def test_hospitals_are_folds(
    index: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = split(index, tmp_path, method="hospital", n_folds=None)
    rows = fold_rows(index, made)
    assert f"-hospital-k{made.n_folds}-seed0-" in made.path.name
    for k in range(made.n_folds):
        inside = rows[rows["fold"] == k]
        assert inside["attribution"].mode().tolist() == [
            line.split(" rows of ")[1] for line in caplog.messages if line.startswith(f"fold {k}: ")
        ]
    assert (rows.groupby("group")["fold"].nunique() == 1).all()
    renamed = index.table["attribution"].replace(index.table["attribution"].iloc[0], "Elsewhere")
    other = split(with_columns(index, attribution=renamed), tmp_path, method="hospital")
    assert other.path != made.path


def given(index: Index, folder: Path, change: Callable[[pd.DataFrame], Any] | None = None) -> str:
    """A split file of the user's own."""
    table = split(index, folder / "made", n_folds=3).table
    if change is not None:
        table = change(table.copy())
    table.to_csv(folder / "mine.csv", index=False)
    return str(folder / "mine.csv")


def test_a_given_file_overrides_number_and_seed(index: Index, tmp_path: Path) -> None:
    path = given(index, tmp_path)
    mine = split(index, tmp_path, file=path, n_folds=5, seed=9)
    assert mine.path == Path(path)
    assert mine.n_folds == 3
    assert not (tmp_path / "splits").exists()


def test_a_given_file_that_names_fewer_rows_says_so(
    index: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = given(index, tmp_path, lambda t: t[t["group"] != t["group"].iloc[0]])
    mine = split(index, tmp_path, file=path)
    assert len(fold_rows(index, mine)) == len(mine.table) < 300
    assert f"names {len(mine.table)} of 300 training rows" in caplog.text


def spread_one_group(table: pd.DataFrame) -> pd.DataFrame:
    group = table["group"].value_counts().index[0]
    table.loc[table["group"] == group, "fold"] = np.arange((table["group"] == group).sum()) % 3
    return table


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(image_id="X" + t["image_id"]), "300 of 300 image ids are not training"),
        (spread_one_group, r"1 groups \(patient, else lesion\) lie in several folds: IP_"),
        (lambda t: t.drop(columns="fold"), "lacks the columns fold, it has image_id, group"),
        (lambda t: pd.concat([t, t[:1]]), "names 1 image_ids twice"),
    ],
    ids=["other archive", "divided patient", "no fold", "twice"],
)
def test_a_given_file_that_is_not_sound_is_refused(
    index: Index, tmp_path: Path, change: Callable[[pd.DataFrame], Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        split(index, tmp_path, file=given(index, tmp_path, change))


def test_no_such_split_file(index: Index, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split file .*none\.csv"):
        split(index, tmp_path, file=str(tmp_path / "none.csv"))
