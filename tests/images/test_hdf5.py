"""Bytes come out of HDF5 as stored, in every storage form."""

import errno
import fcntl
from pathlib import Path

import h5py
import numpy as np
import pytest

from isic.errors import DataError
from isic.images.decode import ImageError
from isic.images.hdf5 import Hdf5Images, lock_refused, read_images


@pytest.fixture
def stored(tmp_path, tile):
    """One file with the same bytes in every storage form that archives use."""
    path, data = tmp_path / "images.hdf5", tile(5) + b"\0\0"  # numpy strips such a tail from |S
    with h5py.File(path, "w") as file:
        file["S"] = np.bytes_(tile(5))
        file["V"] = np.void(data)
        file["uint8"] = np.frombuffer(data, np.uint8)
        file.create_dataset("chunked", data=np.frombuffer(data, np.uint8), chunks=(64,))
        file.create_dataset("zipped", data=np.frombuffer(data, np.uint8), compression="gzip")
        vector = file.create_dataset("vlen", (), h5py.vlen_dtype(np.uint8))
        vector[()] = np.frombuffer(data, np.uint8)
        text = file.create_dataset("vlen_string", (), h5py.string_dtype("ascii"))
        text[()] = b"abc"
        file.create_dataset("empty", data=np.zeros(0, np.uint8))
        file.create_dataset("nul", data=np.bytes_(b"\0"), dtype="S1")
    return path, data


def test_every_storage_form_gives_the_bytes_as_stored(stored, tile):
    path, data = stored
    names = ["V", "uint8", "chunked", "zipped", "vlen"]
    assert list(read_images(path, names)) == [data] * len(names)
    assert list(read_images(path, ["S", "vlen_string"])) == [tile(5), b"abc"]


def test_empty_strings_come_out_empty(stored):
    assert list(read_images(stored[0], ["empty", "nul"])) == [b"", b""]


def test_missing_ids_are_none_in_place(stored, tile):
    assert list(read_images(stored[0], ["no", "S", "nor/this"])) == [None, tile(5), None]


def test_length_is_the_number_of_ids(stored):
    with Hdf5Images(stored[0]) as images:
        assert len(images) == 9


@pytest.mark.parametrize("content", [None, b"", b"not HDF5", "truncated"])
def test_a_file_that_is_no_hdf5_is_named(stored, tmp_path, content):
    path = tmp_path / "broken.hdf5"
    if content == "truncated":
        whole = stored[0].read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.hdf5"):
        Hdf5Images(path)


def test_bytes_read_in_place_are_those_that_hdf5_gives(stored, monkeypatch):
    names = ["S", "V", "uint8", "chunked", "zipped", "vlen", "vlen_string", "empty", "nul"]
    in_place = list(read_images(stored[0], names))
    monkeypatch.setattr(Hdf5Images, "_in_place", lambda self, dataset: None)
    assert list(read_images(stored[0], names)) == in_place


def test_a_file_that_begins_with_a_block_of_the_user_is_read_too(tmp_path, tile):
    path = tmp_path / "user.hdf5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["S"] = np.bytes_(tile(5))
    assert list(read_images(path, ["S"])) == [tile(5)]


def test_a_locked_file_is_whole(tmp_path: Path) -> None:
    """Another program writes to it, or it forgot to close it: nothing has to be downloaded."""
    path = tmp_path / "train-image.hdf5"
    with h5py.File(path, "w") as file:
        file["a"] = np.void(b"jpeg")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError) as caught:
            Hdf5Images(path)
    text = str(caught.value)
    assert str(path) in text
    assert "HDF5_USE_FILE_LOCKING=FALSE" in text
    assert "download" not in text
    assert Hdf5Images(path).read("a") == b"jpeg"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(number: int) -> None:
    said = f"unable to lock file, errno = {number}, error message = '...'"
    refused = lock_refused("/data/train-image.hdf5", OSError(f"Unable to open file ({said})"))
    assert "/data/train-image.hdf5" in str(refused)
    assert "HDF5_USE_FILE_LOCKING=FALSE" in str(refused)
    assert lock_refused("/data/a.hdf5", OSError("Unable to open file (truncated file)")) is None


@pytest.fixture
def leading_out(tmp_path, tile):
    """A store whose datasets lie in other files, in every way that HDF5 knows."""
    (tmp_path / "secret").write_bytes(tile(5))
    whole = np.frombuffer(tile(5), np.uint8)
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["o"] = whole
    layout = h5py.VirtualLayout(whole.shape, np.uint8)
    layout[:] = h5py.VirtualSource(tmp_path / "other.hdf5", "o", whole.shape)
    with h5py.File(tmp_path / "images.hdf5", "w") as file:
        file["inside"] = whole
        file["soft"] = h5py.SoftLink("/inside")
        file["link"] = h5py.ExternalLink("other.hdf5", "/o")
        file["mount"] = h5py.ExternalLink("other.hdf5", "/")
        file["lost"] = h5py.ExternalLink("gone.hdf5", "/o")
        place = [(str(tmp_path / "secret"), 0, len(whole))]
        file.create_dataset("raw", whole.shape, np.uint8, external=place)
        file.create_virtual_dataset("virtual", layout)
    return tmp_path / "images.hdf5"


@pytest.mark.parametrize("name", ["link", "mount/o", "lost", "raw", "virtual"])
def test_bytes_of_other_files_are_refused(leading_out, name):
    with Hdf5Images(leading_out) as images, pytest.raises(ImageError) as refused:
        images.read(name)
    assert name in str(refused.value) and "expected bytes in the store itself" in str(refused.value)


def test_links_inside_a_store_are_followed_also_where_the_store_is_a_link(leading_out, tile):
    linked = leading_out.with_name("linked.hdf5")
    linked.symlink_to(leading_out.name)
    for path in (leading_out, linked):
        assert list(read_images(path, ["inside", "soft", "no"])) == [tile(5), tile(5), None]
