"""`partial_auc` against the official Kaggle scorer, written out from its description."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import auc, roc_auc_score, roc_curve

from isic.metrics.classification import roc_auc
from isic.metrics.partial_auc import partial_auc
from isic.metrics.ranking import BLOCK, N_BUCKETS, places

EXACT = 1e-12


def official(target: np.ndarray, score: np.ndarray, min_tpr: float = 0.80) -> float:
    """The ISIC 2024 scorer: the ROC of the flipped problem, cut at max_fpr by interpolation."""
    max_fpr = abs(1 - min_tpr)
    fpr, tpr, _ = roc_curve(np.abs(target - 1), -1.0 * score)
    stop = np.searchsorted(fpr, max_fpr, "right")
    edge = np.interp(max_fpr, fpr[stop - 1 : stop + 1], tpr[stop - 1 : stop + 1])
    return float(auc(np.append(fpr[:stop], max_fpr), np.append(tpr[:stop], edge)))


def drawn(n: int, positives: int, seed: int, decimals: int | None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = np.zeros(n, dtype=np.int64)
    target[rng.choice(n, positives, replace=False)] = 1
    score = 1 / (1 + np.exp(3.0 - rng.normal(size=n) - 1.5 * target))
    return target, score if decimals is None else score.round(decimals)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (lambda y: y.astype(float), 0.19999999999999996),
        (lambda y: np.full(len(y), 0.3), 0.02),
        (lambda y: 1.0 - y, 0.0),
    ],
    ids=["perfect", "constant", "reversed"],
)
def test_published_vectors(score, expected) -> None:
    target, _ = drawn(500, 37, 0, None)
    assert partial_auc(target, score(target)) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("decimals", [None, 6, 3, 1, 0])
@pytest.mark.parametrize(("n", "positives"), [(2, 1), (50, 5), (3000, 1500), (30_000, 40)])
@pytest.mark.parametrize("min_tpr", [0.0, 0.5, 0.80, 0.9])
def test_agrees_with_the_official_scorer(decimals, n, positives, min_tpr) -> None:
    target, score = drawn(n, positives, n + positives, decimals)
    ours = partial_auc(target, score, min_tpr=min_tpr)
    assert ours == pytest.approx(official(target, score, min_tpr), abs=EXACT)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_agrees_on_any_tie_pattern(rows) -> None:
    target = np.array([label for label, _ in rows], dtype=int)
    score = np.array([value for _, value in rows], dtype=float)
    assert partial_auc(target, score) == pytest.approx(official(target, score), abs=EXACT)
    assert roc_auc(target, score) == pytest.approx(roc_auc_score(target, score), abs=EXACT)


def test_agrees_with_the_equivalent_of_scikit_learn() -> None:
    target, score = drawn(4000, 60, 3, 2)
    scaled = roc_auc_score(np.abs(target - 1), -score, max_fpr=0.2)
    expected = 0.5 * 0.2**2 + (0.2 - 0.5 * 0.2**2) / 0.5 * (scaled - 0.5)
    assert partial_auc(target, score) == pytest.approx(expected, abs=EXACT)


def test_any_monotone_change_of_scores_keeps_the_value() -> None:
    target, score = drawn(20_000, 90, 1, None)
    expected = partial_auc(target, score)
    logits = np.log(score / (1 - score))
    ranks = np.argsort(np.argsort(score)) * 1000.0 - 5e6
    assert partial_auc(target, logits) == pytest.approx(expected, abs=EXACT)
    assert partial_auc(target, ranks) == pytest.approx(expected, abs=EXACT)


def test_two_columns_and_other_dtypes_mean_the_same() -> None:
    target, score = drawn(900, 60, 2, 3)
    expected = partial_auc(target, score)
    assert partial_auc(target, np.stack([1 - score, score], axis=1)) == expected
    assert partial_auc(target.astype(bool), score.tolist()) == expected
    assert partial_auc(target.astype(np.float32), score) == expected


@pytest.mark.parametrize("metric", [partial_auc, roc_auc])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_raises(metric, label) -> None:
    with pytest.raises(ValueError, match="only one class"):
        metric(np.full(5, label), np.linspace(0, 1, 5))


@pytest.mark.parametrize(
    ("target", "score", "said"),
    [
        ([0, 1, 1], [0.1, np.nan, 0.3], r"1 rows have a NaN score, first at \[1\]"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "must be 0 or 1"),
        ([0, 1, -1], [0.1, 0.2, 0.3], "unlabelled"),
        ([0, 1, None], [0.1, 0.2, 0.3], "without missing values"),
        ([0, 1, 0.5], [0.1, 0.2, 0.3], "whole numbers"),
        ([0, 1], [0.1, 0.2, 0.3], r"score must be \(2,\)"),
        ([0, 1], [[0.1, 0.2, 0.7]] * 2, r"or \(2, 2\)"),
    ],
)
def test_malformed_input_is_named(target, score, said) -> None:
    with pytest.raises(ValueError, match=said):
        partial_auc(target, score)


def test_min_tpr_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="min_tpr"):
        partial_auc([0, 1], [0.1, 0.2], min_tpr=1.0)


@given(
    arrays(np.float64, st.integers(1, 6), elements=st.floats(allow_nan=False)),
    arrays(np.float64, st.integers(0, 20), elements=st.floats(allow_nan=False)),
)
def test_places_are_those_of_bisection(cutoffs, values) -> None:
    cutoffs = np.unique(cutoffs)
    with np.errstate(over="ignore"):
        beside = [np.nextafter(cutoffs, -np.inf), np.nextafter(cutoffs, np.inf)]
    near = np.concatenate([cutoffs, *beside])
    # tiled beyond the size from which buckets are used
    many = np.resize(np.concatenate([values, near]), N_BUCKETS + 7)
    expected = 2 * np.searchsorted(cutoffs, many) + np.isin(many, cutoffs)
    np.testing.assert_array_equal(places(cutoffs, many), expected)


def test_places_join_their_blocks() -> None:
    values = np.random.default_rng(0).normal(size=2 * BLOCK + 11).round(3)
    cutoffs = np.unique(values[:50])
    expected = 2 * np.searchsorted(cutoffs, values) + np.isin(values, cutoffs)
    np.testing.assert_array_equal(places(cutoffs, values), expected)
