"""Images before the first batch: what is packed, what is refused, what is said."""

import logging
import shutil

import cv2
import h5py
import numpy as np
import pytest

from isic import prepare
from isic.config.inference import applied_index
from isic.errors import ConfigError, DataError
from isic.images.packfile import MISSING, OK, UNREADABLE
from isic.index import folder
from isic.index.isic2024 import INFO, build_index
from isic.index.schema import refuse_train_only
from isic.prepare import PixelOptions, load_rows, open_index
from isic.split import SplitOptions, fold_rows, make_split


@pytest.fixture(scope="module")
def index(archive32):
    return build_index(archive32)


def train_table(index):
    return index.table[index.table["split"] == "train"].reset_index(drop=True)


def pixels(tmp_path, **options):
    return PixelOptions(tmp_path / "cache", **options)


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


def test_half_an_image_with_an_end_marker_is_bad_not_ok(archive_copy, tmp_path, caplog):
    table = train_table(build_index(archive_copy))
    bad = table["image_id"][3]
    rewrite_images(
        archive_copy, lambda i, data: data[: len(data) * 3 // 4] + b"\xff\xd9" if i == bad else data
    )
    broken = build_index(archive_copy)
    with pytest.raises(DataError, match=rf"1 of 120 images cannot be read: {bad} \(truncated or"):
        load_rows(broken, table, pixels(tmp_path), image_size=32)
    rows = load_rows(broken, table, pixels(tmp_path, on_bad_image="skip"), image_size=32)
    assert rows.status[3] == UNREADABLE
    assert (np.delete(rows.status, 3) == OK).all()


def test_the_largest_image_that_is_read_is_a_key(archive32, tmp_path):
    def opened(megapixels):
        cache = tmp_path / "cache"
        return open_index(build_index, archive32, cache_root=cache, max_megapixels=megapixels)

    table = train_table(opened(None))
    assert load_rows(opened(None), table, pixels(tmp_path), image_size=32).readable.all()
    with pytest.raises(DataError, match=r"over the limit of 0.001 megapixels; raise data.max_meg"):
        load_rows(opened(0.001), table, pixels(tmp_path), image_size=32)
    with pytest.raises(ConfigError, match=r"data.max_megapixels"):
        opened(0)


def test_a_guessed_depth_is_said_whenever_the_pack_is_opened(archive_copy, tmp_path, caplog):
    table = train_table(build_index(archive_copy))
    deep = table["image_id"][5]
    values = np.linspace(0, 4095, 32 * 32).astype(np.uint16).reshape(32, 32)
    done, data = cv2.imencode(".png", values)
    assert done
    rewrite_images(archive_copy, lambda i, before: data.tobytes() if i == deep else before)
    for _ in range(2):
        caplog.clear()
        rows = load_rows(build_index(archive_copy), table, pixels(tmp_path), image_size=32)
        assert rows.readable.all()
        assert f"1 of 120 images: 16-bit values that fit in 12 bits, read as 12 bits: {deep}" in (
            caplog.text
        )


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
        places = {"runs_root": tmp_path, "cache_root": tmp_path / "cache"}
        made = make_split(index, SplitOptions(), **places)
        rows = load_rows(index, fold_rows(index, made), pixels(tmp_path), image_size=32)
        assert rows.readable.all()
        assert {p.name: p.stat().st_mtime_ns for p in archive_copy.iterdir()} == before
    finally:
        archive_copy.chmod(0o755)
    shutil.rmtree(archive_copy)


@pytest.fixture
def folder_of_two(tmp_path):
    """Four images in two classes, which their reader has notes on."""
    for name in ("benign/a.png", "benign/b.png", "malignant/c.png", "malignant/d.png"):
        path = tmp_path / "archive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "archive"


def notes_logged(caplog):
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("folder: ")]


def test_a_command_logs_the_readers_notes_of_a_kept_index(
    folder_of_two, tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    logged = []
    for _ in range(2):  # two processes: one that reads the folder, one that finds it read
        monkeypatch.setattr(prepare, "_logged_notes", set())
        index = open_index(folder.build_index, folder_of_two, cache_root=tmp_path / "cache")
        logged.append(notes_logged(caplog))
        caplog.clear()
    assert logged[0] == logged[1] == [f"folder: {note}" for note in index.notes]
    assert len(index.notes) == 2


def test_the_folds_of_a_multirun_log_a_note_once(folder_of_two, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(prepare, "_logged_notes", set())
    for _ in range(3):
        open_index(folder.build_index, folder_of_two, cache_root=tmp_path / "cache")
    assert len(notes_logged(caplog)) == 2


def test_a_model_reads_another_archive_with_its_own_options_and_what_is_said_of_ids():
    trained = {"_target_": "reader", "images": "a", "ids": "exact"}
    assert applied_index(trained, None) == applied_index(trained, {"ids": None}) == trained
    assert applied_index(trained, {"ids": "normalised"}) == {**trained, "ids": "normalised"}
    old = {"_target_": "reader"}  # of a checkpoint that knows no ids
    assert applied_index(old, {"ids": None}) == old
