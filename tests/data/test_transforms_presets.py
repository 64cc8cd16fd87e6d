"""The winner's stack: every transform acts, as the old one did, and follows the call's seed."""

import random
import warnings

import albumentations
import cv2
import numpy as np
import pytest

from isic.data.presets import siim_2020
from isic.data.transforms import AlbumentationsPipeline

SIDE = 128  # 8 x 8 tiles of CLAHE need 16 pixels each for its clip limits to differ


def picture(seed: int = 0, side: int = SIDE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(60, 200, (8, 8, 3)).astype(np.uint8)
    smooth = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def flat(transforms):
    """Every transform alone and always, whatever it is nested in."""
    for transform in transforms:
        if hasattr(transform, "transforms"):
            yield from flat(transform.transforms)
        else:
            transform.p = 1.0
            yield transform


SINGLE = list(flat(siim_2020()))


def runs(transforms, n, *, image=None, start=0):
    pipeline = AlbumentationsPipeline(SIDE, transforms=transforms)
    out = np.zeros((n, SIDE, SIDE, 3), np.uint8)
    for seed in range(n):
        pipeline(picture() if image is None else image, out[seed], start + seed * 2**40)
    return out


@pytest.mark.parametrize("number", range(len(SINGLE)), ids=lambda i: type(SINGLE[i]).__name__)
def test_every_transform_acts_and_follows_its_seed(number):
    alone = SINGLE[number]
    out = runs([alone], 30)
    changed = np.abs(out.astype(int) - picture()).mean((1, 2, 3))
    assert (changed > 0.3).mean() >= 0.75  # a flip may be the identity, a brightness near it
    few = {"MedianBlur": 2, "CLAHE": 3}  # kernels of 3 or 5; limits of whole counts in a tile
    least = few.get(type(alone).__name__, 8)
    assert len(np.unique(out.reshape(30, -1), axis=0)) >= least
    assert np.array_equal(out, runs([alone], 30))


def test_the_stack_is_made_without_a_warning_and_repeats():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, again = (runs(siim_2020(), 20) for _ in range(2))
    assert np.array_equal(first, again)
    assert len(np.unique(first.reshape(20, -1), axis=0)) == 20


def test_transforms_come_as_often_as_the_winner_had_them():
    compose = albumentations.Compose(siim_2020(), save_applied_params=True)
    image, times, n = picture(), dict.fromkeys(map(type, SINGLE), 0), 400
    for seed in range(n):
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        for name, _ in compose(image=image)["applied_transforms"]:
            times[getattr(albumentations, name)] += 1
    share = {kind.__name__: count / n for kind, count in times.items()}
    blurs = [share[k] for k in ("MotionBlur", "MedianBlur", "GaussianBlur", "GaussNoise")]
    assert sum(blurs) == pytest.approx(0.7, abs=0.08)
    assert blurs == pytest.approx([0.175] * 4, abs=0.07)
    assert share["RandomBrightnessContrast"] == pytest.approx(1.5, abs=0.1)
    for name, p in {"D4": 1, "CLAHE": 0.7, "HueSaturationValue": 0.5, "CoarseDropout": 0.7}.items():
        assert share[name] == pytest.approx(p, abs=0.08), name
    warps = share["OpticalDistortion"] + share["GridDistortion"]
    assert warps == pytest.approx(0.7 * 2 / 3, abs=0.08)
    assert share["Affine"] == pytest.approx(0.85 + 0.7 / 3, abs=0.1)


def test_noise_has_the_winners_variance():
    """var_limit=(5, 30) in levels of uint8: 2.0.8 takes a standard deviation in parts of 255."""
    noise = next(t for t in SINGLE if isinstance(t, albumentations.GaussNoise))
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    deviation = runs([noise], 60, image=grey).astype(float).std((1, 2, 3))
    # less by what is cut off to whole levels
    assert deviation.min() == pytest.approx(5**0.5, abs=0.5)
    assert deviation.max() == pytest.approx(30**0.5, abs=0.5)


def test_the_square_is_black_and_as_large_as_asked():
    square = next(t for t in SINGLE if isinstance(t, albumentations.CoarseDropout))
    out = runs([square], 20, image=np.full((SIDE, SIDE, 3), 200, np.uint8))
    assert set((out == 0).all(-1).sum((1, 2))) == {48 * 48}  # 0.375 of 128


def test_the_affine_spreads_as_the_old_elastic_did():
    """Matrices of three points moved by 50 pixels on a side of 768, as albumentations 0.4 drew."""
    rng = np.random.default_rng(0)
    centre, reach = np.float32([384, 384]), 256
    points = np.float32([centre + reach, [640, 128], centre - reach])
    old = np.stack(
        [
            cv2.getAffineTransform(points, points + rng.uniform(-50, 50, (3, 2)).astype(np.float32))
            for _ in range(2000)
        ]
    )
    affine = [t for t in SINGLE if isinstance(t, albumentations.Affine)][0]
    affine.set_random_state(np.random.default_rng(0), random.Random(0))
    given = {"shape": (768, 768, 3)}
    new = np.stack(
        [affine.get_params_dependent_on_data(given, {})["matrix"][:2] for _ in range(2000)]
    )
    singular = [np.linalg.svd(m[:, :, :2], compute_uv=False).std(0) for m in (old, new)]
    assert singular[1] == pytest.approx(singular[0], rel=0.35)
    moved = [(m[:, :, :2] @ centre + m[:, :, 2] - centre).std(0) for m in (old, new)]
    assert moved[1] == pytest.approx(moved[0], rel=0.35)
