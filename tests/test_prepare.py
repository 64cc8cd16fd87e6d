"""Split files and images before the first batch: what is made, what is refused, what is said."""

import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.images.packfile import MISSING, OK, UNREADABLE
from isic.index.isic2024 import INFO, build_index
from isic.index.schema import refuse_train_only
from isic.prepare import PixelOptions, SplitOptions, fold_rows, load_rows, make_split


@pytest.fixture(scope="module")
def index(archive32):
    return build_index(archive32)


def split(index, tmp_path, fraction=1.0, **options):
    return make_split(index, SplitOptions(**options), runs_root=tmp_path, fraction=fraction)


def train_table(index):
    return index.table[index.table["split"] == "train"].reset_index(drop=True)


def pixels(tmp_path, **options):
    return PixelOptions(tmp_path / "cache", **options)


# ---- splits


def test_a_split_is_made_once_and_read_by_all(index, tmp_path, caplog):
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


def test_a_part_keeps_whole_patients_in_the_folds_of_the_full_split(index, tmp_path):
    full = split(index, tmp_path, n_folds=3)
    part = split(index, tmp_path, n_folds=3, fraction=0.5)
    assert part.path.name.endswith("-f0.5.csv")
    joined = part.table.merge(full.table, on="image_id", suffixes=("", "_full"))
    assert (joined["fold"] == joined["fold_full"]).all()
    assert 0.3 * len(full.table) < len(part.table) < 0.7 * len(full.table)
    rows = train_table(index)
    for patient in fold_rows(index, part)["patient_id"].unique():
        whole = rows.loc[rows["patient_id"] == patient, "image_id"]
        assert whole.isin(part.table["image_id"]).all()
    target = fold_rows(index, part).groupby("fold")["target"]
    assert (target.sum() > 0).all()
    assert (target.count() > target.sum()).all()


def given(index, tmp_path, change=None):
    """A split file of the user's own."""
    table = split(index, tmp_path / "made", n_folds=3).table
    if change is not None:
        table = change(table.copy())
    table.to_csv(tmp_path / "mine.csv", index=False)
    return str(tmp_path / "mine.csv")


def test_a_given_file_overrides_number_and_seed(index, tmp_path):
    path = given(index, tmp_path)
    mine = split(index, tmp_path, file=path, n_folds=5, seed=9)
    assert mine.path == Path(path)
    assert mine.n_folds == 3
    assert not (tmp_path / "splits").exists()


def test_a_given_file_that_names_fewer_rows_says_so(index, tmp_path, caplog):
    path = given(index, tmp_path, lambda t: t[t["group"] != t["group"].iloc[0]])
    mine = split(index, tmp_path, file=path)
    assert len(fold_rows(index, mine)) == len(mine.table) < 120
    assert f"names {len(mine.table)} of 120 training rows" in caplog.text


def spread_one_group(table):
    group = table["group"].value_counts().index[0]
    table.loc[table["group"] == group, "fold"] = np.arange((table["group"] == group).sum()) % 3
    return table


def move_positives(table, index):
    """All patients with a malignant lesion into fold 0."""
    positive = index.table.loc[index.table["target"] == 1, "patient_id"]
    table.loc[table["group"].isin(positive), "fold"] = 0
    return table


