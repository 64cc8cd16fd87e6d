"""Pairs of an archive's images: train and test, equal and alike; kept; folds follow them."""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import simplejpeg

from isic.images.decode import decode
from isic.index.isic2024 import build_index
from isic.split import SplitOptions, make_split
from isic.split.overlap import overlap_pairs


@pytest.fixture
def archive(archive_copy: Path) -> tuple[Path, list[str], str]:
    """Row 1 is row 0 again, row 3 is row 2 mirrored, the first test image is row 5."""
    index = build_index(archive_copy)
    ids = index.table["image_id"].tolist()
    test = index.table["image_id"][index.table["split"] == "test"].iloc[0]
    with h5py.File(archive_copy / "train-image.hdf5", "r+") as file:
        bytes_of = [bytes(file[i][()]) for i in ids[:6]]
        mirrored = np.ascontiguousarray(decode(bytes_of[2])[:, ::-1])
        for image_id, data in (
            (ids[1], bytes_of[0]),
            (ids[3], simplejpeg.encode_jpeg(mirrored, quality=90)),
        ):
            del file[image_id]
            file[image_id] = np.bytes_(data)
    with h5py.File(archive_copy / "test-image.hdf5", "r+") as file:
        del file[test]
        file[test] = np.bytes_(bytes_of[5])
    return archive_copy, ids, test


def test_train_and_test_images_are_compared(
    archive: tuple[Path, list[str], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    root, ids, test = archive
    found = overlap_pairs(build_index(root), cache_root=tmp_path / "cache")
    expected = [(ids[0], ids[1], "bytes"), (ids[2], ids[3], "near"), (ids[5], test, "bytes")]
    assert found == expected
    assert "2 pairs of equal files and 1 of images that look the same among 128" in caplog.text

    def no_search(_: Any) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr("isic.split.overlap.same_images", no_search)
    assert overlap_pairs(build_index(root), cache_root=tmp_path / "cache") == expected


def test_folds_keep_what_shows_the_same_together(
    archive: tuple[Path, list[str], str], tmp_path: Path
) -> None:
    root, ids, _ = archive
    index = build_index(root)
    places = {"runs_root": tmp_path, "cache_root": tmp_path / "cache"}
    for seed in range(5):
        made = make_split(index, SplitOptions(n_folds=3, seed=seed), **places)
        by_id = made.table.set_index("image_id")
        for a, b in ((0, 1), (2, 3)):
            assert by_id.loc[ids[a], "group"] == by_id.loc[ids[b], "group"]
            assert by_id.loc[ids[a], "fold"] == by_id.loc[ids[b], "fold"]
        without = make_split(index, SplitOptions(n_folds=3, seed=seed, overlap=False), **places)
        assert without.path != made.path
        patients = index.table.set_index("image_id")["patient_id"]
        named = without.table.set_index("image_id")["group"]
        assert (named == patients[named.index]).all()


def test_a_pair_with_a_test_image_moves_no_fold(
    archive: tuple[Path, list[str], str], tmp_path: Path
) -> None:
    root, _, _ = archive
    whole, alone = build_index(root), build_index(root)
    alone.table.loc[alone.table["split"] == "test", "image"] = None
    made = [
        make_split(index, SplitOptions(), runs_root=tmp_path / str(i), cache_root=tmp_path)
        for i, index in enumerate((whole, alone))
    ]
    assert made[0].hash == made[1].hash
    assert made[0].path.name == made[1].path.name, "another test set must not make another file"


def test_an_archive_without_images_has_no_pairs_and_no_files(
    archive32: Path, tmp_path: Path
) -> None:
    index = build_index(archive32)
    index.table["image"] = None
    assert overlap_pairs(index, cache_root=tmp_path / "cache") == []
    assert not (tmp_path / "cache").exists()
