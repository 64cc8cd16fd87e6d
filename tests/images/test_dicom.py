"""What leaves a DICOM is its image, in the right colours, and the tags that are allowed."""

import io
from contextlib import suppress

import numpy as np
import pydicom
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import compress
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from isic.images.decode import ImageError, decode
from isic.images.dicom import ALLOWED, dicom_image, dicom_tags

SECRETS = (b"Ackermann", b"Wilhelmine", b"19341107", b"IP_1234567")


@pytest.fixture
def picture() -> np.ndarray:
    """Strong colours, which a wrong colour space would turn over: uint8 (40, 48, 3)."""
    y, x = np.mgrid[:40, :48]
    return np.stack([200 + x, 60 + y, 40 + x // 2], -1).astype(np.uint8)


def grey_png(data: bytes) -> np.ndarray:
    assert data.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_jpeg_frame_comes_out_as_it_is_and_in_its_colours(dicom, picture):
    frame = simplejpeg.encode_jpeg(picture, quality=95, colorsubsampling="422")
    image = dicom_image(dicom(frame, shape=(40, 48)))
    assert image.rstrip(b"\0") == frame.rstrip(b"\0")
    assert np.abs(decode(image).astype(int) - picture).mean() < 3


def test_a_frame_in_several_fragments_is_put_together(dicom, picture):
    frame = simplejpeg.encode_jpeg(picture)
    file = pydicom.dcmread(io.BytesIO(dicom(frame, shape=(40, 48))))
    file.PixelData = encapsulate([frame], fragments_per_frame=3)
    written = io.BytesIO()
    file.save_as(written)
    assert dicom_image(written.getvalue()).rstrip(b"\0") == frame.rstrip(b"\0")


def test_a_frame_stored_as_rgb_without_a_marker_is_not_taken_for_ycbcr(dicom, picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95, subsampling=0, keep_rgb=True)
    frame = bytearray(file.getvalue())
    first, scan = frame.index(b"\xff\xc0") + 10, frame.index(b"\xff\xda") + 5
    for i in range(3):  # component ids 1, 2, 3 instead of R, G, B: nothing says RGB any more
        frame[first + 3 * i] = frame[scan + 2 * i] = i + 1
    for marker in (b"\xff\xe0", b"\xff\xee"):
        if (at := frame.find(marker)) >= 0:
            del frame[at : at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")]
    assert np.abs(decode(bytes(frame)).astype(int) - picture).mean() > 20
    image = dicom_image(dicom(bytes(frame), kind="RGB", shape=(40, 48)))
    assert np.abs(decode(image).astype(int) - picture).mean() < 3


def test_raw_rgb_comes_out_exactly(dicom, picture):
    assert np.array_equal(decode(dicom_image(dicom(picture, kind="RGB"))), picture)


def test_raw_ybr_becomes_rgb(dicom, picture):
    ybr = np.asarray(Image.fromarray(picture).convert("YCbCr"))
    image = decode(dicom_image(dicom(ybr, kind="YBR_FULL")))
    assert np.abs(image.astype(int) - picture).max() <= 3


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_other_lossless_syntaxes_come_out_exactly(dicom, picture, syntax):
    file = pydicom.dcmread(io.BytesIO(dicom(picture, kind="RGB")))
    if syntax == RLELossless:
        compress(file, syntax)
    else:
        encoded = io.BytesIO()
        Image.fromarray(picture).save(encoded, "JPEG2000", no_jp2=True, mct=0)
        file.PixelData = encapsulate([encoded.getvalue()])
        file["PixelData"].VR = "OB"
        file.file_meta.TransferSyntaxUID = syntax
    written = io.BytesIO()
    file.save_as(written)
    assert np.array_equal(decode(dicom_image(written.getvalue())), picture)


@pytest.mark.parametrize(("bits", "kind"), [(8, "2"), (8, "1"), (16, "2"), (16, "1"), (12, "2")])
def test_grey_of_every_depth_keeps_it(dicom, bits, kind):
    stored = 16 if bits > 8 else 8
    grey = np.linspace(0, 2**bits - 1, 40 * 48).reshape(40, 48).astype(f"u{stored // 8}")
    file = dicom(grey, kind=f"MONOCHROME{kind}", BitsStored=bits, HighBit=bits - 1)
    got = grey_png(dicom_image(file)).astype(int)
    meant = grey.astype(int) if kind == "2" else 2**bits - 1 - grey.astype(int)
    assert np.array_equal(got, meant * (2**stored - 1) // (2**bits - 1))
    rgb = decode(dicom_image(file))
    assert np.abs(rgb[..., 0] - meant / (2**bits - 1) * 255).max() <= 1


def test_signed_grey_begins_at_black(dicom):
    grey = np.arange(-(2**15), 2**15, 128, np.int16).reshape(16, 32)
    image = grey_png(dicom_image(dicom(grey, kind="MONOCHROME2", PixelRepresentation=1)))
    assert np.array_equal(image.astype(int), grey.astype(int) + 2**15)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no pixels", "without pixel data"),
        ("cut", "cut off|cannot be read"),
        ("html", "not a DICOM"),
        ("empty", "not a DICOM|cut off"),
        ("jpeg", "not a DICOM"),
        ("frames", "3 frames"),
        ("bomb", "over the limit"),
        ("syntax", "cannot be read"),
        ("short", "cannot be read"),
    ],
)
def test_what_holds_no_whole_image_is_refused_with_the_reason(dicom, picture, fault, reason):
    frame = simplejpeg.encode_jpeg(picture)
    whole = dicom(frame, shape=(40, 48))
    data = {
        "no pixels": lambda: dicom(None, syntax=ExplicitVRLittleEndian),
        "cut": lambda: whole[: len(whole) - len(frame) // 2],
        "html": lambda: b"<html>" * 100,
        "empty": lambda: b"",
        "jpeg": lambda: frame,
        "frames": lambda: dicom(frame, NumberOfFrames=3),
        "bomb": lambda: dicom(frame, shape=(20_000, 20_000)),
        "syntax": lambda: dicom(frame, syntax="1.2.840.10008.1.2.4.80"),
        "short": lambda: dicom(picture, kind="RGB", Rows=50),
    }[fault]()
    with pytest.raises(ImageError, match=reason):
        dicom_image(data)


def test_tags_are_those_allowed_and_no_other(dicom, tmp_path):
    data = dicom(None, syntax=ExplicitVRLittleEndian, StudyDescription="Ackermann, seen in May")
    path = tmp_path / "a.dcm"
    path.write_bytes(data)
    tags = dicom_tags(path)
    assert tags == dicom_tags(data)
    assert tags == {
        "PatientID": "IP_1234567", "PatientSex": "F", "PatientAge": 45.0,
        "BodyPartExamined": "head/neck", "Rows": 32, "Columns": 32,
        "PhotometricInterpretation": "YBR_FULL_422",
    }  # fmt: skip
    assert not {"PatientName", "PatientBirthDate", "StudyDescription"} & set(ALLOWED)


@pytest.mark.parametrize(
    ("age", "years"),
    [("045Y", 45), ("000Y", 0), ("018M", 1.5), ("026W", 0.498), ("073D", 0.2), ("45", 45)],
)
def test_ages_are_years(dicom, age, years):
    assert dicom_tags(dicom(None, PatientAge=age))["PatientAge"] == pytest.approx(years, abs=1e-3)


def test_absent_tags_are_absent_and_odd_ages_are_named(dicom):
    assert "PatientAge" not in dicom_tags(dicom(None, PatientAge=""))
    with pytest.raises(ImageError, match="such as 045Y, got 'old'"):
        dicom_tags(dicom(None, PatientAge="old"))
    with pytest.raises(ImageError, match="not a DICOM"):
        dicom_tags(b"\0" * 200)


def test_no_tag_is_left_in_the_image(dicom, picture):
    for file in (
        dicom(simplejpeg.encode_jpeg(picture), shape=(40, 48)),
        dicom(picture, kind="RGB"),
    ):
        assert any(secret in file for secret in SECRETS)
        assert not any(secret in dicom_image(file) for secret in SECRETS)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(140, 900), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_tags_are_refused_and_end_nothing(dicom, changes):
    data = bytearray(dicom(np.zeros((8, 8, 3), np.uint8), kind="RGB"))
    for at, value in changes:
        if at < len(data):
            data[at] = value
    for read in (dicom_image, dicom_tags):
        with suppress(ImageError, OSError):
            read(bytes(data))
