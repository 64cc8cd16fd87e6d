"""The score of a model that knows nothing, against counting by hand."""

from functools import partial

import numpy as np
import pytest

from isic.metrics import accuracy, macro_auc, macro_dice, macro_f1_argmax, roc_auc
from isic.metrics.chance import chance_level, deals
from isic.metrics.partial_auc import partial_auc
from isic.metrics.retrieval import retrieval_sensitivity


def test_accuracy_by_chance_is_the_share_that_two_tables_agree_in() -> None:
    rng = np.random.default_rng(0)
    target, said = rng.choice(3, 5000, p=[0.7, 0.2, 0.1]), rng.choice(3, 5000, p=[0.5, 0.5, 0.0])
    expected = 0.7 * 0.5 + 0.2 * 0.5
    assert chance_level(accuracy, target, np.eye(3)[said]) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("metric", [macro_f1_argmax, macro_dice])
def test_macro_f1_of_one_common_class_is_far_from_a_half(metric) -> None:
    rng = np.random.default_rng(1)
    target = rng.choice(11, 3000, p=[0.9, *[0.01] * 10])
    probs = np.eye(11)[rng.choice(11, 3000, p=[0.9, *[0.01] * 10])]
    level = chance_level(metric, target, probs)
    assert level == pytest.approx(0.09, abs=0.02)
    assert level == chance_level(partial(metric), target, probs)
    assert chance_level(metric, target, np.eye(11)[target]) == pytest.approx(0.09, abs=0.02)


def test_what_is_plain_has_no_level_and_ranks_have_that_of_the_area() -> None:
    rng = np.random.default_rng(2)
    target, score = rng.integers(0, 2, 2000), rng.random(2000)
    assert chance_level(roc_auc, target, score) is None
    assert chance_level(partial(macro_auc), target, score) is None
    assert chance_level(partial_auc, target, score) == pytest.approx(0.02, abs=0.003)
    half = chance_level(partial(partial_auc, min_tpr=0.5), target, score)
    assert half == pytest.approx(0.125, abs=0.01)
    group = np.arange(2000) // 30
    assert 0.4 < chance_level(retrieval_sensitivity, target, score, group=group) < 0.6


def test_deals_stay_in_their_block() -> None:
    block = np.array([1, 0, 1, 0, 1, 1])
    orders = list(deals(block, n_deals=5, seed=0))
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert all((block[order] == block).all() for order in orders)
    assert len({tuple(order) for order in orders}) > 1
