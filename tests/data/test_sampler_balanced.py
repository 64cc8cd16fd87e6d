"""Classes in their shares, patients within their cap; every row in turn, every rank its share."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic.data.balanced import CappedNegativesBatches, ClassBalancedBatches
from isic.errors import ConfigError

COUNTS = [700, 90, 9, 1]


def epoch_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(e == epoch for e, _ in batches)
    return np.concatenate([positions for _, positions in batches])


def long_tail():
    return np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))


def balanced(target, **options):
    return ClassBalancedBatches(
        target, **{"batch_size": 8, "seed": 0, "drop_last": False} | options
    )


@pytest.mark.parametrize("power", [0, 0.25, 0.5, 1])
def test_classes_come_in_shares_of_their_power(power):
    target = long_tail()
    drawn = np.bincount(target[epoch_of(balanced(target, power=power))])
    exact = np.array(COUNTS, float) ** (1 - power)
    exact *= 800 / exact.sum()
    assert drawn.sum() == 800
    assert np.abs(drawn - exact).max() <= 1


def test_power_zero_is_every_row_once():
    target = long_tail()
    assert sorted(epoch_of(balanced(target, power=0), epoch=3)) == list(range(800))


@pytest.mark.parametrize("power", [0.5, 1])
def test_every_row_of_a_class_comes_before_any_a_second_time(power):
    target = long_tail()
    sampler = balanced(target, power=power, samples_per_epoch=120)
    seen = np.concatenate([epoch_of(sampler, e) for e in range(30)])
    for c, size in enumerate(COUNTS):
        times = np.bincount(seen[target[seen] == c], minlength=800)[target == c]
        assert times.sum() // size in (times.min(), times.min() + 1)
        assert times.max() - times.min() <= 1
        assert times.min() >= 1


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    power=st.floats(0, 1),
    extra=st.integers(0, 50),
    epoch=st.integers(0, 3),
)
def test_an_epoch_is_as_long_as_asked_and_shows_every_class(sizes, power, extra, epoch):
    target = np.repeat(np.arange(len(sizes)), sizes)
    wanted = len(sizes) + extra
    drawn = epoch_of(balanced(target, power=power, samples_per_epoch=wanted), epoch)
    assert len(drawn) == wanted
    assert set(target[drawn]) == set(range(len(sizes)))


def test_unlabelled_rows_and_absent_classes_are_never_drawn():
    target = np.array([0, -1, 0, 3, -1, 3, 3])
    drawn = epoch_of(balanced(target, power=1))
    assert len(drawn) == 5
    assert set(drawn) <= {0, 2, 3, 5, 6}


@pytest.mark.parametrize("kind", ["classes", "patients"])
def test_order_follows_from_seed_and_epoch_alone(kind):
    def make(seed):
        return balanced(long_tail(), power=0.5, seed=seed) if kind == "classes" else capped(seed)

    first = epoch_of(make(0), 3)
    np.random.seed(7)
    sampler = make(0)
    epoch_of(sampler, 1)
    assert np.array_equal(first, epoch_of(sampler, 3))
    assert not np.array_equal(first, epoch_of(sampler, 4))
    assert not np.array_equal(first, epoch_of(make(1), 3))


@pytest.mark.parametrize("kind", ["classes", "patients"])
def test_ranks_share_an_epoch_and_have_as_many_batches(kind):
    def make(**options):
        if kind == "classes":
            return balanced(long_tail(), power=0.5, **options)
        return capped(0, **options)

    whole = np.sort(epoch_of(make(), 2))
    for world_size in (2, 3):
        ranks = [make(rank=r, world_size=world_size) for r in range(world_size)]
        assert len({len(r) for r in ranks}) == 1
        seen = np.sort(np.concatenate([epoch_of(r, 2) for r in ranks]))
        assert 0 <= len(seen) - len(whole) < world_size
        assert set(seen) == set(whole)


@pytest.mark.parametrize("options", [{"power": 1.5}, {"power": -0.1}])
def test_a_power_without_a_meaning_is_refused(options):
    with pytest.raises(ConfigError, match=r"sampler\.power"):
        balanced(long_tail(), **options)


def test_an_epoch_too_short_for_the_classes_is_refused():
    with pytest.raises(ConfigError, match="a sample for each of 4 classes"):
        balanced(long_tail(), power=0.5, samples_per_epoch=3)


# ---- patients

PATIENTS = [300, 40, 5, 5, 1]


def archive():
    """Patients with so many images; two of each of the first three are malignant."""
    group = np.repeat([f"IP_{i}" for i in range(5)], PATIENTS)
    target = np.zeros(len(group), np.int64)
    for start in (0, 300, 340):
        target[start : start + 2] = 1
    order = np.random.default_rng(1).permutation(len(group))
    return target[order], group[order]


def capped(seed=0, **options):
    target, group = archive()
    given = {"per_group": 10, "batch_size": 8, "drop_last": False, "group": group} | options
    return CappedNegativesBatches(target, seed=seed, **given)


@pytest.mark.parametrize("samples_per_epoch", [None, 12, 25])
def test_no_patient_gives_more_negatives_than_the_cap(samples_per_epoch):
    target, group = archive()
    sampler = capped(samples_per_epoch=samples_per_epoch)
    for epoch in range(8):
        drawn = epoch_of(sampler, epoch)
        negatives = pd.Series(group[drawn])[target[drawn] == 0].value_counts()
        assert negatives.max() <= 10


def test_a_whole_epoch_is_all_positives_and_the_cap_of_each_patient():
    target, group = archive()
    for epoch in (0, 5):
        drawn = epoch_of(capped(), epoch)
        assert sorted(drawn[target[drawn] == 1]) == sorted(np.flatnonzero(target))
        negatives = pd.Series(group[drawn])[target[drawn] == 0].value_counts()
        assert negatives.sort_index().tolist() == [10, 10, 3, 5, 1]


def test_every_negative_comes_in_turn():
    target, group = archive()
    seen = np.concatenate([epoch_of(capped(), e) for e in range(30)])
    times = np.bincount(seen, minlength=len(target))
    assert set(times[(group == "IP_0") & (target == 0)]) == {1, 2}  # 298 in 30 epochs of 10
    assert times.min() >= 1


def test_short_epochs_see_what_whole_ones_see():
    target, _ = archive()
    sampler = capped(samples_per_epoch=12)  # a whole epoch has 35: three parts, one row twice
    parts = np.concatenate([epoch_of(sampler, e) for e in range(3)])
    assert set(parts) == set(epoch_of(capped()))
    assert len(epoch_of(capped(samples_per_epoch=10_000))) == 35
    assert set(np.flatnonzero(target)) <= set(parts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": None}, "a group of each of 351 rows, got none"),
        ({"group": np.array(["a"])}, "got 1"),
        ({"per_group": 0}, r"sampler\.per_group of 1 or more"),
        ({"group": np.array([None] * 351, dtype=object)}, "345 rows have no group"),
    ],
)
def test_what_cannot_be_capped_is_said(options, said):
    with pytest.raises(ConfigError, match=said):
        capped(**options)
