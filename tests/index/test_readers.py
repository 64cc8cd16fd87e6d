"""What all readers promise: the same table whatever the form of its files, every fault by name."""

import importlib
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from isic.errors import DataError
from isic.index import isic2024
from isic.index.schema import Index, faults_of, sample_rows, standard_columns
from isic.index.unread_cells import refuse_unread
from tests.index.small_archives import LABELS, TRAIN_TABLE, WRITERS, edit, read

READERS = tuple(WRITERS)


def build(name: str, root: Path, **options: Any) -> Index:
    index: Index = importlib.import_module(f"isic.index.{name}").build_index(root, **options)
    return index


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    return WRITERS[name](tmp_path / name)


def csvs(root: Path) -> list[Path]:
    return sorted(root.glob("*.csv"))


def test_standard_columns_come_first_with_their_types(name: str, root: Path) -> None:
    index = build(name, root)
    table = index.table
    standard = standard_columns(index.info)
    assert tuple(table.columns[: len(standard)]) == standard
    assert table["target"].dtype == "Int64"
    assert table["age"].dtype == "float64"
    assert {str(table[c].dtype) for c in index.info.classes} == {"float32"}
    assert table["split"].tolist() == sorted(table["split"], key=["train", "test"].index)
    assert table["image"].notna().all()
    assert all((root / ref).is_file() for ref in table["image"])
    assert [n for n in index.notes if "are one image twice" not in n] == []


def test_a_sample_of_each_row_unit(name: str, root: Path) -> None:
    samples = sample_rows(build(name, root))
    assert len(samples) == 16
    assert samples["view"].eq("dermoscopic").all()


def test_form_changes_nothing(name: str, root: Path) -> None:
    before = build(name, root).table
    for path in csvs(root):
        frame = read(path)
        frame = frame[frame.columns[::-1]].replace("", "NA")
        frame.columns = [f" {c}" for c in frame.columns]
        frame.to_csv(path, index=False, lineterminator="\r\n", encoding="utf-8-sig")
    after = build(name, root).table
    pd.testing.assert_frame_equal(before, after[before.columns])


def test_ids_with_extension_and_other_ages(name: str, root: Path) -> None:
    before = build(name, root).table
    for path in csvs(root):
        frame = read(path)
        for column in set(frame) & {
            "image",
            "image_name",
            "isic_id",
            "image_name_1",
            "image_name_2",
        }:
            frame[column] += ".JPG"
        if "age_approx" in frame:
            frame["age_approx"] = [str(float(a)) if a else "" for a in frame["age_approx"]]
        frame.to_csv(path, index=False)
    pd.testing.assert_frame_equal(before, build(name, root).table)


def test_images_of_other_extensions_and_deeper_folders(name: str, root: Path) -> None:
    before = build(name, root).table
    for n, path in enumerate(sorted(p for p in root.rglob("*.jpg"))):
        inner = path.parent / path.parent.name  # a zip unpacked into a folder of its own name
        inner.mkdir(exist_ok=True)
        path.rename(inner / f"{path.stem}{('.JPG', '.png', '.jpeg', '.jpg')[n % 4]}")
    after = build(name, root)
    assert after.table["image"].notna().all()
    assert all((root / ref).is_file() for ref in after.table["image"])
    pd.testing.assert_frame_equal(before.drop(columns="image"), after.table.drop(columns="image"))


def test_no_images_at_all_is_a_note(name: str, root: Path) -> None:
    for folder in (p for p in root.iterdir() if p.is_dir()):
        shutil.rmtree(folder)
    (root / "Training_Input.zip").touch()
    index = build(name, root)
    assert index.table["image"].isna().all()
    assert any("train rows have no image file" in note for note in index.notes)
    assert "not unpacked: Training_Input.zip" in index.notes


def test_one_missing_image_is_null(name: str, root: Path) -> None:
    gone = sorted(root.rglob("*.jpg"))[0]
    gone.unlink()
    table = build(name, root).table
    assert table.loc[table["image"].isna(), "image_id"].tolist() == [gone.stem]


