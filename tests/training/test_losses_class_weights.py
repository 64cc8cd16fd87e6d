"""Class weights against scikit-learn and the paper's formula; classes that are not there."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from isic.errors import ConfigError
from isic.training.class_weights import class_weights, positive_weights
from isic.training.losses import CrossEntropy

COUNTS = [12_875, 4_522, 3_323, 867, 239, 253]


def test_inverse_weights_are_scikit_learns():
    target = np.repeat(np.arange(6), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(6), y=target)
    assert class_weights(COUNTS, balance="inverse") == pytest.approx(expected)


def test_sqrt_lies_half_way_between_none_and_inverse():
    inverse, root = (np.array(class_weights(COUNTS, balance=b)) for b in ("inverse", "sqrt"))
    assert root / root[0] == pytest.approx(np.sqrt(inverse / inverse[0]))


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
def test_effective_numbers_by_the_papers_formula(beta):
    weights = np.array(class_weights(COUNTS, balance="effective", beta=beta))
    effective = np.array([sum(beta**i for i in range(n)) for n in COUNTS])  # its eq. 2 as a sum
    assert weights / weights[0] == pytest.approx(effective[0] / effective, rel=1e-6)


def test_effective_numbers_go_from_none_to_inverse():
    assert class_weights(COUNTS, balance="effective", beta=1e-9) == pytest.approx([1] * 6)
    almost = class_weights(COUNTS, balance="effective", beta=1 - 1e-9)
    assert almost == pytest.approx(class_weights(COUNTS, balance="inverse"), rel=1e-4)


@pytest.mark.parametrize("balance", ["none", "inverse", "sqrt", "effective"])
def test_the_mean_weight_of_a_row_is_one(balance):
    weights = class_weights(COUNTS, balance=balance)
    assert np.average(weights, weights=COUNTS) == pytest.approx(1)


@pytest.mark.parametrize("balance", ["inverse", "sqrt", "effective"])
def test_an_absent_class_changes_no_other_and_gets_the_largest(balance):
    without = class_weights(COUNTS, balance=balance)
    weights = class_weights([*COUNTS, 0], balance=balance)
    assert weights == pytest.approx([*without, max(without)])


def test_no_rows_at_all_weigh_one():
    assert class_weights([0, 0, 0], balance="inverse") == [1, 1, 1]


def test_positive_weights():
    assert positive_weights([90, 10]) == [9]
    assert positive_weights([60, 30, 10], power=0.5) == pytest.approx(
        [(40 / 60) ** 0.5, (70 / 30) ** 0.5, 3]
    )
    assert positive_weights([990, 9, 1], clip=20) == pytest.approx([10 / 990, 20, 20])
    assert positive_weights([990, 10, 0]) == pytest.approx([10 / 990, 99, 99])


def test_a_typo_is_refused():
    with pytest.raises(ConfigError, match="expected none, inverse, sqrt, effective, got 'invers'"):
        CrossEntropy(balance="invers")
    with pytest.raises(ConfigError, match=r"loss\.beta: expected a number in \(0, 1\), got 1"):
        CrossEntropy(balance="effective", beta=1)
