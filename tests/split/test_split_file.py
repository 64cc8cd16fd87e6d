"""The split as a file: round trip, atomic, order-free, and refused when it is another's."""

from pathlib import Path

import pandas as pd
import pytest

from isic.errors import DataError
from isic.split.split_file import read_split, split_hash, split_path, write_split


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{i:07d}" for i in (5, 3, 4, 1)],
            "patient_id": ["P1", "P1", None, None],
            "lesion_id": [None, None, "L1", None],
        },
        index=[10, 11, 12, 13],
    )


@pytest.fixture
def fold(table: pd.DataFrame) -> pd.Series:
    return pd.Series([0, 0, 1, -2], index=table.index, name="fold")


@pytest.fixture
def group(table: pd.DataFrame) -> pd.Series:
    return pd.Series(["P1", "P1", "L1", "ISIC_0000001"], index=table.index)


def test_round_trip(tmp_path: Path, table: pd.DataFrame, fold: pd.Series, group: pd.Series) -> None:
    path = tmp_path / "splits" / "a.csv"
    write_split(path, table, fold, group)
    split = read_split(path)
    assert split["image_id"].tolist() == sorted(table["image_id"])
    assert split["group"].tolist() == ["ISIC_0000001", "P1", "L1", "P1"]
    assert dict(zip(split["image_id"], split["fold"], strict=True)) == {
        "ISIC_0000001": -2,
        "ISIC_0000003": 0,
        "ISIC_0000004": 1,
        "ISIC_0000005": 0,
    }
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.csv", "a.csv.sha256"]


def test_hash_ignores_row_order_and_sees_folds(
    tmp_path: Path, table: pd.DataFrame, fold: pd.Series, group: pd.Series
) -> None:
    hashes = []
    variants = {"a": (table, fold), "b": (table[::-1], fold[::-1]), "c": (table, fold + 1)}
    for name, (rows, folds) in variants.items():
        write_split(tmp_path / name, rows, folds, group)
        hashes.append(split_hash(tmp_path / name))
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 12


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path,
    table: pd.DataFrame,
    fold: pd.Series,
    group: pd.Series,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.csv"
    write_split(path, table, fold, group)
    before = split_hash(path)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_split(path, table, fold + 1, group)
    assert split_hash(path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.csv.sha256"]


def test_path_names_archive_method_folds_seed_and_index() -> None:
    name = {"archive": "isic2024", "method": "grouped", "n_folds": 5, "seed": 0}
    path = split_path(Path("runs"), **name, content="3fa9c1d2e3f4")
    assert path == Path("runs/splits/isic2024-grouped-k5-seed0-3fa9c1.csv")
    part = split_path(Path("runs"), **name, content="3fa9c1d2e3f4", fraction=0.1)
    assert part.name == "isic2024-grouped-k5-seed0-3fa9c1-f0.1.csv"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("image_id,fold\nA,0\n", "lacks group"),
        ("image_id,group,fold\nA,g,0\nA,g,1\n", "twice: A"),
        ("image_id,group,fold\nA,g,one\n", "in 1 rows: A"),
        ("image_id,group,fold\nA,g,0.5\n", "in 1 rows: A"),
        ("image_id,group,fold\nA,g,-3\n", "in 1 rows: A"),
        ("", "not a split file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(body)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "a.csv")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split file"):
        read_split(tmp_path / "none.csv")