def test_the_same_image_in_two_folders_needs_a_choice(name: str, root: Path) -> None:
    before = build(name, root).table["image"]
    image = sorted(root.rglob("*.jpg"))[0]
    for folder in ("small", "smaller"):
        (root / folder).mkdir()
        shutil.copy(image, root / folder)
    assert build(name, root).table["image"].tolist() == before.tolist()  # the official folder wins
    image.unlink()
    with pytest.raises(DataError, match=r"small/.* and smaller/.*data\.index\.images=FOLDER"):
        build(name, root)
    chosen = build(name, root, images="smaller").table["image"].dropna().tolist()
    assert chosen == [f"smaller/{image.name}"]
    with pytest.raises(DataError, match="expected a folder of data.root, got .*nowhere"):
        build(name, root, images="nowhere")
    for outside in ("..", str(root.parent)):
        with pytest.raises(DataError, match="expected a folder of data.root"):
            build(name, root, images=outside)


def test_a_folder_one_level_too_high_is_named(name: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        build(name, tmp_path)
    assert f"set data.root={root}" in str(error.value)
    assert LABELS[name][0] in str(error.value) or TRAIN_TABLE[name][0] in str(error.value)


def test_a_folder_one_level_too_low_is_named(name: str, root: Path) -> None:
    inner = next(p for p in root.iterdir() if p.is_dir())
    with pytest.raises(DataError, match=f"set data.root={root}\n"):
        build(name, inner)


def test_a_zip_that_is_not_unpacked_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "download.zip").touch()
    with pytest.raises(DataError) as error:
        build(name, tmp_path)
    message = str(error.value)
    assert "found download.zip, not unpacked" in message
    assert LABELS[name][0] in message or TRAIN_TABLE[name][0] in message
    assert "https://challenge.isic-archive.com/data/" in message
    assert f"python -m isic synth data={name}" in message


def test_no_folder_says_where_and_how(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder .*nowhere\n(.|\n)*curl"):
        build(name, tmp_path / "nowhere")


@pytest.mark.parametrize("bad", ["../../etc/passwd", "a/b", "x y", ""])
def test_bad_ids_are_named(name: str, root: Path, bad: str) -> None:
    table, column = TRAIN_TABLE[name]
    edit(root / table, column, bad)
    with pytest.raises(DataError, match="must match|lacks|have no"):
        build(name, root)


def test_duplicate_ids_are_named(name: str, root: Path) -> None:
    table, column = TRAIN_TABLE[name]
    frame = read(root / table)
    pd.concat([frame, frame[:7]]).to_csv(root / table, index=False)
    with pytest.raises(DataError, match=f"7 duplicate {column}: .* and 2 more"):
        build(name, root)


def test_an_id_in_train_and_test_is_a_duplicate(name: str, root: Path) -> None:
    table, column = TRAIN_TABLE[name]
    tests = root / ("test.csv" if name == "isic2020" else table.replace("Training", "Test"))
    shared = read(root / table)[column][0]
    for path in [tests, *root.glob("*Test_GroundTruth.csv")]:
        edit(path, column, shared, 0 if path == tests else -1)
    with pytest.raises(DataError, match=f"1 duplicate .*: {shared}"):
        build(name, root)


@pytest.mark.parametrize("bad", ["2", "0.5", "yes", ""])
def test_a_label_that_is_none_is_named(name: str, root: Path, bad: str) -> None:
    table, column = LABELS[name]
    row = edit(root / table, column, bad, 2)
    with pytest.raises(DataError, match=f"(0 or 1|exactly one|is empty).*: {row}"):
        build(name, root)


def test_all_faults_are_said_at_once(name: str, root: Path) -> None:
    table, column = LABELS[name]
    edit(root / table, column, "7", 1)
    table, column = TRAIN_TABLE[name]
    edit(root / table, "age_approx", "old", 3)
    frame = read(root / table).drop(columns="sex")
    frame.loc[5, column] = frame.loc[6, column]
    frame.to_csv(root / table, index=False)
    with pytest.raises(DataError) as error:
        build(name, root)
    for part in ("0 or 1", "'old'", "1 duplicate", "lacks 1 of", ": sex"):
        assert part in str(error.value), part


def test_an_unknown_column_of_metadata_is_noted(name: str, root: Path) -> None:
    path = root / TRAIN_TABLE[name][0]
    read(path).assign(surprise="1").to_csv(path, index=False)
    index = build(name, root)
    assert "surprise" not in index.table
    assert any("'surprise'" in note for note in index.notes)


def test_a_site_that_nobody_published_stays_and_is_noted(name: str, root: Path) -> None:
    path = root / TRAIN_TABLE[name][0]
    column = next(c for c in read(path) if "site" in c)
    edit(path, column, "left ear")
    index = build(name, root)
    assert (index.table["site"] == "left ear").sum() == 1
    assert any("'left ear'" in note for note in index.notes)


def test_the_folder_is_left_as_it_was(name: str, root: Path) -> None:
    before = sorted(str(p) for p in root.rglob("*"))
    build(name, root)
    assert sorted(str(p) for p in root.rglob("*")) == before


def test_an_empty_table_is_refused(name: str, root: Path) -> None:
    for path in csvs(root):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="has a header but no rows"):
        build(name, root)


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"PK\x03\x04", b"other,columns\n1,2\n"])
def test_what_is_no_table_is_refused(name: str, root: Path, content: bytes) -> None:
    (root / TRAIN_TABLE[name][0]).write_bytes(content)
    with pytest.raises(DataError, match=TRAIN_TABLE[name][0]):
        build(name, root)


