"""Values of 12 bits in 16 are as bright as they were meant; what is a guess says so."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from isic.images import png
from isic.images.convert import Options, convert
from isic.images.decode import decode, examine
from isic.images.dicom import dicom_image
from isic.images.packfile import OK
from tests.images.test_damaged import encoded


def ramp(bits: int, shape: tuple[int, int] = (40, 64)) -> np.ndarray:
    """Grey values from 0 to the highest of `bits`, uint16."""
    return np.linspace(0, 2**bits - 1, shape[0] * shape[1]).astype(np.uint16).reshape(shape)


def written(values: np.ndarray, form: str) -> bytes:
    """By OpenCV, which writes 16 bits of grey and colour."""
    done, data = cv2.imencode(f".{form}", values if values.ndim == 2 else values[..., ::-1])
    assert done
    return data.tobytes()


def with_sbit(data: bytes, *bits: int) -> bytes:
    return data[: png.HEADER_END] + png.chunk(b"sBIT", bytes(bits)) + data[png.HEADER_END :]


def with_tag(values: np.ndarray, tag: int, value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", tiffinfo={tag: value})
    return file.getvalue()


@pytest.mark.parametrize("form", ["png", "tiff"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("colour", [False, True])
def test_the_least_depth_that_holds_the_values_is_taken_and_noted(form, bits, colour):
    grey = ramp(bits)
    values = np.stack([grey, grey[::-1], grey // 2], -1) if colour else grey
    pixels, _, _, note = examine(written(values, form))
    expected = values if colour else np.repeat(values[..., None], 3, -1)
    assert np.array_equal(pixels, expected >> (bits - 8))
    assert (f"read as {bits} bits" in note) == (bits < 16)


def test_alpha_is_no_reason_to_take_colours_for_16_bits():
    grey = ramp(12)
    alpha = np.full_like(grey, 65535)
    data = written(np.stack([grey, grey, grey], -1), "png")
    bgra = cv2.imencode(".png", np.stack([grey, grey, grey, alpha], -1))[1].tobytes()
    assert np.array_equal(decode(bgra), decode(data))
    assert decode(bgra).max() == 255


@pytest.mark.parametrize("kind", [0, 2, 4, 6])  # grey, colour, and both with alpha
def test_every_kind_of_16_bit_png_is_scaled_by_its_colours_alone(kind):
    grey = ramp(12)
    planes = [grey, grey // 2, grey // 3][: 1 if kind in (0, 4) else 3]
    if kind in (4, 6):
        planes.append(np.full_like(grey, 65535))
    rows = np.stack(planes, -1).astype(">u2")
    header = struct.pack(">IIBBBBB", 64, 40, 16, kind, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = (b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")
    data = png.SIGNATURE + b"".join(png.chunk(*part) for part in parts)
    expected = [plane >> 4 for plane in planes[: 3 if kind in (2, 6) else 1]]
    pixels, _, _, note = examine(data)
    assert np.array_equal(pixels, np.stack(expected * (3 // len(expected)), -1))
    assert "read as 12 bits" in note
    assert np.array_equal(decode(convert(data, Options()).data), pixels)


def test_png_says_its_depth_at_either_end():
    grey = ramp(12)
    half = grey // 2  # so that the rule alone would say 11
    for values in (grey, half):
        lower, _, _, note = examine(with_sbit(written(values, "png"), 12))
        assert np.array_equal(lower[..., 0], values >> 4)
        assert note == ""
        for upper in (values << 4, values << 4 | values >> 8):  # by zeros, or as the standard asks
            shifted, _, _, note = examine(with_sbit(written(upper, "png"), 12))
            assert np.array_equal(shifted, lower)
            assert note == ""


@pytest.mark.parametrize("tag", [281, 341])
def test_tiff_says_its_white(tag):
    values = (np.linspace(0, 1, 1024) * 1000).astype(np.uint16).reshape(32, 32)
    pixels, _, _, note = examine(with_tag(values, tag, 1000))
    assert pixels.max() == 255
    assert np.abs(pixels[..., 0] - values / 1000 * 255).max() <= 1
    assert note == ""
    # a white below the values is not believed
    assert "read as 10 bits" in examine(with_tag(values, tag, 500)).note


def test_dicom_of_12_bits_is_declared_and_of_16_holding_12_noted(dicom):
    grey = ramp(12)
    for values in (grey, grey // 8):
        said = dicom(values, kind="MONOCHROME2", BitsStored=12, HighBit=11)
        pixels, _, _, note = examine(dicom_image(said))
        assert np.abs(pixels[..., 0] - values / 4095 * 255).max() <= 1
        assert note == ""
    unsaid = dicom(grey, kind="MONOCHROME2", BitsStored=16, HighBit=15)
    pixels, _, _, note = examine(dicom_image(unsaid))
    assert pixels.max() == 255
    assert "read as 12 bits" in note


def test_dicom_whose_white_is_zero_is_no_brighter_for_an_unsaid_depth(dicom):
    grey = ramp(12)
    file = dicom(grey, kind="MONOCHROME1", BitsStored=16, HighBit=15)
    pixels, _, _, note = examine(dicom_image(file))
    assert np.array_equal(pixels[..., 0], (4095 - grey) >> 4)
    assert "read as 12 bits" in note


def test_the_note_stands_in_the_pack_beside_the_pixels():
    data = written(ramp(12), "png")
    for options in (Options(), Options(pixels=16), Options(resize=16)):
        row = convert(data, options)
        assert row.status == OK
        assert "read as 12 bits" in row.reason


def test_a_black_image_stays_black():
    assert decode(written(np.zeros((8, 8), np.uint16), "png")).max() == 0
    assert decode(written(np.zeros((8, 8, 3), np.uint16), "png")).max() == 0


def colour_tiff(values: np.ndarray, *, white: int = 0, orientation: int = 1) -> bytes:
    """Uncompressed 16-bit RGB (H, W, 3), which Pillow does not write."""
    height, width, _ = values.shape
    pixels = values.astype("<u2").tobytes()
    entries = {
        256: width, 257: height, 259: 1, 262: 2, 277: 3, 278: height, 279: len(pixels),
        274: orientation, 258: 8, 281: 14, 273: 20,  # the last: where three depths, whites lie
    }  # fmt: skip
    if not white:
        del entries[281]
    directory = struct.pack("<H", len(entries))
    for tag, value in sorted(entries.items()):
        kind, count = (3, 3) if tag in (258, 281) else (4, 1)
        directory += struct.pack("<HHII", tag, kind, count, value)
    head = struct.pack("<2sHI6H", b"II", 42, 20 + len(pixels), 16, 16, 16, *[white] * 3)
    return head + pixels + directory + bytes(4)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_colour_tiff_says_its_white_too_and_comes_out_upright(orientation):
    grey = (np.linspace(0, 1, 1200) * 30000).astype(np.uint16).reshape(30, 40)
    colour = np.stack([grey, grey // 2, grey // 3], -1)
    pixels, _, _, note = examine(colour_tiff(colour, white=30000, orientation=orientation))
    assert pixels.max() == 255
    assert note == ""
    eight = Image.fromarray((colour * 255.0 / 30000).astype(np.uint8))
    upright = decode(encoded(eight, "TIFF", tiffinfo={274: orientation}))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= 1
    assert examine(colour_tiff(colour)).pixels.max() == 30000 >> 8


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "L"])
def test_other_modes_are_as_pillow_reads_them(mode):
    y, x = np.mgrid[:32, :40]
    picture = Image.fromarray(np.stack([x * 6, y * 7, 200 - x], -1).astype(np.uint8))
    data = encoded(picture.convert("RGBA").convert(mode), "PNG")
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_cmyk_and_ycck_with_adobes_segment_come_out_as_seen():
    y, x = np.mgrid[:32, :40]
    picture = Image.fromarray(np.stack([120 + x, y * 4, 200 - x], -1).astype(np.uint8))
    data = encoded(picture.convert("CMYK"), quality=95)
    assert np.abs(decode(data).astype(int) - np.asarray(picture)).mean() < 4
    slow = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(decode(data), np.asarray(slow))
