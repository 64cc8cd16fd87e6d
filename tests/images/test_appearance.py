"""Borders go where a dermoscope left them and nowhere else; colours become those of white light."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.images.appearance import MIN_KEPT, crop_border, shades_of_gray
from isic.images.decode import decode

NOISE = np.random.default_rng(0).normal(0, 4, (512, 768, 1))


def skin(height: int = 512, width: int = 768, level: tuple[int, int, int] = (205, 150, 130)):
    """Noisy skin with a dark lesion off the centre: float (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    lesion = np.hypot(y - 0.45 * height, x - 0.55 * width) < 0.15 * min(height, width)
    return np.where(lesion[..., None], (60, 35, 30), level) + NOISE[:height, :width]


def through_dermoscope(image, radius: float, *, centre=(0.5, 0.5), black: float = 6.0):
    """The image inside a circle of `radius` (shares of the height), blackish outside."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    away = np.hypot(y - centre[0] * height, x - centre[1] * width)
    inside = 1 / (1 + np.exp(away - radius * height))
    return (image * inside[..., None] + black * (1 - inside[..., None])).clip(0, 255)


def pixels(image) -> np.ndarray:
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(512, 768), (512, 512), (500, 333), (40, 60)])
def test_without_a_border_nothing_changes(shape):
    image = pixels(skin(*shape))
    assert crop_border(image) is image


@pytest.mark.parametrize("radius", [0.35, 0.42, 0.48])
@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.5, 0.42)])
@pytest.mark.parametrize("black", [0, 14])
def test_the_box_is_that_of_the_round_view_less_a_tenth(radius, centre, black):
    image = pixels(through_dermoscope(skin(), radius, centre=centre, black=black))
    cropped = crop_border(image)
    side = 2 * 0.9 * radius * 512
    assert cropped.shape[0] == pytest.approx(side, abs=14)
    assert cropped.shape[1] == pytest.approx(side, abs=14)
    top = round((centre[0] - 0.9 * radius) * 512)
    assert any(np.array_equal(cropped[0], image[y, x : x + cropped.shape[1]])
               for y in range(top - 8, top + 9) for x in range(768 - cropped.shape[1]))  # fmt: skip


def test_a_view_cut_off_above_and_below_is_cropped_at_the_sides_alone():
    image = pixels(through_dermoscope(skin(), 0.6))
    cropped = crop_border(image)
    assert cropped.shape[0] == 512
    assert 0.9 < cropped.shape[1] / (2 * 0.6 * 512) < 0.97


@pytest.mark.parametrize(
    "image",
    [
        skin(level=(12, 8, 6)),  # all dark
        np.zeros((64, 64, 3)),
        np.full((64, 64, 3), 255.0),
        through_dermoscope(skin(), 0.12),  # a bright spot in the dark is no view
        np.where(np.mgrid[:512, :768][1][..., None] < 250, 5, skin()),  # a dark side
        np.where(np.mgrid[:512, :768][0][..., None] < 120, 5, skin()),  # a dark strip above
        np.where(np.hypot(*(np.mgrid[:512, :768] - 100))[..., None] < 300, 15, skin()),  # a lesion
    ],
    ids=["dark", "black", "white", "spot", "side", "strip", "corner lesion"],
)
def test_what_is_no_dermoscopes_border_stays(image):
    assert crop_border(pixels(image)).shape == image.shape


def test_a_ruler_or_a_date_in_the_border_does_not_keep_it():
    image = through_dermoscope(skin(), 0.45)
    image[480:488, 20:90:3] = 255
    image[10:14, 700:760] = (255, 160, 0)
    assert crop_border(pixels(image)).shape[1] < 450


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_never_less_than_the_share_that_is_kept(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[:: 1 + seed % 5] = 0
    cropped = crop_border(image)
    assert cropped.shape[0] >= round(MIN_KEPT * height)
    assert cropped.shape[1] >= round(MIN_KEPT * width)


def slow_shades(image: np.ndarray, norm: int = 6) -> np.ndarray:
    """The formula as published, pixel by pixel in floating point."""
    light = np.power(np.power(image.astype(float), norm).mean((0, 1)), 1 / norm)
    light /= np.sqrt((light**2).sum())
    return np.rint((image / (light * np.sqrt(3))).clip(0, 255)).astype(np.uint8)


@pytest.mark.parametrize("norm", [1, 6])
def test_shades_of_gray_is_the_published_formula(norm):
    image = pixels(skin(64, 96))
    assert (
        np.abs(shades_of_gray(image, norm=norm).astype(int) - slow_shades(image, norm)).max() <= 1
    )


def test_the_colour_of_the_light_is_taken_out():
    scene = skin(64, 96, level=(140, 140, 140)) * 0.8
    under = [pixels(scene * light) for light in ((1.2, 1.0, 0.7), (0.9, 1.0, 1.1), (1, 1, 1))]
    corrected = [shades_of_gray(image).astype(int) for image in under]
    for image, plain in zip(corrected, under, strict=True):
        p_norm = np.power(np.power(image / 255, 6).mean((0, 1)), 1 / 6)
        assert p_norm.max() / p_norm.min() < 1.02  # grey light now, whatever it was
        assert image.shape == plain.shape


def test_black_and_one_coloured_images_stay():
    for image in (
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8) + np.uint8([9, 0, 7]),
    ):
        assert shades_of_gray(image) is image


def test_a_black_border_does_not_change_the_estimate():
    bare, framed = pixels(skin(64, 96)), np.zeros((104, 136, 3), np.uint8)
    framed[20:84, 20:116] = bare
    inside = shades_of_gray(framed)[20:84, 20:116]
    assert np.abs(inside.astype(int) - shades_of_gray(bare)).max() <= 1


def test_real_images_without_a_border_stay(real_root):
    folder = real_root / "isic2019" / "ISIC_2019_Training_Input"
    files = sorted(folder.rglob("*.jpg"))[:60]
    images = [decode(path.read_bytes()) for path in files]
    assert sum(crop_border(image).shape != image.shape for image in images) <= 2
