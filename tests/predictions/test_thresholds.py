"""Thresholds a class: the best cut, what folding keeps, and that no fold sees its own labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic.metrics import elementwise_accuracy, macro_dice, roc_auc
from isic.metrics.classification import macro_f1_argmax
from isic.predictions.thresholds import (
    CutSearch,
    argmax_folded,
    cuts_at_half,
    fit_thresholds,
    folded,
    nested_thresholds,
)


def dice(positive: np.ndarray, said: np.ndarray) -> float:
    return float(2 * (said & positive).sum() / (said.sum() + positive.sum()))


def made(n: int = 200, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N,) and softmax probabilities (N, C) that know something of them."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, n_classes, n)
    logit = rng.normal(size=(n, n_classes))
    logit[np.arange(n), target] += 1.5
    probs = np.exp(logit)
    return target, probs / probs.sum(axis=1, keepdims=True)


def test_the_best_cut_by_hand() -> None:
    # above 0.3: 2 of 3 right and none missed, dice 0.8; above 0.4: 1 of 2, dice 0.5
    score = np.array([0.9, 0.6, 0.4, 0.3, 0.1])
    positive = np.array([True, False, True, False, False])
    assert CutSearch(positive, score).best(np.ones(5)) == pytest.approx(0.35)
    assert CutSearch(positive, score).best(np.array([5, 9, 1, 1, 1.0])) == pytest.approx(0.75)


def test_half_is_kept_where_it_decides_alike() -> None:
    score, positive = np.array([0.9, 0.8, 0.1]), np.array([True, True, False])
    assert CutSearch(positive, score).best(np.ones(3)) == 0.5
    assert CutSearch(np.array([True, False]), np.array([0.4, 0.4])).best(np.ones(2)) < 0.4


@settings(max_examples=60)
@given(st.data())
def test_no_other_cut_is_better(data) -> None:
    n = data.draw(st.integers(2, 12))
    score = np.array(data.draw(st.lists(st.integers(1, 19), min_size=n, max_size=n))) / 20
    positive = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    if not positive.any():
        return
    found = CutSearch(positive, score).best(np.ones(n))
    best = max(dice(positive, score > t) for t in np.linspace(0.001, 0.999, 499))
    assert dice(positive, score > found) == pytest.approx(best)


def test_equal_scores_fall_on_one_side() -> None:
    constant = np.full(6, 0.3)
    positive = np.array([True, False, False, False, False, True])
    assert CutSearch(positive, constant).best(np.ones(6)) < 0.3


def test_neighbouring_floats_are_parted() -> None:
    low = 0.7
    high = np.nextafter(low, 1)
    cut = CutSearch(np.array([True, False]), np.array([high, low])).best(np.ones(2))
    assert low <= cut < high


def test_a_class_of_two_keeps_half() -> None:
    target, probs = made()
    target[target == 3] = 0
    assert fit_thresholds(target, probs)[3] == 0.5
    target[:2] = 3
    assert fit_thresholds(target, probs)[3] == 0.5
    assert fit_thresholds(target, probs, fewest=1)[3] != 0.5


def test_fitted_thresholds_are_of_the_rows_and_the_seed_alone() -> None:
    target, probs = made()
    first = fit_thresholds(target, probs)
    np.testing.assert_array_equal(first, fit_thresholds(target, probs))
    assert ((first > 0) & (first < 1)).all()
    single = fit_thresholds(target, probs, n_resamples=0)
    best = [CutSearch(target == c, probs[:, c]).best(np.ones(len(target))) for c in range(4)]
    np.testing.assert_allclose(single, best)
    assert macro_dice(target, folded(probs, single)) >= macro_dice(target, folded(probs, first))


PROBS = st.floats(0, 1, allow_subnormal=False)


@given(st.lists(PROBS, min_size=1, max_size=20), st.floats(1e-6, 1 - 1e-6))
def test_folded_is_over_half_where_it_was_over_the_threshold(values, threshold) -> None:
    given_probs = np.array(values)[:, None]
    made_probs = folded(given_probs, [threshold])
    np.testing.assert_array_equal(made_probs > 0.5, given_probs > threshold)
    assert ((made_probs >= 0) & (made_probs <= 1)).all()
    order = np.argsort(given_probs[:, 0])
    assert (np.diff(made_probs[order, 0]) >= 0).all()


def test_folding_by_hand() -> None:
    np.testing.assert_allclose(
        folded([[0.1, 0.2], [0.2, 0.8], [0.6, 1.0]], [0.2, 0.6]),
        [[0.25, 1 / 6], [0.5, 0.75], [0.75, 1.0]],
    )
    assert np.isnan(folded([[np.nan, 0.2]], [0.2, 0.6])[0, 0])
    np.testing.assert_array_equal(folded([[0.3, 0.7]], [0.5, 0.5]), [[0.3, 0.7]])
    with pytest.raises(ValueError, match="inside"):
        folded([[0.3]], [1.0])


def test_folding_keeps_the_auc_of_each_class() -> None:
    target, probs = made()
    changed = folded(probs, [0.05, 0.2, 0.6, 0.9])
    for c in range(4):
        assert roc_auc(target == c, changed[:, c]) == roc_auc(target == c, probs[:, c])


@given(st.integers(0, 50))
def test_argmax_folded_has_one_class_over_half(seed) -> None:
    target, probs = made(30, seed=seed)
    probs[0], probs[1] = 0.0, 0.25  # nothing known, and a tie
    one = argmax_folded(probs)
    assert ((one > 0.5).sum(axis=1) == 1).all()
    np.testing.assert_array_equal((one > 0.5).argmax(axis=1), probs.argmax(axis=1))
    assert one.max() <= 1
    assert macro_dice(target, one) == pytest.approx(macro_f1_argmax(target, probs))


def test_argmax_folded_leaves_rows_without_an_image() -> None:
    made_probs = argmax_folded([[np.nan, np.nan], [0.2, 0.8]])
    assert np.isnan(made_probs[0]).all()
    np.testing.assert_allclose(made_probs[1], [0.1, 0.9])


def test_a_folds_own_labels_do_not_decide_it() -> None:
    target, probs = made()
    fold = np.arange(len(target)) % 4
    first = nested_thresholds(target, probs, fold)
    for k in range(4):
        other = np.where(fold == k, (target + 1) % 4, target)
        again = nested_thresholds(other, probs, fold)
        np.testing.assert_array_equal(again[fold == k], first[fold == k])
        assert (again[fold != k] != first[fold != k]).any()  # the others do see them


def test_a_folds_thresholds_are_those_of_the_other_rows() -> None:
    target, probs = made()
    fold = np.arange(len(target)) % 3
    own = fold == 1
    expected = folded(probs[own], fit_thresholds(target[~own], probs[~own]))
    np.testing.assert_array_equal(nested_thresholds(target, probs, fold)[own], expected)
    with pytest.raises(ValueError, match="two folds"):
        nested_thresholds(target, probs, np.zeros(len(target)))


def test_thresholds_on_noise_win_nothing_when_nested() -> None:
    gained, flattered = [], []
    for seed in range(10):
        target, probs = made(120, seed=seed)
        target = np.random.default_rng(seed).permutation(target)
        fold = np.arange(120) % 5
        nested = macro_dice(target, nested_thresholds(target, probs, fold))
        everything = macro_dice(target, folded(probs, np.full(4, 1e-6)))
        gained.append(nested - everything)
        flattered.append(macro_dice(target, folded(probs, fit_thresholds(target, probs))) - nested)
    assert np.mean(gained) < 0.02
    assert np.mean(flattered) > 0.02


def test_which_metrics_cut() -> None:
    from functools import partial

    assert cuts_at_half(macro_dice)
    assert cuts_at_half(partial(macro_dice))
    assert cuts_at_half(elementwise_accuracy)
    assert not cuts_at_half(macro_f1_argmax)
    assert not cuts_at_half(roc_auc)
