"""The fast jitter against albumentations, flips and warps against numpy, draws by their range."""

import albumentations
import cv2
import numpy as np
import pytest
from albumentations.pytorch import ToTensorV2

from isic.data.colour import color_matrix
from isic.data.transforms import AlbumentationsPipeline, FastAugment, Resize, flip
from isic.images.decode import fit

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def skin(seed: int = 0, side: int = 48) -> np.ndarray:
    """A tile with skin's colours: a light ground, a brown blob, some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    blob = np.exp(-((x - 0.1) ** 2 + y**2) * 30)[..., None] * (70, 80, 70)
    image = rng.uniform((180, 130, 110), (215, 170, 150)) - blob
    return (image + rng.normal(0, 4, (side, side, 1))).clip(0, 255).astype(np.uint8)


def apply(transform, image, seed=0):
    out = np.zeros((transform.size, transform.size, 3), transform.dtype)
    transform(image, out, seed)
    return out


def jittered(image, *, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0):
    """The same four factors by albumentations and by our matrix."""
    factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    slow = albumentations.ColorJitter(p=1).apply(image, **factors, hue=hue, order=[0, 1, 2, 3])
    matrix = color_matrix(**factors, hue=hue, mean=cv2.mean(image)[:3])
    return cv2.transform(image, matrix), slow


def hue_angle(image):
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[..., 0]


@pytest.mark.parametrize("seed", range(8))
def test_colour_matrix_agrees_with_albumentations(seed):
    image = skin(seed)
    rng = np.random.default_rng(seed)
    brightness, contrast, saturation = rng.uniform(0.85, 1.15, 3)
    factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    ours, slow = jittered(image, **factors)
    inside = (slow > 0).all(-1) & (slow < 255).all(-1)  # clipped once here, at each step there
    apart = np.abs(ours.astype(int) - slow)[inside]
    # One formula; albumentations truncates to whole levels after each of the three steps.
    assert apart.max() <= 3
    assert apart.mean() <= 1.5


@pytest.mark.parametrize("hue", [-0.05, -0.02, 0.02, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_hue_turns_as_in_albumentations(seed, hue):
    """By the same angle within 3 degrees: its uint8 hue comes in steps of 2, ours is smooth."""
    image = skin(seed)
    ours, slow = jittered(image, hue=hue)
    apart = (hue_angle(ours) - hue_angle(slow) + 180) % 360 - 180
    assert abs(apart.mean()) < 3
    # Brightness differs by what HSV adds: it keeps the largest channel, we keep the sum.
    assert np.abs(ours.astype(int) - slow).mean() < 10
    assert ours.sum(-1, dtype=int) == pytest.approx(image.sum(-1, dtype=int), abs=2)


def test_neutral_factors_change_nothing():
    image = skin()
    matrix = color_matrix(brightness=1, contrast=1, saturation=1, hue=0, mean=(9, 9, 9))
    assert np.array_equal(cv2.transform(image, matrix), image)


def test_colour_factors_mean_what_they_say():
    image = skin()
    mean = cv2.mean(image)[:3]
    luma = image @ np.array([0.299, 0.587, 0.114])

    def changed(**factors: float) -> np.ndarray:
        neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
        return cv2.transform(image, color_matrix(**(neutral | factors), mean=mean)).astype(float)

    assert changed(brightness=0.5) == pytest.approx(image * 0.5, abs=0.51)
    assert changed(contrast=0.0) == pytest.approx(np.full_like(image, luma.mean(), float), abs=0.6)
    assert changed(saturation=0.0) == pytest.approx(np.repeat(luma[..., None], 3, -1), abs=0.6)
    assert changed(hue=1 / 3) == pytest.approx(image[..., [2, 0, 1]], abs=0.6)
    assert changed(hue=1.0) == pytest.approx(image, abs=0.6)


@pytest.mark.parametrize("code", range(8))
def test_flips_are_the_symmetries_of_the_square(code):
    image = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    slow = image.transpose(1, 0, 2) if code & 4 else image
    slow = slow[:, ::-1] if code & 1 else slow
    slow = slow[::-1] if code & 2 else slow
    out = np.empty_like(image)
    flip(image, code, out=out)
    assert np.array_equal(out, slow)


def test_all_eight_flips_occur_equally_often():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    transform = FastAugment(4, **STILL)
    seen = [apply(transform, image, seed).tobytes() for seed in range(4000)]
    counts = np.unique(seen, return_counts=True)[1]
    assert len(counts) == 8
    assert counts.min() > 400


def test_without_transpose_four_symmetries_are_left():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    transform = FastAugment(4, transpose=False, **STILL)
    seen = {apply(transform, image, seed).tobytes() for seed in range(200)}
    assert seen == {f.tobytes() for f in (image, image[::-1], image[:, ::-1], image[::-1, ::-1])}


def test_draws_fill_their_range_evenly():
    image = np.full((4, 4, 3), 100, np.uint8)
    only = STILL | {"brightness": 0.2}
    levels = [apply(FastAugment(4, **only), image, seed)[0, 0, 0] for seed in range(3000)]
    assert (min(levels), max(levels)) == (80, 120)
    assert np.mean(levels) == pytest.approx(100, abs=1)
    assert np.std(levels) == pytest.approx(40 / np.sqrt(12), abs=0.5)


def test_without_anything_to_do_it_is_a_resize():
    image = skin(side=61)
    assert np.array_equal(
        apply(FastAugment(32, flips=False, transpose=False, **STILL), image, 5),
        apply(Resize(32), image),
    )


@pytest.mark.parametrize("side", [20, 32, 61, 239])
@pytest.mark.parametrize("options", [{}, {"rotate": 20, "scale": 0.1}, {"hue": 0.0}])
def test_same_seed_same_pixels_whatever_the_size(side, options):
    image, transform = skin(side=side), FastAugment(32, **options)
    frozen = image.copy()
    image.flags.writeable = False
    first, again, other = (apply(transform, image, s) for s in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(image, frozen)


@pytest.mark.parametrize("options", [{}, {"rotate": 20, "scale": 0.1}, STILL])
def test_a_batch_is_its_images_one_by_one(options):
    transform, seeds = FastAugment(32, **options), np.arange(9, dtype=np.uint64) * 2**60
    images = [skin(i, side=32 + 7 * i) for i in range(9)]
    out = np.zeros((9, 32, 32, 3), np.uint8)
    transform.batch(images, out, seeds)
    slow = [apply(transform, im, int(s)) for im, s in zip(images, seeds, strict=True)]
    assert np.array_equal(out, np.stack(slow))


def test_normalised_output_is_the_uint8_output_normalised():
    image = skin(2)
    raw = apply(FastAugment(32), image, 11)
    slow = (raw / 255 - MEAN) / STD
    ours = apply(FastAugment(32, normalize=(MEAN, STD)), image, 11)
    assert ours.dtype == np.float32
    assert ours == pytest.approx(slow, abs=1e-5)
    ours = apply(Resize(32, normalize=(MEAN, STD)), image)
    assert ours == pytest.approx((fit(image, 32) / 255 - MEAN) / STD, abs=1e-5)


def test_a_warp_of_nothing_is_a_resize():
    image = skin(side=48)
    barely = FastAugment(32, flips=False, transpose=False, **STILL, rotate=1e-9)
    slow = fit(image, 32).astype(int)
    # warpAffine works in 1/32 of a pixel
    assert np.abs(apply(barely, image, 1) - slow).mean() < 1.5


@pytest.mark.parametrize("side", [32, 64, 131])
def test_warping_turns_about_the_centre_by_the_angle(side):
    rotate = FastAugment(32, flips=False, transpose=False, **STILL, rotate=90)
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    image = (128 + 200 * np.stack([x, y, 0 * x], -1)).clip(0, 255).astype(np.uint8)
    angles = []
    for seed in range(60):
        out = apply(rotate, image, seed).astype(float)
        middle = out[12:20, 12:20]
        assert middle[..., :2].mean((0, 1)) == pytest.approx((128, 128), abs=3)
        down, across = np.gradient(middle[..., 0])
        angles.append(np.degrees(np.arctan2(down.mean(), across.mean())))
    assert -91 < min(angles) < -60
    assert 60 < max(angles) < 91


def test_zoom_draws_from_its_range():
    y, x = np.mgrid[:64, :64] / 63 - 0.5
    image = (128 + 200 * np.stack([x, x, x], -1)).clip(0, 255).astype(np.uint8)
    zoom = FastAugment(32, flips=False, transpose=False, **STILL, scale=0.2)
    flat = np.gradient(apply(Resize(32), image)[16, 8:24, 0].astype(float)).mean()
    slopes = [
        np.gradient(apply(zoom, image, s)[16, 8:24, 0].astype(float)).mean() for s in range(80)
    ]
    factors = flat / np.array(slopes)
    assert factors.min() == pytest.approx(0.8, abs=0.05)
    assert factors.max() == pytest.approx(1.2, abs=0.05)


def test_albumentations_pipeline_follows_its_seed():
    transforms = [albumentations.RandomCrop(32, 32), albumentations.ColorJitter(p=1)]
    pipeline = AlbumentationsPipeline(32, transforms=transforms, min_side=48)
    image = skin()
    first, again, other = (apply(pipeline, image, s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (pipeline.dtype, pipeline.min_side) == (np.uint8, 48)


def test_albumentations_transforms_draw_apart_from_each_other():
    """By its own seed both flips come together or not at all: two of four."""
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    flips = [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    pipeline = AlbumentationsPipeline(4, transforms=flips)
    seen = [apply(pipeline, image, seed).tobytes() for seed in range(400)]
    counts = np.unique(seen, return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() > 60
    compose = albumentations.Compose(flips)
    together = set()
    for seed in range(100):
        compose.set_random_seed(seed)
        together.add(compose(image=image)["image"].tobytes())
    assert len(together) == 2


def test_albumentations_normalise_makes_it_float():
    transforms = [albumentations.Resize(32, 32), albumentations.Normalize(MEAN, STD)]
    assert AlbumentationsPipeline(32, transforms=transforms).dtype == np.float32


@pytest.mark.parametrize(
    "transforms",
    [[albumentations.Resize(24, 24)], [albumentations.Resize(32, 32), ToTensorV2()]],
)
def test_albumentations_lists_that_give_no_slot_are_refused(transforms):
    with pytest.raises(ValueError, match=r"expected transforms that give an array \(32, 32, 3\)"):
        AlbumentationsPipeline(32, transforms=transforms)
