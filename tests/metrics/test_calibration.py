"""Expected calibration error against torchmetrics, by hand at the edges, fast replicates."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from isic.metrics import bootstrap_interval
from isic.metrics.calibration import expected_calibration_error


def drawn(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(n_classes, 0.5), n)
    target = np.array([rng.choice(n_classes, p=p**2 / (p**2).sum()) for p in probs])
    return target, probs


@pytest.mark.parametrize("n_classes", [2, 3, 11])
@pytest.mark.parametrize("n_bins", [10, 15])
def test_agrees_with_torchmetrics(n_classes, n_bins) -> None:
    target, probs = drawn(500, n_classes, n_classes)
    expected = multiclass_calibration_error(
        torch.from_numpy(probs), torch.from_numpy(target), num_classes=n_classes, n_bins=n_bins
    )
    ours = expected_calibration_error(target, probs, n_bins=n_bins)
    assert ours == pytest.approx(expected.item(), abs=1e-6)
    assert ours > 0.02


def test_the_probability_of_one_class_stands_for_two_columns() -> None:
    target, probs = drawn(200, 2, 0)
    whole = expected_calibration_error(target, probs)
    assert expected_calibration_error(target, probs[:, 1]) == pytest.approx(whole)


def test_by_hand() -> None:
    # bins of confidence 0.9 (two rows, one right) and 0.6 (one row, right)
    probs = [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]
    assert expected_calibration_error([0, 0, 0], probs) == pytest.approx(
        (2 * abs(0.5 - 0.9) + abs(1 - 0.6)) / 3
    )
    assert expected_calibration_error([0, 1], [[1, 0], [0, 1]]) == 0  # 1 is in the last bin
    # an edge belongs to the bin below: 0.5 with two bins is apart from 0.51
    two = [[0.5, 0.5], [0.51, 0.49]]
    assert expected_calibration_error([0, 1], two, n_bins=2) == pytest.approx((0.5 + 0.51) / 2)


def test_scores_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"probabilities in 0\.\.1, got -1\.0 to 2\.0"):
        expected_calibration_error([0, 1], [[2.0, -1.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="n_bins must be 1 or more"):
        expected_calibration_error([0, 1], [0.1, 0.9], n_bins=0)


def test_an_interval_holds_the_value_of_many_rows() -> None:
    target, probs = drawn(4000, 3, 5)
    low, high = bootstrap_interval(expected_calibration_error, target, probs, n_replicates=200)
    value = expected_calibration_error(target, probs)
    assert low < value + 0.01
    assert high > value - 0.01
    assert high - low < 0.06
