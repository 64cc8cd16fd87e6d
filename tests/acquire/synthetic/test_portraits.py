"""Pictures of the classes: any frame, and a signal that a classifier finds, but not all of it."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from isic.acquire.synthetic.looks import LOOKS, draw_lesions, draw_skins
from isic.acquire.synthetic.portraits import (
    CLOSE_UP,
    DERMATOSCOPE,
    Camera,
    draw_photographs,
    frame_sizes,
    jpegs,
    photograph,
)
from isic.acquire.synthetic.tiles import make_bank
from isic.images.decode import decode


def pictures(names: list[str], *, side: int, camera: Camera = DERMATOSCOPE) -> np.ndarray:
    rng = np.random.default_rng(0)
    lesions = draw_lesions(rng, np.array(names), draw_skins(rng, len(names)))
    frame = photograph(rng, lesions, np.full((len(names), 2), side), camera)
    return np.stack([decode(data) for data in jpegs(frame, make_bank(0))])


@pytest.mark.parametrize("size", [(24, 24), (600, 450), (300, 700), (1024, 1024)])
def test_frames_of_any_shape(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    lesions = draw_lesions(rng, np.array(list(LOOKS)), draw_skins(rng, len(LOOKS)))
    frame = photograph(rng, lesions, np.tile(size, (len(LOOKS), 1)), DERMATOSCOPE).iloc[:2]
    frame[["glare", "pen"]] = 2
    for image in draw_photographs(frame, make_bank(0)):
        assert image.shape == (size[1], size[0], 3)
        assert image.dtype == np.uint8
        assert 5 < image.std() < 120


def test_sizes() -> None:
    native = np.array([[60, 40], [50, 50]])
    rng = np.random.default_rng
    assert frame_sizes(rng(0), native, None).tolist() == native.tolist()
    assert frame_sizes(rng(0), native, 32).tolist() == [[32, 32], [32, 32]]
    drawn = frame_sizes(rng(0), np.tile(native, (50, 1)), (30, 90))
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert 30 <= drawn.min() < drawn.max() <= 90


def test_a_lesion_keeps_its_look_from_picture_to_picture() -> None:
    rng = np.random.default_rng(0)
    lesions = draw_lesions(rng, np.repeat("VASC", 2), draw_skins(rng, 2))
    twice = lesions.iloc[[0, 0, 1]]
    frame = photograph(rng, twice, np.full((3, 2), 32), DERMATOSCOPE)
    kept = ["lesion_L", "lesion_A", "pigment_R", "level", "variant", "skin"]
    assert frame.loc[0, kept].tolist() == frame.loc[1, kept].tolist()
    assert frame.loc[0, "angle"] != frame.loc[1, "angle"]


def features(images: np.ndarray) -> np.ndarray:
    pixels = images.astype(float)
    low, high = np.quantile(pixels, [0.05, 0.95], axis=(1, 2))
    mean, std = pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))
    centre = pixels[:, 12:20, 12:20].mean(axis=(1, 2))
    return np.hstack([low, high, mean, std, centre])


@pytest.mark.parametrize(("camera", "least"), [(DERMATOSCOPE, 0.45), (CLOSE_UP, 0.35)])
def test_classes_can_be_told_apart_but_not_all(camera: Camera, least: float) -> None:
    names = sorted(LOOKS)[:9] * 100
    images = pictures(names, side=32, camera=camera)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    said = cross_val_predict(model, features(images), names, cv=3)
    assert least < balanced_accuracy_score(names, said) < 0.95
