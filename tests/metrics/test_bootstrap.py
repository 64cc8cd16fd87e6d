"""Fast intervals against a slow reference that copies every resample's rows."""

import logging
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from isic.metrics import METRICS, Metric, bootstrap_interval, paired_interval, roc_auc
from isic.metrics.bootstrap import _alike, bootstrap_replicates
from isic.metrics.classification import (
    balanced_accuracy,
    macro_auc,
    macro_dice,
    macro_f1_argmax,
    one_class_auc,
)
from isic.metrics.partial_auc import partial_auc
from isic.metrics.replicates import evaluator, replicate_values
from isic.metrics.resample import Draws, _gathered, tally, unit_numbers

METRIC_LIST = sorted(set(METRICS.values()), key=lambda m: m.__name__)


def patients(
    n: int, n_classes: int, seed: int, *, rare: float = 0.2, decimals: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, coarse probabilities (ties across classes) and patients of uneven sizes."""
    rng = np.random.default_rng(seed)
    odds = np.full(n_classes, rare / (n_classes - 1))
    odds[0] = 1 - rare
    target = rng.choice(n_classes, n, p=odds)
    probs = rng.dirichlet(np.full(n_classes, 0.5), n) + np.eye(n_classes)[target]
    probs = (probs / probs.sum(axis=1, keepdims=True)).round(decimals)
    group = (rng.pareto(1.0, n) * 3).astype(int) % max(2, n // 8)
    return target, probs, group


def materialised(metric, target, probs, unit, draws) -> np.ndarray:
    """Every replicate by listing its rows, a unit drawn twice twice, and calling the metric."""
    values = []
    for weight in np.concatenate(list(draws.weights())):
        times = weight[unit].astype(int)
        rows = [i for i, n in enumerate(times) for _ in range(n)]
        try:
            values.append(metric(target[rows], probs[rows]))
        except ValueError:
            values.append(np.nan)
    return np.array(values)


def class_values(metric: Metric, target: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """What a macro metric averages, (C,), by scikit-learn or by hand; NaN without rows."""
    values = np.full(probs.shape[1], np.nan)
    tied = (probs == probs.max(axis=1, keepdims=True)).sum(axis=1) > 1
    for c in range(probs.shape[1]):
        true, over, first = target == c, probs[:, c] > 0.5, probs.argmax(axis=1) == c
        if metric is macro_dice:
            size = true.sum() + over.sum()
            values[c] = 2 * (true & over).sum() / size if size else 1.0
        elif metric is macro_f1_argmax and (true | first).any():
            values[c] = f1_score(true, first, zero_division=np.nan)
        elif metric is balanced_accuracy and true.any():
            values[c] = (first & ~tied)[true].mean()
        elif metric is macro_auc and 0 < true.sum() < len(true):
            values[c] = roc_auc_score(true, probs[:, c])
    return values


def by_class(metric: Metric, target: np.ndarray, probs: np.ndarray) -> Metric:
    """A macro metric over the same classes in every resample: what it did not draw is as it was."""
    whole = class_values(metric, target, probs)
    counted, has_rows = np.isfinite(whole), np.isin(np.arange(len(whole)), target)

    def on_resample(drawn: np.ndarray, drawn_probs: np.ndarray) -> float:
        values = class_values(metric, drawn, drawn_probs)
        absent = has_rows & ~np.isin(np.arange(len(whole)), drawn)
        values = np.where(absent | ~np.isfinite(values), whole, values)
        if metric is macro_auc and len(np.unique(drawn)) < 2:
            raise ValueError("one class")
        return float(values[counted].mean())

    return on_resample


MACRO = (balanced_accuracy, macro_auc, macro_dice, macro_f1_argmax)


@pytest.mark.parametrize("metric", METRIC_LIST, ids=lambda m: m.__name__)
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(("n", "rare"), [(60, 0.2), (900, 0.05), (900, 0.6)])
def test_each_replicate_equals_the_materialised_one(metric, n_classes, n, rare) -> None:
    if metric in (partial_auc, roc_auc) and n_classes != 2:
        pytest.skip("binary metric")
    target, probs, group = patients(n, n_classes, n_classes, rare=rare)
    draws = Draws(int(unit_numbers(group, n).max()) + 1, 25, seed=7)
    unit = unit_numbers(group, n)
    by_hand = by_class(metric, target, probs) if metric in MACRO else metric
    slow = materialised(by_hand, target, probs, unit, draws)
    fast = replicate_values(metric, target, probs, unit, draws)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", MACRO, ids=lambda m: m.__name__)
@pytest.mark.parametrize("grouped", [True, False])
def test_value_and_interval_speak_of_the_same_classes(metric, grouped) -> None:
    """Two patients with the only rows of two classes: not drawn, they must not leave the mean."""
    rng = np.random.default_rng(3)
    target = np.concatenate([rng.integers(0, 2, 400), [2, 3]])
    probs = np.eye(4)[target] * 0.5 + rng.dirichlet(np.ones(4), 402) * 0.5
    probs[-2:] = [[0.9, 0.1, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]  # never found
    group = np.arange(402) if grouped else None
    value = metric(target, probs)
    low, high = bootstrap_interval(metric, target, probs, group=group)
    assert value - 0.1 < low <= value <= high < value + 0.1
    assert value == pytest.approx(np.nanmean(class_values(metric, target, probs)), abs=1e-12)
    better = probs.copy()
    better[-2:] = [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    gain, low, high = paired_interval(metric, target, better, probs, group=group)
    assert low > 0.3 and gain == pytest.approx(metric(target, better) - value)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(4, 40), st.sampled_from([0.0, 0.5, 0.8, 0.9]))
def test_cross_class_ties_count_right(seed, n, min_tpr) -> None:
    target, probs, group = patients(n, 2, seed, rare=0.4, decimals=1)
    metric = partial(partial_auc, min_tpr=min_tpr)
    unit = unit_numbers(group, n)
    draws = Draws(int(unit.max()) + 1, 8, seed)
    fast = replicate_values(metric, target, probs, unit, draws)
    np.testing.assert_allclose(
        fast, materialised(metric, target, probs, unit, draws), rtol=0, atol=1e-12
    )


def test_agrees_with_scikit_learn_on_materialised_rows() -> None:
    target, probs, group = patients(500, 2, 3, rare=0.1)
    unit = unit_numbers(group, 500)
    draws = Draws(int(unit.max()) + 1, 20, 1)
    slow = materialised(lambda t, p: roc_auc_score(t, p[:, 1]), target, probs, unit, draws)
    np.testing.assert_allclose(
        replicate_values(roc_auc, target, probs, unit, draws), slow, rtol=0, atol=1e-12
    )


def test_interval_is_the_percentiles_of_the_replicates() -> None:
    target, probs, group = patients(400, 2, 0)
    values = bootstrap_replicates(partial_auc, target, probs, group=group, n_replicates=200)
    low, high = bootstrap_interval(
        partial_auc, target, probs, group=group, n_replicates=200, level=0.9
    )
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])))
    assert low <= partial_auc(target, probs) <= high


def test_groups_may_be_named_and_in_any_order() -> None:
    target, probs, group = patients(300, 2, 1)
    named = pd.Series(group).map("IP_{:07d}".format)
    expected = bootstrap_interval(roc_auc, target, probs, group=group, n_replicates=50)
    for given_group in (named, named.to_numpy(), named.tolist(), named.astype("category")):
        found = bootstrap_interval(roc_auc, target, probs, group=given_group, n_replicates=50)
        assert found == expected


def test_whole_patients_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 40)
    target = np.repeat(rng.random(60) < 0.5, 40).astype(int)  # patients of one class each
    score = np.repeat(rng.normal(size=60), 40) + target
    by_patient = bootstrap_interval(roc_auc, target, score, group=group)
    by_image = bootstrap_interval(roc_auc, target, score)
    assert by_patient[1] - by_patient[0] > 3 * (by_image[1] - by_image[0])


@pytest.mark.parametrize("metric", [partial_auc, roc_auc, balanced_accuracy, macro_dice])
def test_rows_that_are_alike_may_be_drawn_together(metric) -> None:
    target, probs, _ = patients(4000, 2, 2, rare=0.02, decimals=6)
    first, size = _alike(metric, target, probs)
    assert size.sum() == 4000
    assert 4 * len(first) <= 4000
    # the same value from any weights: those of all rows, and those of the kinds
    draws = Draws(len(first), 10, 3, size)
    slow = materialised(metric, target[first], probs[first], np.arange(len(first)), draws)
    fast = bootstrap_replicates(metric, target, probs, n_replicates=10, seed=3)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)
    rows = np.arange(4000)
    one_by_one = replicate_values(metric, target, probs, rows, Draws(4000, 1000, 5))
    together = bootstrap_replicates(metric, target, probs, n_replicates=1000, seed=6)
    assert together.mean() == pytest.approx(one_by_one.mean(), abs=0.15 * one_by_one.std())
    assert together.std() == pytest.approx(one_by_one.std(), rel=0.15)


def test_undefined_replicates_are_counted_and_said(caplog) -> None:
    target, score = np.array([1, 0, 0, 0, 0, 0]), np.linspace(0, 1, 6)
    group = np.arange(6)
    values = bootstrap_replicates(roc_auc, target, score, group=group, n_replicates=300)
    undefined = int(np.isnan(values).sum())
    assert 60 < undefined < 160  # (5/6)^6 = 0.335 of 300 lack the one positive
    with caplog.at_level(logging.WARNING):
        low, high = bootstrap_interval(roc_auc, target, score, group=group, n_replicates=300)
    assert f"{undefined} of 300 bootstrap replicates are undefined" in caplog.text
    assert np.isfinite([low, high]).all()


def test_one_class_as_a_whole_raises() -> None:
    with pytest.raises(ValueError, match="only one class"):
        bootstrap_interval(partial_auc, [0, 0], [0.1, 0.2])


def test_same_seed_same_interval_and_other_seed_another() -> None:
    target, probs, group = patients(300, 2, 4)
    one, two, other = (
        bootstrap_interval(roc_auc, target, probs, group=group, n_replicates=40, seed=s)
        for s in (0, 0, 1)
    )
    assert one == two != other


def test_blocks_of_replicates_draw_what_one_block_would(monkeypatch) -> None:
    target, probs, group = patients(200, 2, 5)
    whole = bootstrap_replicates(partial_auc, target, probs, group=group, n_replicates=30)
    monkeypatch.setattr("isic.metrics.resample.BLOCK", 100)
    parts = bootstrap_replicates(partial_auc, target, probs, group=group, n_replicates=30)
    assert len(parts) == 30
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


@given(st.integers(0, 1000), st.integers(1, 8), st.integers(0, 60), st.integers(1, 9))
def test_both_ways_of_tallying_agree(seed, n_units, n_rows, n_cells) -> None:
    rng = np.random.default_rng(seed)
    unit, cell = rng.integers(0, n_units, n_rows), rng.integers(0, n_cells, n_rows)
    weights = rng.integers(0, 4, (5, n_units)).astype(np.float32)
    expected = np.zeros((5, n_cells))
    np.add.at(expected, (slice(None), cell), weights[:, unit])
    np.testing.assert_array_equal(tally(weights, unit, cell, n_cells), expected)
    np.testing.assert_array_equal(_gathered(weights, unit, cell, n_cells), expected)


def test_counts_beyond_float32_stay_exact() -> None:
    unit, cell = np.zeros(200_000, dtype=int), np.zeros(200_000, dtype=int)
    weights = np.full((1, 1), 101.0, dtype=np.float32)
    assert tally(weights, unit, cell, 1)[0, 0] == 20_200_000


def test_a_partial_without_arguments_takes_the_fast_way() -> None:
    target, probs, group = patients(200, 2, 6)
    unit = unit_numbers(group, 200)
    for metric in METRIC_LIST:
        fast = evaluator(metric, target, probs, unit)
        assert evaluator(partial(metric), target, probs, unit).func is fast.func


@pytest.mark.parametrize("index", [0, 2])
def test_the_auc_of_one_class_takes_the_fast_way(index) -> None:
    metric = partial(one_class_auc, class_index=index)
    target, probs, group = patients(900, 4, index)
    unit = unit_numbers(group, 900)
    assert evaluator(metric, target, probs, unit).func.__name__ == "_areas"
    draws = Draws(int(unit.max()) + 1, 25, seed=7)
    slow = materialised(metric, target, probs, unit, draws)
    fast = replicate_values(metric, target, probs, unit, draws)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)


def test_the_auc_of_one_rare_class_draws_rows_that_are_alike_together() -> None:
    metric = partial(one_class_auc, class_index=1)
    target, probs, _ = patients(4000, 3, 2, rare=0.02, decimals=6)
    first, size = _alike(metric, target, probs)
    assert 4 * len(first) <= size.sum() == 4000
    draws = Draws(len(first), 10, 3, size)
    slow = materialised(metric, target[first], probs[first], np.arange(len(first)), draws)
    fast = bootstrap_replicates(metric, target, probs, n_replicates=10, seed=3)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)


def test_paired_difference_uses_common_resamples() -> None:
    target, _, group = patients(600, 2, 8)
    score = target + np.random.default_rng(1).normal(size=600)
    assert paired_interval(roc_auc, target, score, score, group=group, n_replicates=50) == (0, 0, 0)
    noise = np.random.default_rng(0).normal(size=600) * 0.2
    difference, low, high = paired_interval(
        roc_auc, target, score, score + noise, group=group, n_replicates=200
    )
    alone = bootstrap_interval(roc_auc, target, score, group=group, n_replicates=200)
    assert difference == roc_auc(target, score) - roc_auc(target, score + noise)
    assert low <= difference <= high
    assert high - low < alone[1] - alone[0]


@pytest.mark.parametrize(
    ("group", "said"), [([0, 1], "group has 2 rows"), (["a", None, "b"], "1 rows have no group")]
)
def test_malformed_groups_are_named(group, said) -> None:
    with pytest.raises(ValueError, match=said):
        bootstrap_interval(roc_auc, [0, 1, 1], [0.1, 0.2, 0.3], group=group)


def test_level_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(roc_auc, [0, 1], [0.1, 0.2], level=95)


def test_macro_auc_averages_over_the_same_classes_in_each_replicate() -> None:
    target, probs, group = patients(80, 4, 9, rare=0.1)
    unit = unit_numbers(group, 80)
    draws = Draws(int(unit.max()) + 1, 40, 2)
    slow = materialised(by_class(macro_auc, target, probs), target, probs, unit, draws)
    fast = replicate_values(macro_auc, target, probs, unit, draws)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)


def test_a_class_that_a_resample_did_not_draw_earns_nothing() -> None:
    """One row of class 3, never found: 1.0 wherever it is not drawn would lift every interval."""
    target = np.repeat([0, 1, 2, 3], [6, 6, 6, 1])
    probs = np.eye(4)[np.where(target == 3, 0, target)] * 0.9
    probs[[0, 1, 2, 6, 7, 8, 12, 13, 14]] = 0.0  # half of the others are not found either
    group, values = np.arange(len(target)), by_class(macro_dice, target, probs)
    draws = Draws(len(target), 200, 0)
    found = bootstrap_replicates(macro_dice, target, probs, group=group, n_replicates=200)
    slow = materialised(values, target, probs, group, draws)
    np.testing.assert_allclose(found, slow, rtol=0, atol=1e-12)
    official = materialised(macro_dice, target, probs, group, draws)
    assert official.mean() > found.mean() + 0.01


@pytest.mark.parametrize("rare", [0.03, 0.5, 0.97])
def test_areas_in_little_memory_are_the_same(rare: float, monkeypatch) -> None:
    target, probs, group = patients(400, 2, 7, rare=rare, decimals=2)
    unit = unit_numbers(group, 400)
    draws = Draws(int(unit.max()) + 1, 40, 1)
    for metric in (roc_auc, macro_auc, partial_auc):
        slow = materialised(metric, target, probs, unit, draws)
        with monkeypatch.context() as patched:
            patched.setattr("isic.metrics.replicates.BLOCK", 300)
            small = replicate_values(metric, target, probs, unit, draws)
        np.testing.assert_allclose(small, slow, rtol=0, atol=1e-12)
