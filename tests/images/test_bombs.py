"""Small files that would take minutes or gigabytes are refused at once, and the key is named.

Memory is Python's and NumPy's own, by tracemalloc; the decoders' is bounded by what is refused
before they are called.
"""

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from isic.errors import ConfigError
from isic.images import jpeg, png
from isic.images.decode import MAX_PIXELS, ImageError, decode
from isic.images.dicom import dicom_image, dicom_tags
from isic.images.hdf5 import Hdf5Images
from isic.images.sources import Sources, read_refs
from isic.images.tfrecord import read_record
from isic.prepare import max_pixels
from tests.images.test_damaged import encoded, photo


def refused(read: Callable[[], object], match: str, *, seconds: float = 1.0) -> None:
    """Refused with this reason, in this time, within 40 MB."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(ImageError, match=match):
            read()
        assert time.perf_counter() - start < seconds
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def flat_png(width: int, height: int) -> bytes:
    """A whole black PNG, 225 KB at 79 megapixels."""
    packer, rows = zlib.compressobj(9), []
    for _ in range(height):
        rows.append(packer.compress(bytes(3 * width + 1)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", b"".join(rows) + packer.flush()), (b"IEND", b"")
    return png.SIGNATURE + b"".join(png.chunk(*part) for part in parts)


def many_scans(n: int, side: int, *, progressive: bool) -> bytes:
    """A JPEG that repeats the first bytes of its last scan."""
    data = encoded(Image.new("RGB", (side, side), (9, 99, 200)), progressive=progressive)
    if not progressive:  # one component a scan: libjpeg then takes any number of scans
        scan = data.index(b"\xff\xda")
        data = data[:scan] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[scan + 14 :]
    pieces = [piece for _, piece in jpeg.pieces(data)]
    last = max(i for i, piece in enumerate(pieces) if piece[1] == jpeg.SOS)
    short = pieces[last][:40]
    return jpeg.SOI + b"".join(pieces[:last] + [short] * n + pieces[last + 1 :])


def test_a_png_of_79_megapixels_is_refused_by_its_header():
    data = flat_png(8900, 8900)
    assert len(data) < 300_000
    refused(lambda: decode(data), r"79.2 megapixels.*limit of 50.4 megapixels; raise data.max_meg")


@pytest.mark.parametrize("progressive", [True, False])
def test_thousands_of_scans_are_counted_not_decoded(progressive):
    data = many_scans(2000, 2600, progressive=progressive)
    refused(lambda: decode(data), r"2,0\d\d scans .* over the limit")


def test_a_header_for_show_hides_no_scans():
    """A frame and a scan that lie within a comment, before those that are decoded."""
    data = many_scans(2000, 2600, progressive=True)
    shown = b"\xff\xc0\0\x11\x08\0\x20\0\x20\x03" + bytes(9) + b"\xff\xda\0\x0c\x03" + bytes(9)
    comment = b"\xff\xfe" + (len(shown) + 2).to_bytes(2, "big") + shown
    refused(lambda: decode(data[:2] + comment + data[2:]), r"2,0\d\d scans .* over the limit")


def test_scans_behind_a_whole_one_are_never_decoded():
    """Not counted, since libjpeg stops there: the first one has every component."""
    data = encoded(Image.new("RGB", (2600, 2600), (9, 99, 200)), progressive=False)
    pieces = [piece for _, piece in jpeg.pieces(data)]
    scan = next(piece for piece in pieces if piece[1] == jpeg.SOS)
    data = data[:-2] + 2000 * scan + jpeg.EOI
    start = time.perf_counter()
    with pytest.raises(ImageError, match="damaged"):  # as it had bytes behind its scan
        decode(data)
    assert time.perf_counter() - start < 10  # 2,000 passes take a minute


def test_millions_of_segments_are_not_gone_through():
    data = encoded(photo(0))
    bomb = data[:2] + b"\xff\xfe\0\x02" * 3_000_000 + data[2:]
    refused(lambda: decode(bomb), "more than 10,000 segments")


def test_few_scans_of_a_large_image_and_many_of_a_small_one_are_read():
    assert decode(encoded(Image.new("RGB", (3000, 3000)), progressive=True)).shape[0] == 3000
    scans = sum(marker == jpeg.SOS for marker, _ in jpeg.pieces(many_scans(60, 40, progressive=1)))
    assert 60 < scans < jpeg.MAX_SCANS
    jpeg.refuse_scans(many_scans(60, 40, progressive=True), 1600)


def test_a_larger_limit_is_taken_from_the_sources(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(flat_png(30, 40))
    (image,) = read_refs(Sources(tmp_path, max_pixels=1000), ["a.png"])
    assert isinstance(image, bytes)
    with pytest.raises(ImageError, match="raise data.max_megapixels"):
        decode(image, max_pixels=1000)
    assert decode(image, max_pixels=1200).shape == (40, 30, 3)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "many", True])
def test_a_limit_that_is_none_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"data.max_megapixels: expected a number above 0"):
        max_pixels(value)
    assert max_pixels(None) == MAX_PIXELS
    assert max_pixels(0.5) == 500_000


def test_a_deflated_dicom_inflates_to_no_more_than_its_sides_say(dicom):
    sane = dicom(np.full((32, 32), 90, np.uint8), kind="MONOCHROME2")
    meta_end = 144 + int.from_bytes(sane[140:144], "little")
    for rows, zeros in ((32, 300_000_000), (20_000, 0)):
        body = dicom(np.full((32, 32), 90, np.uint8), kind="MONOCHROME2", Rows=rows, Columns=rows)
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        deflated = packer.compress(body[meta_end:])
        deflated += b"".join(packer.compress(bytes(1_000_000)) for _ in range(zeros // 1_000_000))
        data = as_deflated(sane[:meta_end]) + deflated + packer.flush()
        assert len(data) < 400_000
        refused(lambda data=data: dicom_image(data), "inflates to more than|megapixels")
        assert dicom_tags(data)["PatientID"] == "IP_1234567"


def as_deflated(head: bytes) -> bytes:
    """A DICOM file's own tags, with another transfer syntax."""
    at = head.index(b"1.2.840.10008.1.2.1") - 2
    old = int.from_bytes(head[at : at + 2], "little")
    value = DeflatedExplicitVRLittleEndian.encode()
    length = int.from_bytes(head[140:144], "little") + len(value) - old
    changed = head[:at] + len(value).to_bytes(2, "little") + value + head[at + 2 + old :]
    return changed[:140] + length.to_bytes(4, "little") + changed[144:]


