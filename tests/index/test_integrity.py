"""The check before training: what is missing, what does not decode, what differs."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from isic.acquire.synthetic import write_isic2024
from isic.index.integrity import check_archive
from isic.index.isic2024 import build_index


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("integrity") / "archive"
    return write_isic2024(root, n_images=40, n_test=5, size_range=32)


@pytest.fixture
def copy(archive: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(archive, tmp_path / "copy"))


def test_a_whole_archive_has_no_errors(archive: Path) -> None:
    report = check_archive(build_index(archive), progress=False)
    assert report["errors"] == []
    assert report["counts"]["train"] == 40
    assert report["counts"]["images"] == 45
    assert any("401,059 published" in line for line in report["lines"])


def test_missing_and_broken_images_are_named_with_the_reason(copy: Path) -> None:
    ids = build_index(copy).table["image_id"].tolist()
    with h5py.File(copy / "train-image.hdf5", "a") as file:
        whole = bytes(file[ids[1]][()])
        for key in ids[:4]:
            del file[key]
        file[ids[1]] = np.bytes_(whole[: len(whole) // 2])
        file[ids[2]] = np.bytes_(b"not a picture")
        file[ids[3]] = np.bytes_(b"")
    report = check_archive(build_index(copy), progress=False)
    assert report["missing"] == [ids[0]]
    assert set(report["unreadable"]) == set(ids[1:4])
    assert len(report["errors"]) == 2
    assert ids[0] in report["errors"][0]


def test_a_missing_or_torn_store_is_an_error(copy: Path) -> None:
    (copy / "test-image.hdf5").write_bytes(b"HDF")
    assert check_archive(build_index(copy), progress=False)["errors"]
    (copy / "test-image.hdf5").unlink()
    report = check_archive(build_index(copy), progress=False)
    assert len(report["missing"]) == 5


def test_tables_alone_can_be_checked(copy: Path) -> None:
    (copy / "train-image.hdf5").unlink()
    assert check_archive(build_index(copy), images=False)["errors"] == []