def test_a_given_fold_of_one_class_is_refused(index, tmp_path):
    path = given(index, tmp_path, lambda t: move_positives(t, index))
    with pytest.raises(DataError, match="every fold needs two classes, got one in fold 1, 2"):
        split(index, tmp_path, file=path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(image_id="X" + t["image_id"]), "120 of 120 image ids are not training"),
        (lambda t: t.assign(fold=t["fold"] * 2), r"expected folds 0, 1, \.\.\. without a gap"),
        (lambda t: t.assign(fold=0), "without a gap, got"),
        (spread_one_group, r"1 groups \(patient, else lesion\) lie in several folds: IP_"),
        (lambda t: t.drop(columns="fold"), "lacks fold"),
        (lambda t: pd.concat([t, t[:1]]), "names 1 image_ids twice"),
    ],
    ids=["other archive", "gap", "one fold", "divided patient", "no fold", "twice"],
)
def test_a_given_file_that_is_not_sound_is_refused(index, tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        split(index, tmp_path, file=given(index, tmp_path, change))


def test_rows_that_never_validate_may_stand_in_a_given_file(index, tmp_path):
    def rest_and_extra(table):
        groups = table["group"].unique()
        table.loc[table["group"] == groups[0], "fold"] = -1
        table.loc[table["group"] == groups[1], "fold"] = -2
        return table

    mine = split(index, tmp_path, file=given(index, tmp_path, rest_and_extra))
    assert mine.n_folds == 3
    assert {-1, -2} <= set(mine.table["fold"])


def test_no_such_split_file(index, tmp_path):
    with pytest.raises(DataError, match=r"split file .*none\.csv"):
        split(index, tmp_path, file=str(tmp_path / "none.csv"))


def test_a_part_of_a_given_split_is_ambiguous(index, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.fraction: expected 1 with split\.file, got 0\.5"):
        split(index, tmp_path, file=given(index, tmp_path), fraction=0.5)


# ---- images


def rewrite_images(root, change):
    """Change the bytes of the HDF5's images: id -> bytes, or None to take it out."""
    with h5py.File(root / "train-image.hdf5", "r+") as file:
        for image_id in list(file):
            before = file[image_id][()]
            data = change(image_id, bytes(before))
            if data == bytes(before):
                continue
            del file[image_id]
            if data is not None:
                file.create_dataset(image_id, data=np.frombuffer(data, np.uint8))


def test_all_is_well(index, tmp_path, caplog):
    table = train_table(index)
    rows = load_rows(index, table, pixels(tmp_path), image_size=32)
    assert rows.readable.all()
    assert len(rows.pack) == len(rows.table) == 120
    assert caplog.text == ""


def test_a_missing_root_prints_where_it_looked_and_how_to_download(tmp_path):
    with pytest.raises(DataError) as caught:
        build_index(tmp_path / "absent")
    text = str(caught.value)
    assert str(tmp_path / "absent") in text
    assert "kaggle competitions download -c isic-2024-challenge" in text
    assert f"unzip isic-2024-challenge.zip -d {tmp_path / 'absent'}" in text
    assert "python -m isic synth" in text
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"train-metadata\.csv"):
        build_index(tmp_path / "empty")


def test_ids_that_the_hdf5_lacks_are_named(archive_copy, tmp_path, caplog):
    table = train_table(build_index(archive_copy))
    absent = set(table["image_id"][::17])  # eight of 120
    rewrite_images(archive_copy, lambda i, data: None if i in absent else data)
    broken = build_index(archive_copy)
    with pytest.raises(DataError) as caught:
        load_rows(broken, table, pixels(tmp_path), image_size=32)
    text = str(caught.value)
    assert "8 of 120 rows have no image" in text
    assert ", ".join(sorted(absent)[:5]) + " and 3 more" in text
    assert f"-d {archive_copy}" in text
    assert "data.missing_images=drop" in text
    rows = load_rows(broken, table, pixels(tmp_path, missing_images="drop"), image_size=32)
    assert set(rows.table["image_id"][~rows.readable]) == absent
    assert (rows.pack.status[~rows.readable] == MISSING).all()
    assert "8 of 120 rows have no image" in caplog.text


BROKEN = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "html": lambda data: b"<html>404: not found</html>",
    "zeros": lambda data: bytes(len(data)),
}


def test_broken_images_are_an_error_with_their_reasons(archive_copy, tmp_path):
    table = train_table(build_index(archive_copy))
    faults = dict(zip(table["image_id"][5:], BROKEN.values(), strict=False))
    rewrite_images(archive_copy, lambda i, data: faults[i](data) if i in faults else data)
    broken = build_index(archive_copy)
    with pytest.raises(DataError) as caught:
        load_rows(broken, table, pixels(tmp_path), image_size=32)
    text = str(caught.value)
    assert "4 of 120 images cannot be read" in text
    for image_id in faults:
        assert f"{image_id} (" in text
    for reason in ("truncated", "empty", "not an image"):
        assert reason in text
    assert "data.on_bad_image=skip" in text