def test_a_deflated_dicom_is_read(dicom):
    picture = np.random.default_rng(0).integers(0, 255, (32, 40), dtype=np.uint8)
    plain = dicom(picture, kind="MONOCHROME2")
    end = 144 + int.from_bytes(plain[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = as_deflated(plain[:end]) + packer.compress(plain[end:]) + packer.flush()
    assert np.array_equal(decode(dicom_image(data))[..., 0], picture)
    assert dicom_tags(data) == dicom_tags(plain)


def test_a_dicom_frame_is_judged_by_its_own_sides(dicom):
    frame = io.BytesIO()
    Image.new("L", (16, 16)).save(frame, "JPEG2000", no_jp2=True)
    siz = bytearray(frame.getvalue())
    siz[8:16] = struct.pack(">II", 9000, 9000)
    data = dicom(bytes(siz), kind="MONOCHROME2", syntax=JPEG2000Lossless)
    refused(lambda: dicom_image(data), "9000 x 9000 pixels .* raise data.max_megapixels")
    runs = dicom(bytes((129, 0)) * 10_000_000, kind="MONOCHROME2", syntax=RLELossless)
    with pytest.raises(ImageError, match="frame of 20,000,000 bytes"):
        dicom_image(runs)


@pytest.mark.parametrize("chunks", [None, (1 << 20,)])
def test_an_hdf5_dataset_is_judged_by_what_it_inflates_to(tmp_path: Path, chunks):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (700_000_000,), np.uint8, chunks=chunks, compression=chunks and 9)
        wide = file.create_dataset(
            "b", (10,), np.uint8, maxshape=(None,), chunks=(600_000_000,), compression=9
        )
        assert wide.chunks == (600_000_000,)
        file.create_dataset("c", data=np.bytes_(b"whole"))
    with Hdf5Images(path) as images:
        refused(lambda: images.read("a"), "dataset of 700,000,000 bytes.*data.max_megapixels")
        refused(lambda: images.read("b"), "dataset of 600,000,000 bytes")
        assert images.read("c") == b"whole"


def test_a_tfrecord_is_asked_for_no_more_than_the_file_holds(tmp_path: Path):
    size = struct.pack("<Q", 1 << 40)
    crc = google_crc32c.value(size)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    path = tmp_path / "a.tfrec"
    path.write_bytes(size + struct.pack("<I", masked) + b"\xff" * 1000)
    refused(lambda: read_record(path, 0), "truncated in the record at byte 0")


def test_a_number_without_an_end_is_no_record(tmp_path: Path):
    def framed(content: bytes) -> bytes:
        crc = google_crc32c.value(content)
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        return content + struct.pack("<I", masked)

    content = b"\xff" * 5_000_000
    path = tmp_path / "a.tfrec"
    path.write_bytes(framed(struct.pack("<Q", len(content))) + framed(content))
    refused(lambda: read_record(path, 0), "no tf.train.Example")


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path):
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(3_000_000_000)  # sparse

    def read() -> None:
        (image,) = read_refs(Sources(tmp_path), ["a.jpg"])
        assert isinstance(image, OSError)
        raise ImageError(str(image))

    refused(read, "a file of 3,000,000,000 bytes")


def test_tiles_of_a_tiff_are_judged_by_their_own_sides():
    tags = {256: 32, 257: 32, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60_000, 323: 60_000}
    entries = sorted({**tags, 324: 8, 325: 1024}.items())
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack("<2sHI", b"II", 42, 8 + 1024) + bytes(1024)
    data = head + struct.pack("<H", len(entries)) + directory + bytes(4)
    refused(lambda: decode(data), "60000 x 60000 pixels")


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_text_of_a_png_is_not_inflated_for_its_image(kind):
    words = zlib.compress(bytes(100_000_000), 1)
    body = b"name\0\0" + words if kind != b"iTXt" else b"name\0\x01\0\0\0" + words
    data = encoded(photo(0), "PNG")
    bomb = data[: png.HEADER_END] + png.chunk(kind, body) + data[png.HEADER_END :]
    start = time.perf_counter()
    tracemalloc.start()
    try:
        decode(bomb)
    except ImageError as error:
        assert "too large" in str(error)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()
    assert time.perf_counter() - start < 1


def test_a_webp_canvas_is_judged_by_its_header():
    small = encoded(Image.new("RGB", (9, 9)), "WEBP", exif=Image.Exif(), icc_profile=b"some")
    at = small.index(b"VP8X") + 12
    side = (8999).to_bytes(3, "little")
    with pytest.raises(ImageError, match="9000 x 9000 pixels|could not|cannot|not an image"):
        decode(small[:at] + side + side + small[at + 6 :])


def test_simplejpeg_is_asked_for_the_header_alone():
    data = bytearray(simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 9000, 9000)
    refused(lambda: decode(bytes(data)), "81.0 megapixels")
