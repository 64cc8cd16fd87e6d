"""Damaged bytes are refused with the reason, merely unusual ones are read; numbers found of tried.

The generated photographs have the grain of real ones, so that a byte changed puts the codes after
it out of step as it would there.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isic.images.convert import Options, convert
from isic.images.decode import ImageError, decode
from isic.images.jpeg import fault
from isic.images.packfile import OK
from isic.index.integrity import image_facts

EOI = b"\xff\xd9"
Damage = Callable[[bytes, np.random.Generator], bytes]


def photo(seed: int, shape: tuple[int, int] = (150, 210)) -> Image.Image:
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(seed).normal(0, 9, (*shape, 1))
    ramps = np.stack([90 + x / 2, 60 + y / 2, 190 - x / 2], -1)
    return Image.fromarray((ramps + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    """25 of several qualities, subsamplings and both orders of coefficients."""
    return [
        encoded(
            photo(i).convert("CMYK" if i % 12 == 11 else "RGB"),
            quality=(75, 90, 95)[i % 3],
            subsampling=0 if i % 12 == 11 else i % 3,
            progressive=i % 4 == 3,
        )
        for i in range(25)
    ]


def half(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: len(data) // 2] + EOI


def last_third_zeros(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: len(data) * 2 // 3] + bytes(len(data) - len(data) * 2 // 3)


def zeros_then_end(data: bytes, rng: np.random.Generator) -> bytes:
    return last_third_zeros(data, rng)[:-2] + EOI


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(len(data) * rng.uniform(0.2, 0.99))]


def overwritten(n: int) -> Damage:
    def damage(data: bytes, rng: np.random.Generator) -> bytes:
        at = int(rng.integers(data.index(b"\xff\xda") + 14, len(data) - n - 2))
        return data[:at] + rng.bytes(n) + data[at + n :]

    return damage


def taken_out(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: len(data) // 2] + data[len(data) // 2 + 512 :]


def refused(data: bytes) -> bool:
    try:
        decode(data)
    except ImageError:
        return True
    return False


@pytest.mark.parametrize("damage", [half, last_third_zeros, zeros_then_end, cut])
def test_jpegs_of_which_a_part_is_missing_are_refused(jpegs, damage):
    rng = np.random.default_rng(0)
    assert not any(refused(data) for data in jpegs)
    assert sum(refused(damage(data, rng)) for data in jpegs) == len(jpegs) == 25


@pytest.mark.parametrize("damage", [taken_out, overwritten(20), overwritten(1)])
def test_bytes_changed_are_damage_wherever_libjpeg_can_tell(jpegs, damage):
    """Some leave a valid stream of codes, which nobody can tell from another image's."""
    rng = np.random.default_rng(0)
    damaged = [damage(data, rng) for data in jpegs for _ in range(4)]
    told = [data for data in damaged if warned(data)]
    assert len(told) >= 20
    assert sum(refused(data) for data in told) >= 0.97 * len(told)


def warned(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data)
    except ValueError:
        return True
    return False


def restarting() -> bytes:
    return encoded(photo(0), restart_marker_rows=1)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_subsamplings_that_simplejpeg_does_not_know_are_examined_too(mode):
    data = encoded(photo(3, (128, 128)).convert(mode), subsampling=2)
    if mode == "RGB":  # 4:2:0 said to be 1 x 4, with as many blocks: 64 of 16 x 16, or of 8 x 32
        at = data.index(b"\xff\xc0") + 11
        data = data[:at] + b"\x14" + data[at + 1 :]
    with pytest.raises((KeyError, ValueError)):
        simplejpeg.decode_jpeg_header(data)
    assert fault(data) == ""
    assert image_facts(data)[:5] == (128, 128, len(data), "JPEG", "")
    assert "premature end" in fault(half(data, np.random.default_rng(0)))