def test_a_torn_line_is_refused(name: str, root: Path) -> None:
    path = root / TRAIN_TABLE[name][0]
    path.write_text(path.read_text()[:-20] + "\n")
    with pytest.raises(DataError, match=f"{path.name}"):
        build(name, root)


def test_every_published_column_has_a_vocabulary_that_its_rows_keep(name: str, root: Path) -> None:
    index = build(name, root)
    for column, known in index.info.vocabularies.items():
        assert set(index.table[column].dropna().astype(str)) <= set(known), column
    assert set(index.info.view_columns) <= set(index.table)


def test_the_facts_of_an_archive_are_plain(name: str) -> None:
    info = importlib.import_module(f"isic.index.{name}").INFO
    assert type(info).from_dict(info.to_dict()) == info
    published = info.published_counts
    assert sum(published[c] for c in info.classes) == published["train"]
    assert published["images"] == published["train"] + published["test"]
    assert "DATA_ROOT" in info.download
    assert "https://" in info.download


@pytest.mark.parametrize("age", ["-5", "200", "inf", "1e400"])
def test_an_age_that_nobody_has_is_named(name: str, root: Path, age: str) -> None:
    edit(root / TRAIN_TABLE[name][0], "age_approx", age)
    index = build(name, root)
    assert re.search(r"age must be 0\.\.120 years, got .* in 1 rows: ISIC_", index.unread["age"])
    assert index.table["age"].between(0, 120).sum() == index.table["age"].notna().sum()
    refuse_unread(index, ["sex", "site"], key="data.metadata")
    with pytest.raises(DataError, match=r"data.metadata: age must be 0.*Correct these cells"):
        refuse_unread(index, ["age"], key="data.metadata")


ODD = (
    "",
    "NA",
    "nan",
    "-1",
    "0",
    "2",
    "1e400",
    "é",
    '"',
    "a,b",
    "../x",
    " ",
    "True",
    "ISIC_0000001",
)


def spoiled(frame: pd.DataFrame, rng: random.Random) -> pd.DataFrame:
    """The table with one thing wrong: cells, a column that is gone, rows too few or many."""
    frame, column = frame.copy(), rng.choice(list(frame.columns))
    kind = rng.randrange(5)
    if kind < 2:
        rows = slice(None) if kind else rng.randrange(len(frame))
        frame.iloc[rows, frame.columns.get_loc(column)] = rng.choice(ODD)
    elif kind == 2:
        frame = frame.drop(columns=column)
    elif kind == 3:
        frame = frame[: rng.randrange(len(frame))]
    else:
        frame = pd.concat([frame, frame[:1]])
    return frame


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_wrong_is_a_data_error_or_a_sound_index(
    name: str, root: Path, seed: int
) -> None:
    rng = random.Random(seed)
    for path in rng.sample(csvs(root), k=rng.randint(1, 2)):
        spoiled(read(path), rng).to_csv(path, index=False)
    try:
        index = build(name, root)
    except DataError as error:
        assert "\n" in str(error)  # what is wrong, and the next step
        return
    assert faults_of(index.table, index.info) == []
    assert len(sample_rows(index))


def test_a_root_above_several_archives_is_not_sent_to_the_first_of_them(tmp_path: Path) -> None:
    for name in ("isic2019", "isic2024", "milk10k"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_Training_GroundTruth.csv").touch()
    with pytest.raises(DataError) as error:
        isic2024.build_index(tmp_path)
    assert f"set data.root={tmp_path / 'milk10k'}" not in str(error.value)
    assert f"set data.root={tmp_path / 'isic2019'}" not in str(error.value)
    assert "set data.root to the folder of isic2024" in str(error.value)