@pytest.mark.parametrize("fault", list(BROKEN))
def test_skipped_images_are_counted_and_keep_their_row(archive_copy, tmp_path, caplog, fault):
    before = (archive_copy / "train-image.hdf5").stat()
    table = train_table(build_index(archive_copy))
    victim = table["image_id"][7]
    rewrite_images(archive_copy, lambda i, data: BROKEN[fault](data) if i == victim else data)
    after = (archive_copy / "train-image.hdf5").read_bytes()
    skipping = pixels(tmp_path, on_bad_image="skip")
    rows = load_rows(build_index(archive_copy), table, skipping, image_size=32)
    assert len(rows.table) == 120
    assert np.flatnonzero(~rows.readable).tolist() == [7]
    assert rows.pack.status[7] == UNREADABLE
    assert "1 of 120 images cannot be read" in caplog.text
    assert victim in caplog.text
    assert (archive_copy / "train-image.hdf5").read_bytes() == after  # data is never rewritten
    assert before.st_size > 0


def test_nothing_left_to_read(archive_copy, tmp_path):
    table = train_table(build_index(archive_copy))
    rewrite_images(archive_copy, lambda i, data: b"x")
    skipping = pixels(tmp_path, on_bad_image="skip")
    with pytest.raises(DataError, match="none of 120 images"):
        load_rows(build_index(archive_copy), table, skipping, image_size=32)


def test_an_archive_without_images(archive_copy, tmp_path):
    (archive_copy / "train-image.hdf5").unlink()
    index = build_index(archive_copy)
    for missing in ("error", "drop"):
        with pytest.raises(DataError, match=r"120 of 120 rows have no image.*kaggle"):
            load_rows(
                index, train_table(index), pixels(tmp_path, missing_images=missing), image_size=32
            )


def test_jpeg_files_that_are_missing(archive_copy, tmp_path):
    table = train_table(build_index(archive_copy))
    folder = archive_copy / "train-image" / "image"
    folder.mkdir(parents=True)
    with h5py.File(archive_copy / "train-image.hdf5") as file:
        for image_id in table["image_id"][3:]:
            (folder / f"{image_id}.jpg").write_bytes(bytes(file[image_id][()]))
    (archive_copy / "train-image.hdf5").unlink()
    index = build_index(archive_copy)
    table = train_table(index)
    with pytest.raises(DataError, match="3 of 120 rows have no image"):
        load_rows(index, table, pixels(tmp_path), image_size=32)
    dropping = pixels(tmp_path, missing_images="drop")
    rows = load_rows(index, table, dropping, image_size=32)
    assert (rows.pack.status != OK).sum() == 3


@pytest.mark.parametrize(
    ("key", "value"), [("cache", "disk"), ("on_bad_image", "ignore"), ("missing_images", "keep")]
)
def test_choices_that_are_none(tmp_path, key, value):
    with pytest.raises(ConfigError, match=rf"data\.{key}: expected .* or .*, got {value}"):
        pixels(tmp_path, **{key: value})


def test_a_train_only_column_as_a_feature_is_refused():
    for column in INFO.train_only_columns:
        with pytest.raises(DataError, match=rf"train-only columns {column} of isic2024"):
            refuse_train_only(["age", column], INFO)
    refuse_train_only(["age", "sex", "clin_size_long_diam_mm"], INFO)


def test_a_read_only_root_is_fine(archive_copy, tmp_path):
    for path in (*archive_copy.rglob("*"), archive_copy):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {p.name: p.stat().st_mtime_ns for p in archive_copy.iterdir()}
    try:
        index = build_index(archive_copy)
        made = split(index, tmp_path)
        rows = load_rows(index, fold_rows(index, made), pixels(tmp_path), image_size=32)
        assert rows.readable.all()
        assert {p.name: p.stat().st_mtime_ns for p in archive_copy.iterdir()} == before
    finally:
        archive_copy.chmod(0o755)
    shutil.rmtree(archive_copy)