MADE = {
    "plain": encoded(photo(0, (40, 50))),
    "progressive": encoded(photo(0, (40, 50)), progressive=True),
    "restarts": encoded(photo(0, (40, 50)), restart_marker_rows=1),
}


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("form", ["baseline", "progressive", "grey", "cmyk", "restarts", "4:4:0"])
def test_what_is_merely_unusual_is_read(form):
    data = {
        "baseline": lambda: encoded(photo(0)),
        "progressive": lambda: encoded(photo(0), progressive=True),
        "grey": lambda: encoded(photo(0).convert("L")),
        "cmyk": lambda: encoded(photo(0).convert("CMYK")),
        "restarts": restarting,
        "4:4:0": lambda: with_sampling(0x12),
    }[form]()
    before_tables = data.index(b"\xff\xdb")
    for odd in (
        data + b"what a camera appends",
        data[:2] + b"\xff\xff\xff" + data[2:],
        data[:2] + b"\0stray" + data[2:],
        data[:before_tables] + b"stray" + data[before_tables:],
        data[:-2] + b"abcd" + EOI,
        data[:-2] + bytes(300) + EOI,
        data[:before_tables]
        + segment(0xEF, b"own")
        + segment(0xFE, b"words")
        + data[before_tables:],
        data[:before_tables] + b"stray" + data[before_tables:-2] + bytes(300) + EOI,
    ):
        assert decode(odd).shape == decode(data).shape
        assert np.abs(decode(odd).astype(int) - decode(data)).max() <= 2
        assert refused(odd[:before_tables] + data[before_tables : len(data) * 2 // 3] + EOI)


def with_sampling(factors: int) -> bytes:
    """A flat image whose first component says other factors: the blocks are a grey image's."""
    data = bytearray(encoded(Image.new("RGB", (64, 64), (120, 120, 120)), subsampling="4:2:2"))
    data[data.index(b"\xff\xc0") + 11] = factors
    return bytes(data)


def test_restart_markers_out_of_order_are_damage():
    data = restarting()
    interval = data.index(b"\xff\xdd") + 5
    assert refused(data[:interval] + bytes([data[interval] * 2]) + data[interval + 1 :])
    at = data.index(b"\xff\xd3")
    assert refused(data[: at + 1] + b"\xd6" + data[at + 2 :])
    end = data.index(b"\xff\xd4")
    assert refused(data[:at] + data[end:])


def test_a_progressive_file_cut_between_scans_is_damage_of_which_libjpeg_does_not_warn():
    data = encoded(photo(1), progressive=True)
    starts = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    assert len(starts) > 5
    for start in starts[2:]:
        tables = data.rfind(b"\xff\xc4", 0, start)
        at = tables if data.find(b"\xff", tables + 1, start) < 0 else start
        assert fault(data[:at] + EOI) == ""
        with pytest.raises(ImageError, match="scans are missing"):
            decode(data[:at] + EOI)


@given(
    st.sampled_from(["plain", "progressive", "restarts"]),
    st.lists(st.tuples(st.integers(2, 5000), st.integers(0, 255)), min_size=1, max_size=5),
    st.integers(50, 6000),
)
@settings(max_examples=50)
def test_whatever_is_changed_is_read_or_refused_and_never_ends_the_reading(form, changes, size):
    data = bytearray(MADE[form])
    for at, value in changes:
        data[at % len(data)] = value
    row = convert(bytes(data[:size]), Options())
    if row.status == OK:
        assert np.array_equal(decode(row.data), decode(bytes(data[:size])))


def test_png_checksums_and_end_count():
    data = encoded(photo(0), "PNG")
    at = data.index(b"IDAT") + 500
    for bad in (data[:at] + b"\0" + data[at + 1 :], data[:-12], data[: len(data) // 2]):
        assert refused(bad)
    short = zlib.decompress(data[data.index(b"IDAT") + 4 : -16])[:-900]
    stream = b"IDAT" + zlib.compress(short)
    whole_checksums = (
        data[:33] + struct.pack(">I", len(stream) - 4) + stream
        + struct.pack(">I", zlib.crc32(stream)) + data[-12:]
    )  # fmt: skip
    assert refused(whole_checksums)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}), ("TIFF", {"compression": "jpeg"}),
        ("WEBP", {}), ("WEBP", {"lossless": True}),
    ],
)  # fmt: skip
def test_other_formats_cut_short_are_refused(form, options):
    data = encoded(photo(0), form, **options)
    assert not refused(data)
    for share in (0.3, 0.6, 0.95):
        assert refused(data[: int(len(data) * share)])
    if options or form == "WEBP":  # of uncompressed pixels zeros are black ones
        assert refused(last_third_zeros(data, np.random.default_rng(0)))


@pytest.mark.parametrize("quality", [20, 80])
def test_flat_webp_images_are_whole(quality):
    for colour in ((0, 0, 0), (255, 255, 255)):
        picture = Image.new("RGB", (900, 900), colour)
        picture.paste(photo(0), (0, 0))
        assert not refused(encoded(picture, "WEBP", quality=quality))


def test_jpeg_strips_of_a_tiff_are_looked_into():
    data = encoded(photo(0), "TIFF", compression="jpeg")
    at = data.rindex(b"\xff\xda") + 400
    rng = np.random.default_rng(1)
    found = sum(refused(data[:at] + rng.bytes(60) + data[at + 60 :]) for _ in range(20))
    assert found >= 12


def test_damage_in_a_store_is_named_by_check(tmp_path: Path, tile):
    damaged = half(tile(1, 96), np.random.default_rng(0))
    assert "premature end" in image_facts(damaged).fault
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("a", data=np.bytes_(damaged))
    assert image_facts(bytes(h5py.File(tmp_path / "a.hdf5")["a"][()])).fault


@pytest.mark.slow
def test_no_real_image_is_refused(real_root: Path) -> None:
    """Every JPEG file, HDF5 string and TFRecord image of the real samples."""
    from isic.images.tfrecord import records

    data = [path.read_bytes() for path in real_root.rglob("*.jp*g")]
    for path in real_root.rglob("*.hdf5"):
        with h5py.File(path) as file:
            data += [bytes(file[name][()]) for name in file]
    for path in real_root.rglob("*.tfrec"):
        data += [record["image"] for _, record in records(path) if "image" in record]
    faults = [facts.fault for facts in map(image_facts, data) if facts.fault]
    assert len(data) > 100
    assert faults == []
