"""A fold that knows its labels is refused; folds that merely differ are not."""

import numpy as np
import pytest

from isic.errors import DataError
from isic.stack.leaks import check_folds_alike, placements


def scores(rng: np.random.Generator, n: int, positives: int, folds: int, skill: float):
    """Score (N, 2), target and fold; `skill` = 0.6 is an AUC of 0.66, 1.8 of 0.90, 2.4 of 0.955."""
    target = np.zeros(n, dtype=np.int64)
    target[rng.choice(n, positives, replace=False)] = 1
    fold = rng.integers(0, folds, n)
    score = rng.normal(size=n) + skill * target
    score = 1 / (1 + np.exp(-score))
    return np.column_stack([1 - score, score]), target, fold


def check(probs, target, fold, **options) -> None:
    check_folds_alike({"effnet": probs}, target, fold, ("benign", "malignant"), **options)


@pytest.mark.parametrize(
    ("positives", "folds", "skill"), [(393, 5, 1.8), (60, 5, 0.6), (24, 2, 1.0)]
)
def test_a_fold_whose_scores_hold_the_label_is_refused(positives, folds, skill) -> None:
    probs, target, fold = scores(np.random.default_rng(0), 8000, positives, folds, skill)
    check(probs, target, fold)
    leaky = fold == 1
    probs[leaky, 1] = 0.9 * target[leaky] + 0.1 * probs[leaky, 1]
    probs[:, 0] = 1 - probs[:, 1]
    with pytest.raises(DataError, match=r"effnet, class malignant: fold 1 has AUC 1\.0000 over"):
        check(probs, target, fold)


def test_a_model_that_trained_on_a_fold_is_refused() -> None:
    """Training scores are not perfect, and still far from the others."""
    rng = np.random.default_rng(1)
    probs, target, fold = scores(rng, 20_000, 400, 5, 1.4)
    seen = (fold == 3) & (target == 1)
    probs[seen, 1] = 1 / (1 + np.exp(-(rng.normal(size=seen.sum()) + 4.0)))
    with pytest.raises(DataError, match="fold 3 has AUC 0.99"):
        check(probs, target, fold)


def test_rare_positives_raise_no_alarm() -> None:
    """Two hundred honest runs with two to eighty positives a fold, folds of unlike difficulty."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        positives = int(rng.integers(10, 400))
        probs, target, fold = scores(rng, 2000, positives, 5, float(rng.uniform(0, 2.5)))
        hard = rng.normal(0, 0.2, 5)[fold] * target  # AUCs of folds spread by some 0.03
        logit = np.log(probs[:, 1] / probs[:, 0]) + hard
        probs[:, 1] = 1 / (1 + np.exp(-logit))
        probs[:, 0] = 1 - probs[:, 1]
        check(probs, target, fold)


def test_a_leak_may_be_let_through_with_a_warning(caplog) -> None:
    probs, target, fold = scores(np.random.default_rng(0), 2000, 100, 4, 1.0)
    probs[fold == 0, 1] = target[fold == 0]
    check(probs, target, fold, on_leak="warn")
    assert "fold 0 has AUC 1.0000" in caplog.text


def test_a_class_of_eleven_that_leaks_is_named() -> None:
    rng = np.random.default_rng(0)
    classes = tuple("abcdefghijk")
    target = rng.integers(0, 11, 3000)
    fold = rng.integers(0, 5, 3000)
    probs = rng.dirichlet(np.ones(11), 3000)
    rows = np.flatnonzero((fold == 2) & (target == 4))
    probs[rows, 4] = 1.0
    probs[rows] /= probs[rows].sum(axis=1, keepdims=True)
    probs[(fold == 2) & (target != 4), 4] *= 0.01
    with pytest.raises(DataError, match="class e: fold 2"):
        check_folds_alike({"run": probs}, target, fold, classes)


def test_unlabelled_rows_and_images_that_were_not_read_do_not_count() -> None:
    probs, target, fold = scores(np.random.default_rng(0), 500, 60, 3, 1.0)
    target[:50] = -1
    probs[50:60] = np.nan
    check(probs, target, fold)


def test_placements_are_one_minus_auc() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 9, 300) / 9, rng.random(300) < 0.2
    assert placements(score, positive).mean() == pytest.approx(1 - roc_auc_score(positive, score))


def test_a_fold_without_others_is_no_leak() -> None:
    """Where every row is of the class, none can be ranked above it: that says nothing."""
    rng = np.random.default_rng(0)
    probs, target, fold = scores(rng, 2000, 400, 4, 0.6)
    target[fold == 1] = 1
    check(probs, target, fold)
