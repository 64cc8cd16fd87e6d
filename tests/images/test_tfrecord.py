"""Records come back as written, by an independent writer and in a real file; damage is named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.errors import DataError
from isic.images.decode import ImageError, decode
from isic.images.tfrecord import read_record, records
from tests.images.tfrecords import framed, record


@pytest.fixture
def written(tmp_path, tile) -> tuple[Path, list[dict], list[int]]:
    """A file of five records with every kind of feature, what is in it, and where each begins."""
    contents = [
        {"image": tile(i), "image_name": b"ISIC_%07d" % i, "patient_id": [-1], "age": [30.5, i / 4]}
        for i in range(5)
    ]
    parts = [record(c, packed=i % 2 == 0) for i, c in enumerate(contents)]
    path = tmp_path / "test00-5.tfrec"
    path.write_bytes(b"".join(parts))
    return path, contents, [sum(map(len, parts[:i])) for i in range(5)]


def test_records_come_back_as_written(written):
    path, contents, offsets = written
    assert list(records(path)) == list(zip(offsets, contents, strict=True))
    assert [read_record(path, at) for at in reversed(offsets)] == contents[::-1]


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.one_of(
            st.binary(max_size=300),
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
            st.lists(st.floats(width=32, allow_nan=False), min_size=1),
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_any_features_come_back_as_written(tmp_path_factory, features, packed):
    path = tmp_path_factory.getbasetemp() / "any.tfrec"
    path.write_bytes(record(features, packed=packed))
    assert read_record(path, 0) == features


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "empty.tfrec").touch()
    assert list(records(tmp_path / "empty.tfrec")) == []


def test_every_truncation_is_named_with_its_record(written):
    path, contents, offsets = written
    whole = path.read_bytes()
    for cut in [*range(offsets[1] + 1, offsets[1] + 20), offsets[2] - 1, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        last = max(at for at in offsets if at < cut)
        with pytest.raises(
            DataError, match=rf"{path.name}: truncated in the record at byte {last};"
        ):
            list(records(path))
        with pytest.raises(
            ImageError, match=f"{path.name}: truncated in the record at byte {last}"
        ):
            read_record(path, last)
        assert read_record(path, 0) == contents[0]


def test_every_flipped_byte_is_found(written):
    path, _, offsets = written
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*range(12), *rng.integers(0, len(whole), 50).tolist()]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        begin = max(o for o in offsets if o <= at)
        with pytest.raises(DataError, match=rf"{path.name}: .* at byte {begin}\b.*; download"):
            list(records(path))
        with pytest.raises(ImageError, match=f"{path.name}: .* at byte {begin}"):
            read_record(path, begin)


def test_an_offset_between_records_is_refused(written):
    with pytest.raises(ImageError, match="no TFRecord at byte 7"):
        read_record(written[0], 7)
    with pytest.raises(ImageError, match="truncated in the record at byte 1000000"):
        read_record(written[0], 1_000_000)


def test_a_record_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.tfrec"
    for data in (b"plain text, no message", b"\x0a\xff\xff\xff", bytes(range(256))):
        path.write_bytes(framed(data))
        with pytest.raises(ImageError, match=r"no tf\.train\.Example at byte 0"):
            read_record(path, 0)


def test_a_real_file(real_root):
    path = real_root / "isic2020" / "tfrecords" / "test16-26.tfrec"
    found = list(records(path))
    assert len(found) == 26
    assert len({features["image_name"] for _, features in found}) == 26
    for offset, features in found:
        assert read_record(path, offset) == features
        assert min(decode(features["image"]).shape[:2]) >= 100
        assert features["target"] in ([0], [1])
