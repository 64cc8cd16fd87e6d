"""Predictions files, and folds that fit or do not fit their split file."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.errors import DataError
from isic.predictions import assemble_oof, read_predictions, write_predictions
from isic.predictions.table import probabilities, with_fallback
from isic.split.split_file import split_hash

N_FOLDS = 3


def table(ids, fold, seed: int = 0) -> pd.DataFrame:
    malignant = np.random.default_rng(seed).random(len(ids))
    return pd.DataFrame(
        {
            "image_id": ids,
            "lesion_id": None,
            "fold": fold,
            "split": "train",
            "status": "ok",
            "prob_benign": 1 - malignant,
            "prob_malignant": malignant,
        }
    )


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Twelve rows in three folds, one row never used, one that only trains."""
    ids = [f"ISIC_{i:07d}" for i in range(14)]
    fold = [i % N_FOLDS for i in range(12)] + [-1, -2]
    path = tmp_path / "splits" / "isic2024-grouped-k3-seed0-abcdef.csv"
    path.parent.mkdir()
    pd.DataFrame({"image_id": ids, "group": ids, "fold": fold}).to_csv(path, index=False)
    return path


def write_fold(split: Path, k: int, *, about: dict[str, str] | None = None, frame=None) -> Path:
    """Predictions of fold k in runs/demo/fold<k>, rows in another order than the split."""
    rows = pd.read_csv(split, dtype={"image_id": str})
    ids = rows.loc[rows["fold"] == k, "image_id"].tolist()[::-1]
    frame = table(ids, k, seed=k) if frame is None else frame
    folder = split.parents[1] / "demo" / f"fold{k}"
    known = {"run": f"demo/fold{k}", "index_hash": "1" * 12, "split_hash": split_hash(split)}
    write_predictions(folder / "oof.parquet", frame, split_file=split, **(known | (about or {})))
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    frame = table(["a", "b", "c"], [0, None, 1])
    frame.loc[1, ["status", "prob_benign", "prob_malignant"]] = ["unreadable", np.nan, np.nan]
    path = write_predictions(
        tmp_path / "new" / "oof.parquet", frame, run="r", index_hash="i", split_hash="s"
    )
    found = read_predictions(path)
    assert list(found.columns) == list(frame.columns)
    assert found["fold"].tolist() == [0, pd.NA, 1]
    np.testing.assert_array_equal(probabilities(found), probabilities(frame))
    assert found.attrs == {
        "run": "r",
        "index_hash": "i",
        "split_hash": "s",
        "split_file": None,
        "classes": ("benign", "malignant"),
        "ranks": False,
        "path": str(path),
    }
    assert [p.name for p in path.parent.iterdir()] == ["oof.parquet"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "oof.parquet"
    about = {"run": "r", "index_hash": "i", "split_hash": "s"}
    write_predictions(path, table(["a"], 0), **about)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_predictions(path, table(["b"], 0), **about)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("image_id", "ISIC_1", "1 rows twice in the table: ISIC_1"),
        ("status", "fine", "1 rows with a status other than"),
        ("prob_malignant", np.nan, "1 rows with NaN although status is ok: ISIC_0"),
        ("prob_malignant", 1.5, r"1 rows with a probability outside \[0, 1\]: ISIC_0"),
        ("status", "unreadable", "1 rows not ok yet with a probability"),
    ],
)
def test_a_table_that_breaks_the_schema_is_refused(tmp_path, column, value, said) -> None:
    frame = table([f"ISIC_{i}" for i in range(3)], 0)
    frame.loc[0, column] = value
    with pytest.raises(DataError, match=said):
        write_predictions(tmp_path / "x", frame, run="", index_hash="", split_hash="")


def test_missing_columns_are_named(tmp_path) -> None:
    frame = table(["a"], 0)
    about = {"run": "", "index_hash": "", "split_hash": ""}
    with pytest.raises(DataError, match=r"lack the columns \['fold'\]"):
        write_predictions(tmp_path / "x", frame.drop(columns="fold"), **about)
    with pytest.raises(DataError, match="2 or more classes"):
        write_predictions(tmp_path / "x", frame.drop(columns="prob_benign"), **about)


