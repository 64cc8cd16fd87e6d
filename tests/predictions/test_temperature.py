"""A temperature: undone where it was put in, ranks kept, fitted without a fold's own labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.metrics import expected_calibration_error
from isic.predictions.temperature import (
    calibration_report,
    fit_temperature,
    negative_log_likelihood,
    of_softmax,
    tempered,
)
from tests.predictions.test_thresholds import made

N = 4000


def softmax(logit: np.ndarray) -> np.ndarray:
    raised = np.exp(logit - logit.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def true_to_their_word(sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from a softmax, and probabilities of `sharpness` times its logits."""
    rng = np.random.default_rng(0)
    logit = 2 * rng.normal(size=(N, 3))
    target = (softmax(logit).cumsum(axis=1) < rng.random(N)[:, None]).sum(axis=1)
    return target, softmax(sharpness * logit)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(sharpness) -> None:
    target, probs = true_to_their_word(sharpness)
    found = fit_temperature(target, probs, softmax=True)
    assert found == pytest.approx(sharpness, rel=0.08)
    better = tempered(probs, found, softmax=True)
    assert expected_calibration_error(target, better) < 0.03


def test_of_sigmoids_too() -> None:
    rng = np.random.default_rng(1)
    logit = 2 * rng.normal(size=N)
    target = (rng.random(N) < 1 / (1 + np.exp(-logit))).astype(int)
    right = 1 / (1 + np.exp(-2.5 * logit))
    other = np.full(N, 0.5)  # a class that nothing says anything of
    two = np.stack([1 - right, right], axis=1)
    assert fit_temperature(target, two, softmax=True) == pytest.approx(2.5, rel=0.1)
    three = np.stack([1 - right, right, other], axis=1)
    assert fit_temperature(target, three, softmax=False) == pytest.approx(2.5, rel=0.1)


def test_it_is_the_softmax_of_divided_logits() -> None:
    logit = np.random.default_rng(2).normal(size=(20, 5))
    np.testing.assert_allclose(
        tempered(softmax(logit), 1.7, softmax=True), softmax(logit / 1.7), rtol=1e-12
    )
    sigmoid = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(
        tempered(sigmoid, 1.7, softmax=False), 1 / (1 + np.exp(-logit / 1.7)), rtol=1e-12
    )


def test_two_sigmoid_columns_are_a_softmax_of_two() -> None:
    p = np.random.default_rng(3).random((30, 1))
    two = np.concatenate([1 - p, p], axis=1)
    assert of_softmax(two)
    np.testing.assert_allclose(
        tempered(two, 0.6, softmax=True)[:, 1:], tempered(p, 0.6, softmax=False), rtol=1e-9
    )


@given(st.floats(0.05, 20), st.integers(0, 20))
def test_ranks_stay(temperature, seed) -> None:
    _, probs = made(20, seed=seed)
    for soft in (True, False):
        changed = tempered(probs, temperature, softmax=soft)
        axis = 1 if soft else 0  # a row's classes; a class's rows
        order = np.argsort(probs, axis=axis)
        assert (np.diff(np.take_along_axis(changed, order, axis), axis=axis) >= 0).all()
        assert ((changed >= 0) & (changed <= 1)).all()


def test_ends_and_gaps_stay() -> None:
    given_probs = np.array([[0.0, 1.0], [np.nan, np.nan], [0.5, 0.5]])
    for soft in (True, False):
        changed = tempered(given_probs, 3.0, softmax=soft)
        np.testing.assert_array_equal(changed[[0, 2]], given_probs[[0, 2]])
        assert np.isnan(changed[1]).all()
    with pytest.raises(ValueError, match="above 0"):
        tempered(given_probs, 0.0, softmax=True)


def test_which_rows_are_of_a_softmax() -> None:
    _, probs = made()
    assert of_softmax(np.concatenate([probs, np.full((1, 4), np.nan)]))
    assert not of_softmax(probs * 0.9)


def test_likelihood_by_hand() -> None:
    probs = [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]
    found = negative_log_likelihood([0, 1], probs, softmax=True)
    assert found == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
    cells = np.log([0.5, 0.75, 0.75, 0.9, 0.8, 0.9]).sum()
    assert negative_log_likelihood([0, 1], probs, softmax=False) == pytest.approx(-cells / 2)


def test_the_report_is_nested() -> None:
    target, probs = true_to_their_word(3.0)
    target, probs, fold = target[:600], probs[:600], np.arange(600) % 3
    report = calibration_report(target, probs, fold)
    assert report["nll_nested_temperature"] < report["nll"]
    scaled = np.empty_like(probs)
    for k in range(3):
        own = fold == k
        t = fit_temperature(target[~own], probs[~own], softmax=True)
        scaled[own] = tempered(probs[own], t, softmax=True)
    assert report["nll_nested_temperature"] == negative_log_likelihood(target, scaled, softmax=True)
    assert report["ece_nested_temperature"] == expected_calibration_error(target, scaled)
    assert report["temperature"] == fit_temperature(target, probs, softmax=True)
