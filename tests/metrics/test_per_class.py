"""Precision, recall, F1 and confusion of each class against scikit-learn, for both rules."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import precision_recall_fscore_support

from isic.metrics import elementwise_accuracy, macro_dice
from isic.metrics.per_class import class_counts, confusion_matrix, f1, precision, recall


def drawn(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, n_classes, n)
    probs = rng.dirichlet(np.full(n_classes, 0.3), n) + np.eye(n_classes)[target]
    return target, (probs / probs.sum(axis=1, keepdims=True)).round(1)


@pytest.mark.parametrize("n_classes", [2, 5, 11])
@pytest.mark.parametrize("rule", ["argmax", "half"])
def test_agree_with_scikit_learn(n_classes, rule) -> None:
    target, probs = drawn(200, n_classes, n_classes)
    truth = np.eye(n_classes, dtype=int)[target]
    said = truth[:0] if rule == "argmax" else (probs > 0.5).astype(int)
    if rule == "argmax":
        said = np.eye(n_classes, dtype=int)[probs.argmax(axis=1)]
    expected = precision_recall_fscore_support(truth, said, zero_division=np.nan)
    counts = class_counts(target, probs, rule=rule)
    for ours, theirs in zip((counts.precision, counts.recall, counts.f1), expected, strict=False):
        np.testing.assert_allclose(ours, theirs)
    assert counts.support.tolist() == expected[3].tolist()
    for c in range(n_classes):
        options = {"class_index": c, "rule": rule}
        assert precision(target, probs, **options) == pytest.approx(expected[0][c])
        assert recall(target, probs, **options) == pytest.approx(expected[1][c])
        assert f1(target, probs, **options) == pytest.approx(expected[2][c])


def test_confusion_is_scikit_learns_with_the_absent_classes() -> None:
    target, probs = drawn(100, 4, 0)
    target[target == 3] = 2
    expected = sklearn_confusion(target, probs.argmax(axis=1), labels=range(4))
    assert np.array_equal(confusion_matrix(target, probs), expected)


def test_the_mean_f1_above_half_is_the_official_dice_where_every_class_occurs() -> None:
    target, probs = drawn(300, 11, 1)
    values = class_counts(target, probs, rule="half").f1
    assert np.mean(values) == pytest.approx(macro_dice(target, probs))


def test_what_is_not_defined_is_said_and_is_nan_in_the_table() -> None:
    target, probs = [0, 0, 1], [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.7, 0.3, 0]]
    counts = class_counts(target, probs)
    np.testing.assert_array_equal(counts.precision, [2 / 3, np.nan, np.nan])
    np.testing.assert_array_equal(counts.recall, [1, 0, np.nan])
    np.testing.assert_array_equal(counts.f1, [0.8, 0, np.nan])
    with pytest.raises(ValueError, match="precision of class 1 is not defined: it is never pred"):
        precision(target, probs, class_index=1)
    with pytest.raises(ValueError, match="recall of class 2 is not defined: it has no rows"):
        recall(target, probs, class_index=2)
    with pytest.raises(ValueError, match="F1 of class 2"):
        f1(target, probs, class_index=2)
    with pytest.raises(ValueError, match=r"class_index must be 0\.\.2, got 3"):
        f1(target, probs, class_index=3)
    with pytest.raises(ValueError, match="rule must be argmax or half, got 'top'"):
        class_counts(target, probs, rule="top")


def test_elementwise_accuracy_is_over_cells_and_flatters() -> None:
    target, probs = drawn(300, 11, 2)
    truth = np.eye(11, dtype=bool)[target]
    assert elementwise_accuracy(target, probs) == pytest.approx(np.mean((probs > 0.5) == truth))
    assert elementwise_accuracy(target, np.zeros((300, 11))) == pytest.approx(10 / 11)
    half = np.full((300, 11), 0.5)  # exactly half is no
    assert elementwise_accuracy(target, half) == pytest.approx(10 / 11)