def test_files_that_are_no_predictions_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match="no predictions at"):
        read_predictions(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("id,score\n")
    with pytest.raises(DataError, match="no readable parquet"):
        read_predictions(tmp_path / "text.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no predictions file"):
        read_predictions(tmp_path / "other.parquet")


def test_unreadable_rows_fall_back_on_the_mean_of_the_readable(caplog) -> None:
    frame = table(["a", "b", "c"], 0)
    frame.loc[1, ["prob_benign", "prob_malignant"]] = np.nan
    filled = with_fallback(frame)
    assert filled.loc[1, "prob_malignant"] == frame["prob_malignant"].mean()
    assert filled.loc[[0, 2]].equals(frame.loc[[0, 2]])
    assert "1 images without probabilities get the mean score" in caplog.text
    assert frame["prob_malignant"].isna().sum() == 1
    with pytest.raises(DataError, match="none of 1 images"):
        with_fallback(frame.loc[[1]])


def test_folds_join_in_the_order_of_the_split(split: Path) -> None:
    folders = [write_fold(split, k) for k in (2, 0, 1)]
    joined = assemble_oof(folders)
    expected = pd.read_csv(split).query("fold >= 0")
    assert joined["image_id"].tolist() == expected["image_id"].tolist()
    assert joined["fold"].tolist() == expected["fold"].tolist()
    assert joined.attrs["split_hash"] == split_hash(split)
    part = read_predictions(folders[0] / "oof.parquet").set_index("image_id")
    np.testing.assert_array_equal(
        joined.set_index("image_id").loc[part.index, "prob_malignant"], part["prob_malignant"]
    )


def test_a_run_stands_for_its_folds_and_may_move(split: Path, tmp_path: Path) -> None:
    run = [write_fold(split, k) for k in range(N_FOLDS)][0].parent
    joined = assemble_oof(run)
    # its own oof.parquet, written from the folds, is not a fold
    write_predictions(
        run / "oof.parquet",
        joined,
        run="demo",
        index_hash="1" * 12,
        split_hash=split_hash(split),
        split_file=split,
    )
    pd.testing.assert_frame_equal(assemble_oof(run), joined)
    pd.testing.assert_frame_equal(assemble_oof(sorted(run.glob("fold*/oof.parquet"))), joined)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("demo", "splits"):
        (tmp_path / name).rename(elsewhere / name)
    pd.testing.assert_frame_equal(assemble_oof(elsewhere / "demo"), joined)


def test_a_missing_fold_is_named(split: Path) -> None:
    with pytest.raises(DataError, match="4 rows have no prediction, all of fold 1: ISIC_0000001"):
        assemble_oof([write_fold(split, k) for k in (0, 2)])


def test_overlaps_are_named(split: Path) -> None:
    folders = [write_fold(split, k) for k in range(N_FOLDS)]
    with pytest.raises(DataError, match=r"4 rows predicted twice \(ISIC_0000009, .*fold0"):
        assemble_oof([*folders, folders[0]])


def test_moved_rows_and_strangers_are_named(split: Path) -> None:
    rows = pd.read_csv(split)
    ids = [*rows.loc[rows["fold"] == 0, "image_id"], "ISIC_9999999", rows["image_id"].iloc[-1]]
    write_fold(split, 0, frame=table(ids, [0, 0, 0, 2, 0, 0]))
    for k in (1, 2):
        write_fold(split, k)
    with pytest.raises(DataError) as fault:
        assemble_oof(split.parents[1] / "demo")
    assert "2 rows are not in the split: ISIC_9999999, ISIC_0000013" in str(fault.value)
    assert "1 rows have another fold than in the split: ISIC_0000009" in str(fault.value)


@pytest.mark.parametrize("key", ["split_hash", "index_hash"])
def test_another_split_or_archive_is_refused(split: Path, key: str) -> None:
    for k in range(N_FOLDS):
        write_fold(split, k, about={key: "other"} if k == 1 else None)
    with pytest.raises(DataError, match=f"{key} differs between predictions"):
        assemble_oof(split.parents[1] / "demo")


def test_a_split_that_changed_or_is_gone_is_refused(split: Path) -> None:
    run = [write_fold(split, k) for k in range(N_FOLDS)][0].parent
    text = split.read_text()
    split.write_text(text.replace("ISIC_0000000,ISIC_0000000,0", "ISIC_0000000,ISIC_0000000,1"))
    with pytest.raises(DataError, match="the split changed since"):
        assemble_oof(run)
    split.unlink()
    with pytest.raises(DataError, match="is gone"):
        assemble_oof(run)


def test_a_folder_without_predictions_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no out-of-fold predictions in"):
        assemble_oof(tmp_path)
