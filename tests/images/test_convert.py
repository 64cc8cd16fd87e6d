"""One image on its way into a pack: its size, its quality, and corrections only where asked."""

import cv2
import numpy as np
import pytest
import simplejpeg

from isic.images.convert import Options, convert
from isic.images.decode import decode, fit
from isic.images.packfile import MISSING, OK, UNREADABLE
from tests.images.test_appearance import pixels, skin, through_dermoscope


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A JPEG of 512 x 768 with detail at every scale, which sampling would alias."""
    rng = np.random.default_rng(0)
    image = skin()
    for cells in (12, 48, 192, 512):
        grain = rng.standard_normal((cells, cells)) * 12
        image = image + cv2.resize(grain, (768, 512), interpolation=cv2.INTER_CUBIC)[..., None]
    return simplejpeg.encode_jpeg(pixels(image), quality=92)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_without_options_bytes_are_kept(photo):
    assert convert(photo, Options()) == (photo, OK, "")


@pytest.mark.parametrize("side", [24, 100, 128, 200, 255, 256, 300, 511, 512, 700])
def test_the_shorter_side_is_the_one_asked_for(photo, side):
    image = decode(convert(photo, Options(resize=side)).data)
    assert image.shape[0] == side
    assert abs(image.shape[1] - 1.5 * side) <= 1


@pytest.mark.parametrize("side", [64, 100, 128, 200])
def test_reduced_decoding_is_no_worse_than_averaging_every_pixel(photo, side):
    whole = decode(photo)
    exact = cv2.resize(whole, (round(1.5 * side), side), interpolation=cv2.INTER_AREA)
    sampled = cv2.resize(whole, (round(1.5 * side), side), interpolation=cv2.INTER_LINEAR)
    ours = decode(convert(photo, Options(resize=side)).data)
    assert psnr(ours, exact) > 30
    assert psnr(ours, exact) > psnr(sampled, exact) + 4  # plain bilinear aliases


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 200), (17, 5)])
@pytest.mark.parametrize("options", [Options(resize=16), Options(pixels=16)])
def test_odd_and_tiny_images_come_out_whole(shape, options):
    png = cv2.imencode(".png", np.full((*shape, 3), 90, np.uint8))[1].tobytes()
    full = options._replace(crop_border=True, colour_constancy=True)
    for wanted in (options, full):
        row = convert(png, wanted)
        assert row.status == OK
        if wanted.pixels:
            assert len(row.data) == 16 * 16 * 3
        else:
            assert min(decode(row.data).shape[:2]) == 16


def test_a_cropped_image_is_not_enlarged_from_a_reduced_one():
    image = pixels(through_dermoscope(skin(), 0.4))
    data = simplejpeg.encode_jpeg(image, quality=95)
    pack = decode(convert(data, Options(resize=128, crop_border=True)).data)
    assert pack.shape[0] == 128 and abs(pack.shape[1] - 128) <= 8
    y, x = slice(256 - 184, 256 + 184), slice(384 - 184, 384 + 184)
    exact = cv2.resize(image[y, x], (128, 128), interpolation=cv2.INTER_AREA)
    ours = cv2.resize(pack, (128, 128))
    assert ours[0, 0].max() < 40 and ours[64, 0].min() > 60  # a tenth off, the corners stay dark
    assert psnr(ours[32:96, 32:96], exact[32:96, 32:96]) > 22


def test_corrections_reach_pixels_and_bytes_alike(photo):
    plain = fit(decode(photo, min_side=64), 64)
    row = convert(photo, Options(pixels=64, colour_constancy=True))
    corrected = np.frombuffer(row.data, np.uint8).reshape(64, 64, 3).astype(int)
    light = np.power(np.power(corrected / 255, 6).mean((0, 1)), 1 / 6)
    assert light.max() / light.min() < 1.02
    assert np.abs(corrected - plain).mean() > 5
    encoded = decode(convert(photo, Options(resize=64, colour_constancy=True)).data)
    assert np.abs(encoded.mean((0, 1)) - corrected.mean((0, 1))).max() < 3


def test_absent_and_broken_images_keep_their_place():
    assert convert(None, Options()) == (b"", MISSING, "no such image in the archive")
    assert convert(OSError("gone"), Options(pixels=4)) == (bytes(48), UNREADABLE, "gone")
    assert convert(b"<html>", Options(resize=4)).status == UNREADABLE


@pytest.mark.parametrize(
    "options",
    [
        Options(resize=8, pixels=8),
        Options(crop_border=True),
        Options(colour_constancy=True),
        Options(crop_border=True, colour_constancy=True),
    ],
)
def test_what_would_encode_originals_unasked_is_refused(options):
    with pytest.raises(ValueError, match="expected resize or pixels"):
        options.checked()
    assert Options(resize=8, crop_border=True).checked()
