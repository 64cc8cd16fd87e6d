"""Every format becomes RGB as Pillow reads it; whatever is not whole is refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

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


def test_a_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr("isic.images.decode.MAX_PIXELS", 1000)
    big = Image.new("RGB", (40, 40))
    for form in ("JPEG", "PNG"):
        with pytest.raises(ImageError, match="40 x 40 pixels, over the limit"):
            decode(encoded(big, form))


def test_a_400_megapixel_png_is_refused():
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc + b"\0\0\0\0IDAT"
    with pytest.raises(ImageError, match=f"limit of {MAX_PIXELS:,}"):
        decode(data)


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
