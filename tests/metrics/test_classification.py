"""Class metrics against scikit-learn and against the official rules written out row by row."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from isic.metrics import METRICS, accuracy, balanced_accuracy, macro_auc, macro_dice
from isic.metrics.classification import macro_f1_argmax, one_class_auc, roc_auc


def drawn(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, n_classes, n)
    probs = rng.dirichlet(np.full(n_classes, 0.3), n) + np.eye(n_classes)[target]
    return target, probs / probs.sum(axis=1, keepdims=True)


def dice_by_hand(target: np.ndarray, probs: np.ndarray) -> float:
    """F1 of `truth > 0.5` against `prediction > 0.5`, class by class, 1.0 when there is nothing."""
    values = []
    for c in range(probs.shape[1]):
        truth, said = target == c, probs[:, c] > 0.5
        hits, size = (truth & said).sum(), truth.sum() + said.sum()
        values.append(2 * hits / size if size else 1.0)
    return float(np.mean(values))


def recall_by_hand(target: np.ndarray, probs: np.ndarray) -> float:
    """Mean recall; a row with two highest scores is never right."""
    right = [
        (row == row.max()).sum() == 1 and row.argmax() == t
        for t, row in zip(target, probs, strict=True)
    ]
    return float(np.mean([np.mean(np.array(right)[target == c]) for c in np.unique(target)]))


@pytest.mark.parametrize("n_classes", [2, 3, 8, 11])
@pytest.mark.parametrize("seed", [0, 1])
def test_agree_with_scikit_learn(n_classes, seed) -> None:
    target, probs = drawn(400, n_classes, seed)
    label = probs.argmax(axis=1)
    one_hot = np.eye(n_classes)[target]
    assert accuracy(target, probs) == pytest.approx(accuracy_score(target, label))
    assert balanced_accuracy(target, probs) == pytest.approx(balanced_accuracy_score(target, label))
    assert macro_f1_argmax(target, probs) == pytest.approx(f1_score(target, label, average="macro"))
    assert macro_auc(target, probs) == pytest.approx(roc_auc_score(one_hot, probs))
    assert macro_dice(target, probs) == pytest.approx(dice_by_hand(target, probs))


@pytest.mark.parametrize("index", range(4))
def test_the_auc_of_one_class_is_that_of_its_column(index) -> None:
    target, probs = drawn(400, 4, index)
    expected = roc_auc_score(target == index, probs[:, index])
    assert one_class_auc(target, probs, class_index=index) == pytest.approx(expected)


def test_the_auc_of_a_class_that_is_not_there() -> None:
    target, probs = drawn(40, 3, 0)
    with pytest.raises(ValueError, match=r"class_index must be 0\.\.2, got 3"):
        one_class_auc(target, probs, class_index=3)
    with pytest.raises(ValueError, match="class"):
        one_class_auc(target % 2, probs, class_index=2)


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 12))
def test_official_rules_on_rounded_probabilities(seed, n_classes, n) -> None:
    target, probs = drawn(n, n_classes, seed)
    rounded = probs.round(1)  # ties and exact halves
    assert macro_dice(target, rounded) == pytest.approx(dice_by_hand(target, rounded))
    assert balanced_accuracy(target, rounded) == pytest.approx(recall_by_hand(target, rounded))


def milk10k() -> tuple[np.ndarray, np.ndarray]:
    """22 rows, two a class, all right."""
    target = np.repeat(np.arange(11), 2)
    return target, np.eye(11)[target]


def test_macro_dice_vectors() -> None:
    target, perfect = milk10k()
    assert macro_dice(target, perfect) == 1.0
    half = perfect.copy()
    half[0, 0] = 0.5
    assert macro_dice(target, half) == pytest.approx(0.969697, abs=1e-6)
    half[0, 0] = 0.5001
    assert macro_dice(target, half) == 1.0
    extra = perfect.copy()
    extra[0, 5] = 0.9
    assert macro_dice(target, extra) == pytest.approx(0.981818, abs=1e-6)
    assert macro_dice(target, np.full((22, 11), 1 / 11)) == 0.0


def test_macro_dice_of_a_class_that_never_occurs_is_one() -> None:
    assert macro_dice([0, 1], [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]) == 1.0


def test_tied_argmax_is_undecided() -> None:
    target, _ = milk10k()
    assert balanced_accuracy(target, np.full((22, 11), 1 / 11)) == 0.0
    assert balanced_accuracy([0, 1], [0.5, 0.5]) == 0.0


def test_absent_classes_are_left_out_and_named(caplog, monkeypatch) -> None:
    # a training in this process says it once only
    monkeypatch.setattr(logging.getLogger("isic.metrics.classification"), "filters", [])
    target, probs = np.array([0, 0, 2]), np.eye(4)[[0, 1, 2]]
    assert balanced_accuracy(target, probs) == pytest.approx(0.75)
    assert "balanced_accuracy: no rows of class [1, 3]" in caplog.text
    caplog.clear()
    assert macro_auc(target, probs) == pytest.approx(np.mean([0.75, 1.0]))
    assert "macro_auc: no rows of class [1, 3]" in caplog.text


def test_binary_probability_stands_for_two_columns() -> None:
    target, probs = drawn(200, 2, 5)
    for metric in METRICS.values():
        assert metric(target, probs[:, 1]) == pytest.approx(metric(target, probs), abs=1e-12)


def test_macro_auc_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="only one class"):
        macro_auc([1, 1], np.full((2, 3), 1 / 3))


@pytest.mark.parametrize(
    "metric", [m for m in METRICS.values() if m not in (METRICS["pauc"], roc_auc)]
)
def test_malformed_input_is_named(metric) -> None:
    probs = np.full((3, 3), 1 / 3)
    with pytest.raises(ValueError, match="class 3"):
        metric([0, 1, 3], probs)
    with pytest.raises(ValueError, match=r"probs must be \(2, C\)"):
        metric([0, 1], probs)
    with pytest.raises(ValueError, match="no rows"):
        metric(np.empty(0, dtype=int), np.empty((0, 3)))
    probs[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"NaN score, first at \[1\]"):
        metric([0, 1, 2], probs)
