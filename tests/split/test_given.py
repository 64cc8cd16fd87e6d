"""Folds that others published: any columns, ids and numbers; honest groups; faults named."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.index.schema import Index
from isic.split import Split, SplitOptions, make_split
from isic.split.given import Named, given_split
from isic.split.making import open_split

Tables = Callable[..., Index]


def rows_of(n: int = 12) -> pd.DataFrame:
    """Patients P0..P5 of two images each, one benign and one malignant."""
    frame = pd.DataFrame({"image_id": [f"ISIC_{i:02d}" for i in range(n)], "lesion_id": None})
    frame["patient_id"] = [f"P{i // 2}" for i in range(n)]
    return frame.assign(target=pd.array([0, 1] * (n // 2), dtype="Int64"), split="train")


def read(
    folder: Path,
    cells: dict[str, Sequence[Any]] | pd.DataFrame,
    *,
    rows: pd.DataFrame | None = None,
    columns: dict[str, str] | None = None,
    pairs: Sequence[tuple[str, str]] = (),
) -> Split:
    path = folder / "folds.csv"
    pd.DataFrame(cells).to_csv(path, index=False)
    rows = rows_of() if rows is None else rows
    ids = pd.Series(rows["image_id"].to_numpy(), index=rows["image_id"].to_numpy())
    named = Named("isic2020", rows, rows, ids)
    places = {"runs_root": folder / "runs", "fraction": 1.0}
    return open_split(given_split(path, named, columns=columns, pairs=pairs, **places))


THREE = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
DEOTTE = {"image_id": "image_name", "fold": "tfrecord"}


def test_other_columns_endings_and_negative_numbers(tmp_path: Path) -> None:
    ids = rows_of()["image_id"]
    cells = {"image_name": "train/" + ids + ".jpg", "tfrecord": [*THREE[:10], -1, -7], "width": 9}
    split = read(tmp_path, cells, columns=DEOTTE)
    assert split.path.parent == tmp_path / "runs" / "splits"
    assert split.path.name.startswith("isic2020-given-k3-")
    assert split.table["image_id"].tolist() == ids.tolist()
    assert split.table["fold"].tolist() == [*THREE[:10], -1, -1]
    assert split.table["group"].tolist() == rows_of()["patient_id"].tolist()
    assert read(tmp_path, cells, columns=DEOTTE).hash == split.hash


@pytest.mark.parametrize("columns", [None, {"image_id": "image_id", "fold": "fold"}])
def test_our_own_file_is_used_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, columns: dict[str, str] | None
) -> None:
    fold = pd.Series([*THREE[:8], -2, -2, 2, 2])
    cells = {"image_id": rows_of()["image_id"], "group": rows_of()["patient_id"], "fold": fold}
    split = read(tmp_path, cells, columns=columns)
    assert split.path == tmp_path / "folds.csv"
    assert split.table["fold"].tolist() == fold.tolist()
    assert caplog.text == ""


def test_groups_that_are_finer_than_the_archives_are_made_coarser(tmp_path: Path) -> None:
    ids = rows_of()["image_id"]
    fold = [0, -2, *THREE[2:]]  # the second image of P0 trains everywhere, but not with fold 0
    split = read(tmp_path, {"image_id": ids, "group": ids, "fold": fold})
    assert split.path.parent.name == "splits"
    assert split.table["group"].tolist()[:2] == ["P0", "P0"]
    assert split.table["fold"].tolist() == fold


def test_a_column_of_groups_is_kept_where_it_is_coarser(tmp_path: Path) -> None:
    cells = {"id": rows_of()["image_id"], "k": THREE, "family": list("aabbccddeeff")}
    cells["family"][:4] = ["x"] * 4  # type: ignore[index]
    columns = {"image_id": "id", "fold": "k", "group": "family"}
    split = read(tmp_path, cells, columns=columns)
    assert split.table["group"].tolist()[:5] == ["P0", "P0", "P0", "P0", "P2"]


def test_an_empty_fold_is_held_out_and_takes_its_group_along(tmp_path: Path) -> None:
    fold = [*THREE[:10], None, -2]
    cells = {"image_id": rows_of()["image_id"], "group": rows_of()["patient_id"], "fold": fold}
    split = read(tmp_path, cells)
    assert split.held_out["image_id"].tolist() == ["ISIC_10"]
    assert split.table["fold"].tolist() == [*THREE[:10], -1]


def test_folds_from_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cells = {"image_id": rows_of()["image_id"], "fold": [f + 1.0 for f in THREE]}
    assert read(tmp_path, cells).table["fold"].tolist() == THREE
    assert "folds 1..3 are 0..2 here" in caplog.text


def test_a_downsampled_image_is_known_by_its_own_name_alone(tmp_path: Path) -> None:
    rows = rows_of()
    rows.loc[0, "image_id"] += "_downsampled"
    split = read(tmp_path, {"image_id": rows["image_id"], "fold": THREE}, rows=rows)
    assert "ISIC_00_downsampled" in set(split.table["image_id"])


def test_rows_that_the_file_lacks_rest_but_external_ones_train(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_of().assign(external=[False] * 10 + [True] * 2)
    split = read(tmp_path, {"image_id": rows["image_id"][2:10], "fold": THREE[2:10]}, rows=rows)
    fold = split.table.set_index("image_id")["fold"]
    assert fold[["ISIC_10", "ISIC_11"]].tolist() == [-2, -2]
    assert len(fold) == 10
    assert "names 8 of 12 training rows; others rest" in caplog.text


def test_pairs_that_show_the_same_tie_groups_within_a_fold_and_are_told_across(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = {"image_id": rows_of()["image_id"], "fold": THREE}
    split = read(tmp_path, cells, pairs=[("ISIC_00", "ISIC_02"), ("ISIC_01", "ISIC_11")])
    assert split.table["group"].tolist()[:4] == ["P0"] * 4
    assert split.table["group"].tolist()[10:] == ["P5", "P5"]
    assert "1 pairs of images that show the same lie in two folds" in caplog.text


def changed(**cells: Any) -> dict[str, Any]:
    return {"image_id": list(rows_of()["image_id"]), "fold": list(THREE), **cells}


@pytest.mark.parametrize(
    ("cells", "columns", "words"),
    [
        (changed(), DEOTTE, "lacks the columns image_name, tfrecord, it has image_id, fold; say"),
        (changed(), {"group": "patient"}, "lacks the column patient of split.columns.group"),
        (changed(fold=["a", *THREE[1:]]), None, "column fold: fold must be 0, 1, .* got 'a' in 1"),
        (changed(fold=[0.5, *THREE[1:]]), None, "got '0.5' in 1 rows: ISIC_00"),
        (changed(fold=[2 * f for f in THREE]), None, "without a gap, got 0, 2, 4"),
        (changed(fold=[0] * 12), None, "without a gap, got 0;"),
        (changed(fold=[f - 9 for f in THREE]), None, "without a gap, got none"),
        (changed(fold=[2, *THREE[1:]]), None, r"1 groups \(patient, else lesion\) lie .*: P0\."),
        (changed(fold=[None, *THREE[1:]]), None, r"1 groups .* P0"),
        (changed(fold=[0, -1] * 2 + THREE[4:]), None, "two classes, got one in fold 0"),
        (changed(image_id=[f"X{i}" for i in range(12)]), None, "12 of 12 image ids are not train"),
        (changed(image_id=["ISIC_11", *rows_of()["image_id"][1:]]), None, "names 1 samples twice"),
    ],
)
def test_a_file_that_is_not_sound(
    tmp_path: Path, cells: dict[str, Any], columns: dict[str, str] | None, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, cells, columns=columns)


def test_a_line_that_stands_twice_and_strangers_that_are_never_used_do_no_harm(
    tmp_path: Path,
) -> None:
    cells = pd.DataFrame(changed())
    stranger = pd.DataFrame({"image_id": ["ISIC_99"], "fold": [-1]})
    split = read(tmp_path, pd.concat([cells, cells[:1], stranger]))
    assert len(split.table) == 12


def test_a_lesion_is_named_by_any_of_its_views_or_by_itself(
    tmp_path: Path, tables_of: Tables
) -> None:
    index = tables_of("milk10k", 60)
    train = index.table[index.table["split"] == "train"]
    lesions = train["lesion_id"].unique()
    fold = dict(zip(lesions, np.arange(len(lesions)) % 2, strict=True))
    hashes = set()
    for column in ("image_id", "lesion_id"):
        file = train[[column]].assign(part=train["lesion_id"].map(fold))
        file.drop_duplicates().to_csv(tmp_path / "f.csv", index=False)
        columns = {"image_id": column, "fold": "part"}
        options = SplitOptions(file=str(tmp_path / "f.csv"), columns=columns, overlap=False)
        split = make_split(index, options, runs_root=tmp_path, cache_root=tmp_path)
        hashes.add(split.hash)
        assert len(split.table) == len(lesions)
    assert len(hashes) == 1


def test_a_fraction_of_a_given_split_is_ambiguous(tmp_path: Path, tables_of: Tables) -> None:
    options = SplitOptions(file="mine.csv", overlap=False)
    places = {"runs_root": tmp_path, "cache_root": tmp_path}
    with pytest.raises(ConfigError, match=r"data\.fraction: expected 1 with split\.file, got 0\.5"):
        make_split(tables_of("isic2020"), options, **places, fraction=0.5)
