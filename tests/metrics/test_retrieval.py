"""Top-15 retrieval against the official scorer's steps in pandas; resamples hold patients twice."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic.metrics import bootstrap_interval, paired_interval
from isic.metrics.bootstrap import bootstrap_replicates
from isic.metrics.inputs import score_of
from isic.metrics.resample import Draws, unit_numbers
from isic.metrics.retrieval import (
    RETRIEVALS,
    patient_retrieval,
    ranked_retrieval,
    retrieval_sensitivity,
)


def archive(seed: int, *, n: int = 600, patients: int = 20, decimals: int = 2):
    """Target, coarse scores with ties, and patients of uneven sizes."""
    rng = np.random.default_rng(seed)
    group = (rng.pareto(1.0, n) * 3).astype(int) % patients
    target = (rng.random(n) < 0.05).astype(int)
    target[0] = 1
    score = (rng.random(n) * 0.7 + 0.3 * target * rng.random(n)).round(decimals)
    return target, score, np.array([f"IP_{g:03d}" for g in group])


def official(target, score, group, top=15) -> list[float]:
    """The scorer's three columns, step by step: sensitivity, average ranks, weighted ranks."""
    frame = pd.DataFrame({"patient_id": group, "target": target, "score": score})
    each = frame.groupby("patient_id")["target"].transform("sum")
    frame = frame[each > 0].assign(fraction=lambda f: f["target"] / each[each > 0])
    patients = frame["patient_id"].nunique()
    found = pd.concat([part.nlargest(top, "score") for _, part in frame.groupby("patient_id")])
    rank = found.groupby("patient_id")["score"].rank(method="dense") / top
    return [
        found["target"].sum() / frame["target"].sum(),
        found["fraction"].sum() / patients,
        (found["fraction"] * rank).sum() / patients,
    ]


@settings(max_examples=40)
@given(
    st.integers(0, 10_000), st.sampled_from([0, 1, 6]), st.sampled_from([1, 5, 15]),
    st.integers(1, 40),
)  # fmt: skip
def test_agree_with_the_official_steps(seed, decimals, top, patients) -> None:
    target, score, group = archive(seed, n=200, patients=patients, decimals=decimals)
    ours = [metric(target, score, group=group, top=top) for metric in RETRIEVALS]
    assert ours == pytest.approx(official(target, score, group, top))


def test_by_hand() -> None:
    # A: 17 images, malignancies ranked 1st and 16th; B: 2 images, one malignant and last; C: none
    group = ["A"] * 17 + ["B"] * 2 + ["C"] * 3
    target = [1] + [0] * 14 + [1, 0] + [0, 1] + [0] * 3
    score = [*np.linspace(1, 0, 17), 0.9, 0.1, 0.5, 0.5, 0.5]
    assert retrieval_sensitivity(target, score, group=group) == pytest.approx(2 / 3)
    assert patient_retrieval(target, score, group=group) == pytest.approx((0.5 + 1) / 2)
    assert ranked_retrieval(target, score, group=group) == pytest.approx((0.5 + 1 / 15) / 2)


def test_any_real_scores_and_two_columns() -> None:
    target, score, group = archive(0)
    columns = np.stack([1 - score, score], axis=1)
    for metric in RETRIEVALS:
        value = metric(target, score, group=group)
        assert metric(target, columns, group=group) == value
        assert metric(target, 100 * score - 70, group=group) == value


def test_what_is_not_defined_is_said() -> None:
    with pytest.raises(ValueError, match="no malignancy in target"):
        retrieval_sensitivity([0, 0], [0.1, 0.2], group=["A", "B"])
    with pytest.raises(ValueError, match="needs the patient of each row"):
        retrieval_sensitivity([0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="group has 1 rows, target 2"):
        retrieval_sensitivity([0, 1], [0.1, 0.2], group=["A"])
    with pytest.raises(ValueError, match="1 rows have no group"):
        retrieval_sensitivity([0, 1], [0.1, 0.2], group=["A", None])
    with pytest.raises(ValueError, match="top must be 1 or more"):
        retrieval_sensitivity([0, 1], [0.1, 0.2], group=["A", "B"], top=0)


@pytest.mark.parametrize("metric", RETRIEVALS)
def test_a_patient_drawn_twice_is_two_patients(metric) -> None:
    target, score, group = archive(3)
    fast = bootstrap_replicates(metric, target, score, group=group, n_replicates=30, seed=1)
    unit = unit_numbers(group, len(group))
    draws = Draws(int(unit.max()) + 1, 30, 1)
    slow = []
    for weights in np.concatenate(list(draws.weights())):
        rows, names = [], []
        for patient, times in enumerate(weights.astype(int)):
            for copy in range(times):
                mine = np.flatnonzero(unit == patient)
                rows.append(mine)
                names += [f"{patient} {copy}"] * len(mine)
        rows = np.concatenate(rows)
        slow.append(metric(target[rows], score[rows], group=names))
    np.testing.assert_allclose(fast, slow)
    low, high = bootstrap_interval(metric, target, score, group=group, n_replicates=200)
    assert low < metric(target, score, group=group) < high


def test_replicates_without_a_malignancy_are_nan() -> None:
    target, group = np.array([1, 0, 0, 0]), ["A", "B", "C", "D"]
    values = bootstrap_replicates(
        retrieval_sensitivity, target, np.arange(4.0), group=group, n_replicates=200
    )
    assert 0 < np.isnan(values).sum() < 200
    assert set(values[~np.isnan(values)]) == {1.0}


def test_pairs_are_compared_by_patient() -> None:
    target, score, group = archive(4)
    difference, low, high = paired_interval(
        retrieval_sensitivity, target, score, 1 - score, group=group, n_replicates=100
    )
    assert low <= difference <= high
    expected = [retrieval_sensitivity(target, s, group=group) for s in (score, 1 - score)]
    assert difference == pytest.approx(expected[0] - expected[1])


def test_only_metrics_that_ask_for_patients_get_them() -> None:
    assert score_of(lambda target, probs: 3.0, [0], [0.1], group=["A"]) == 3.0
    assert score_of(retrieval_sensitivity, [1], [0.1], group=["A"]) == 1.0
