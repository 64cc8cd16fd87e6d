"""Every format becomes RGB as Pillow reads it; whatever is not whole is refused with a reason."""

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from isic.images.decode import MAX_PIXELS, ImageError, decode, fit


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    y, x = np.mgrid[:40, :56]
    return Image.fromarray(np.stack([x * 4, y * 5, 200 - x], -1).astype(np.uint8))


def test_jpeg_agrees_with_pillow(picture):
    data = encoded(picture, "JPEG", quality=95)
    slow = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(decode(data).astype(int) - slow).max() <= 2  # two builds of libjpeg-turbo


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(picture, form):
    assert np.array_equal(decode(encoded(picture, form)), np.asarray(picture))


@pytest.mark.parametrize(
    ("mode", "form"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG")],
)
def test_every_colour_mode_becomes_rgb(picture, mode, form):
    data = encoded(picture.convert(mode), form)
    image = decode(data)
    slow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert image.shape == (40, 56, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - slow).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_images_come_out_upright(picture, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    slow = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    image = decode(data)
    assert image.shape == ((56, 40, 3) if orientation in (5, 6, 7, 8) else (40, 56, 3))
    assert np.abs(image.astype(int) - slow).max() <= 3
    assert image.flags.c_contiguous
    assert np.array_equal(decode(np.frombuffer(data, np.uint8)), image)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_reduced_decoding_turns_too(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    y, x = np.mgrid[:130, :210]
    big = Image.fromarray(np.stack([x, y, 200 - y], -1).astype(np.uint8))
    data = encoded(big, "JPEG", exif=exif)
    small, whole = decode(data, min_side=30), decode(data)
    assert 30 <= min(small.shape[:2]) < 65
    assert (small.shape[0] > small.shape[1]) == (whole.shape[0] > whole.shape[1])
    corner = [im[: len(im) // 8, : im.shape[1] // 8].mean((0, 1)) for im in (small, whole)]
    assert np.abs(corner[0] - corner[1]).max() < 8


def exif_segment(tiff: bytes) -> bytes:
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def test_orientation_is_read_in_both_byte_orders_and_as_a_long(picture):
    plain = encoded(picture, "JPEG")
    for order, mark in (("<", b"II"), (">", b"MM")):
        for kind, form in ((3, "HH"), (4, "I")):
            entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + struct.pack(
                f"{order}{form}", *((6, 0) if kind == 3 else (6,))
            )
            other = struct.pack(f"{order}HHII", 0x0100, 4, 1, 99)
            tiff = mark + struct.pack(f"{order}HIH", 42, 8, 2) + other + entry
            assert decode(plain[:2] + exif_segment(tiff) + plain[2:]).shape == (56, 40, 3)


@given(st.binary(max_size=60))
def test_damaged_exif_is_no_reason_to_refuse_pixels(tiff):
    plain = encoded(Image.new("RGB", (8, 8), (90, 60, 30)), "JPEG")
    for start in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert decode(plain[:2] + exif_segment(start + tiff) + plain[2:]).shape == (8, 8, 3)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(form):
    deep = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    image = decode(encoded(Image.fromarray(deep), form))
    assert np.array_equal(image, np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, -1))
    colour = np.stack([deep, deep.T, 65535 - deep], -1)
    done, data = cv2.imencode(f".{form.lower()}", colour[..., ::-1])
    assert done
    assert np.abs(decode(data.tobytes()).astype(int) - (colour >> 8)).max() <= 1


def test_grey_without_a_known_scale_is_refused():
    deep = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(ImageError, match="32 bits"):
        decode(encoded(deep, "TIFF"))


def test_colours_survive_cmyk_and_alpha_is_left_out(picture):
    for data in (
        encoded(picture.convert("CMYK"), "JPEG", quality=95),
        encoded(Image.merge("RGBA", [*picture.split(), Image.new("L", picture.size, 40)]), "PNG"),
    ):
        assert np.abs(decode(data).astype(int) - np.asarray(picture)).mean() < 4


@pytest.mark.parametrize(("width", "height"), [(6000, 4000), (8192, 6144)])
def test_large_cameras_are_within_the_limit(width, height):
    assert width * height <= MAX_PIXELS < 51_000_000


def test_bytes_and_read_only_arrays_decode_alike(tile):
    data = tile(3)
    assert np.array_equal(decode(data), decode(np.frombuffer(data, np.uint8)))


def test_stray_bytes_between_markers_fall_back_to_pillow(tile):
    data = tile(1)
    assert decode(data[:2] + b"\xff\xff" + data[2:]).shape == (32, 32, 3)


@pytest.mark.parametrize("min_side", [1, 5, 16, 30, 63, 64, 65, 200])
def test_reduced_decoding_keeps_min_side(min_side):
    shape = (130, 210)
    data = simplejpeg.encode_jpeg(np.full((*shape, 3), 99, np.uint8))
    got = decode(data, min_side=min_side).shape[:2]
    assert min(got) >= min(min_side, *shape)
    assert abs(got[0] / got[1] - shape[0] / shape[1]) < 0.1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\0", "not an image"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8\xff\xe0 nothing more", "not an image|truncated"),
        (b"\x89PNG\r\n\x1a\n", "not an image|truncated"),
    ],
)
def test_bytes_that_are_no_image_are_refused_with_a_reason(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_truncated_images_are_refused(picture, form, share):
    rng = np.random.default_rng(0)
    noisy = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noisy, form)
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_a_bomb_is_refused_by_its_header_and_the_key_is_named(form):
    data = encoded(Image.new("RGB", (40, 50)), form)
    with pytest.raises(ImageError, match=r"40 x 50 pixels .*limit .* data.max_megapixels"):
        decode(data, max_pixels=1999)
    assert decode(data, max_pixels=2000).shape == (50, 40, 3)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc + b"\0\0\0\0IDAT"


def jpeg_header(width: int, height: int) -> bytes:
    """A small JPEG whose frame header says otherwise."""
    data = bytearray(simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("header", [png_header, jpeg_header])
@pytest.mark.parametrize("min_side", [None, 224])
def test_400_megapixels_are_refused_by_the_header_alone(header, min_side):
    tracemalloc.start()
    with pytest.raises(ImageError, match="limit of 50.4 megapixels; raise data.max_meg"):
        decode(header(20_000, 20_000), min_side=min_side)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_fit_keeps_an_image_of_the_size(tile):
    image = decode(tile(0))
    out = np.zeros_like(image)
    fit(image, 32, out=out)
    assert np.array_equal(out, image)
    assert fit(image, 32) is image


def test_fit_averages_when_it_shrinks():
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(checker[..., None], 3, -1).astype(np.uint8)
    assert np.abs(fit(image, 16).astype(int) - 127).max() <= 1  # sampling would show 0 or 255


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"GIF89a", "GIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ],
)
def test_a_known_format_that_is_not_read_is_named_under_any_file_name(head, name):
    with pytest.raises(ImageError, match=f"a {name} file, which is not read: convert it to JPEG"):
        decode(head + b"\0" * 60)
