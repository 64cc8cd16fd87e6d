"""Every image read and decoded once: what it is, or why it is none."""

import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import simplejpeg

from isic.errors import DataError
from isic.images.fingerprint import has_fingerprints, keep_fingerprints, read_fingerprints
from isic.index.integrity import (
    MISSING,
    OK,
    UNREADABLE,
    format_of,
    image_facts,
    read_images,
    read_with_prints,
)
from isic.index.isic2024 import build_index


def test_facts_of_a_whole_archive(archive32: Path) -> None:
    index = build_index(archive32)
    files = read_images(index, progress=False)
    assert files.index.equals(index.table.index)
    assert set(files["status"]) == {OK}
    assert set(files["width"]) == set(files["height"]) == {32}
    assert set(files["format"]) == {"JPEG"}
    with h5py.File(archive32 / "train-image.hdf5") as file:
        sizes = [file[i].dtype.itemsize for i in index.table["image_id"][:120]]
    assert files["n_bytes"][:120].tolist() == sizes


def test_missing_and_broken_images_have_a_reason(archive_copy: Path) -> None:
    ids = build_index(archive_copy).table["image_id"].tolist()
    with h5py.File(archive_copy / "train-image.hdf5", "a") as file:
        whole = bytes(file[ids[1]][()])
        for key in ids[:4]:
            del file[key]
        file[ids[1]] = np.bytes_(whole[:-20])
        file[ids[2]] = np.bytes_(b"not a picture")
        file[ids[3]] = np.bytes_(b"")
    files = read_images(build_index(archive_copy), progress=False)
    assert files["status"].tolist()[:5] == [MISSING, *[UNREADABLE] * 3, OK]
    reasons = files["fault"].tolist()
    assert "truncated" in reasons[1]
    assert "not an image" in reasons[2]
    assert "empty" in reasons[3]
    assert not reasons[0]
    assert not any(reasons[4:])


def test_a_store_that_is_gone_is_missing_and_a_torn_one_raises(archive_copy: Path) -> None:
    index = build_index(archive_copy)
    (archive_copy / "test-image.hdf5").write_bytes(b"HDF")
    with pytest.raises(DataError, match="download it again"):
        read_images(index, progress=False)
    (archive_copy / "test-image.hdf5").unlink()
    files = read_images(build_index(archive_copy), progress=False)
    assert files["status"].value_counts().to_dict() == {OK: 120, MISSING: 8}


def test_loose_files_and_workers_give_the_same(archive32: Path, tmp_path: Path) -> None:
    for name in ("train-metadata.csv", "train-image.hdf5"):
        shutil.copy(archive32 / name, tmp_path)
    stored = read_images(build_index(tmp_path), progress=False)
    (tmp_path / "train-image").mkdir()
    with h5py.File(tmp_path / "train-image.hdf5") as file:
        for key in file:
            (tmp_path / "train-image" / f"{key}.jpg").write_bytes(bytes(file[key][()]))
    (tmp_path / "train-image.hdf5").unlink()
    loose = read_images(build_index(tmp_path), workers=2, progress=False)
    assert loose.equals(stored)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x89PNG\r\n", "PNG"),
        (b"RIFF1234WEBP", "WEBP"),
        (b"II*\0", "TIFF"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"<html>", "other"),
        (b"", "other"),
    ],
)
def test_formats_are_told_by_their_first_bytes(data: bytes, name: str) -> None:
    assert format_of(data) == name
    assert image_facts(data).fault


def test_prints_made_along_are_those_made_alone(archive_copy: Path, tmp_path: Path) -> None:
    index = build_index(archive_copy)
    with h5py.File(archive_copy / "train-image.hdf5", "a") as file:
        for i, size in ((3, 700), (4, 513)):  # above and about the side of a reduced decoding
            del file[index.table["image_id"][i]]
            pixels = np.random.default_rng(i).integers(0, 255, (size, size, 3), dtype=np.uint8)
            file[index.table["image_id"][i]] = np.bytes_(simplejpeg.encode_jpeg(pixels))
        del file[index.table["image_id"][5]], file[index.table["image_id"][6]]
        file[index.table["image_id"][6]] = np.bytes_(b"not a picture")
    index.table.loc[7, "image"] = None
    files, prints = read_with_prints(index, progress=False)
    assert files.equals(read_images(index, progress=False))
    refs = index.table["image"].dropna().astype("object").tolist()
    alone = read_fingerprints(index.sources, refs, cache_root=tmp_path)
    assert bytes(prints) == alone.tobytes()
    assert not has_fingerprints(index.sources, refs, cache_root=tmp_path / "other")
    keep_fingerprints(index.sources, refs, prints, cache_root=tmp_path / "other")
    kept = read_fingerprints(index.sources, refs, cache_root=tmp_path / "other")
    assert kept.tobytes() == alone.tobytes()


def test_a_large_image_is_read_to_its_end_and_measured_as_stored() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1200, 1800, 3), dtype=np.uint8)
    data = simplejpeg.encode_jpeg(pixels, quality=60)
    assert image_facts(data)[:2] == (1800, 1200)
    for cut in (2, 1000, len(data) // 2):
        assert "truncated" in image_facts(data[:-cut]).fault
    png = cv2.imencode(".png", pixels[:300])[1].tobytes()
    assert image_facts(png) == (1800, 300, len(png), "PNG", "", "")
