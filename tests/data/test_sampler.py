"""Order from (seed, epoch) alone; every rank its share; every negative in the end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic.data.sampler import NegativeRatioBatches, SequentialBatches, ShuffledBatches, walk
from isic.errors import ConfigError


def epoch_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(e == epoch for e, _ in batches)
    return [positions for _, positions in batches]


def imbalanced(n=1000, positives=30):
    target = np.zeros(n, np.int64)
    target[np.random.default_rng(0).choice(n, positives, replace=False)] = 1
    return target


@settings(max_examples=25)
@given(n=st.integers(1, 50), count=st.integers(1, 120), seed=st.integers(0, 5))
def test_walk_visits_all_before_any_again(n, count, seed):
    stream = walk(n, start=0, count=4 * n + count, seed=seed)
    laps = stream[: 4 * n].reshape(4, n)
    assert (np.sort(laps, 1) == np.arange(n)).all()
    pieces = [walk(n, start=i * count, count=count, seed=seed) for i in range(3)]
    whole = walk(n, start=0, count=3 * count, seed=seed)
    assert np.array_equal(np.concatenate(pieces), whole)


@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
@settings(max_examples=60)
def test_shuffled_ranks_together_see_everything_once(n, batch_size, world_size, epoch):
    target = np.zeros(n, np.int64)
    options = {"batch_size": batch_size, "seed": 1, "drop_last": False}
    ranks = [
        epoch_of(ShuffledBatches(target, rank=r, world_size=world_size, **options), epoch)
        for r in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    seen = np.concatenate([np.concatenate(batches) for batches in ranks])
    assert set(seen) == set(range(n))
    assert len(seen) - n < world_size  # at most one fills up a rank
    assert all(len(b) <= batch_size for batches in ranks for b in batches)


def test_a_global_step_is_the_same_set_for_any_number_of_ranks():
    target = np.zeros(96, np.int64)
    alone = epoch_of(ShuffledBatches(target, batch_size=16, seed=0), 5)
    ranks = [
        epoch_of(ShuffledBatches(target, batch_size=8, seed=0, rank=r, world_size=2), 5)
        for r in range(2)
    ]
    for whole, one, two in zip(alone, *ranks, strict=True):
        assert set(whole) == set(one) | set(two)


def test_order_follows_from_seed_and_epoch_alone():
    target = np.zeros(50, np.int64)
    make = lambda seed: ShuffledBatches(target, batch_size=50, seed=seed)  # noqa: E731
    first = epoch_of(make(0), 3)[0]
    np.random.seed(7)
    sampler = make(0)
    epoch_of(sampler, 1)
    assert np.array_equal(first, epoch_of(sampler, 3)[0])
    assert not np.array_equal(first, epoch_of(sampler, 4)[0])
    assert not np.array_equal(first, epoch_of(make(1), 3)[0])


def test_short_epochs_walk_through_everything():
    sampler = ShuffledBatches(np.zeros(100, np.int64), batch_size=10, seed=0, samples_per_epoch=30)
    seen = [np.concatenate(epoch_of(sampler, e)) for e in range(4)]
    assert all(len(s) == 30 for s in seen)
    assert set(np.concatenate(seen)) == set(range(100))


@pytest.mark.parametrize(("n", "expected"), [(25, [10, 10]), (20, [10, 10]), (7, [7])])
def test_a_partial_batch_is_dropped_unless_it_is_the_only_one(n, expected):
    sampler = ShuffledBatches(np.zeros(n, np.int64), batch_size=10, seed=0)
    assert [len(b) for b in epoch_of(sampler)] == expected


@pytest.mark.parametrize("ratio", [1, 2.5, 7])
def test_negatives_keep_their_ratio_and_are_all_visited(ratio):
    target = imbalanced()
    options = {"ratio": ratio, "batch_size": 16, "seed": 2, "drop_last": False}
    sampler = NegativeRatioBatches(target, **options)
    each = round(ratio * 30)
    epochs = [np.concatenate(epoch_of(sampler, e)) for e in range(-(-970 // each))]
    for drawn in epochs:
        assert np.array_equal(np.sort(drawn[target[drawn] == 1]), np.flatnonzero(target))
        negatives = drawn[target[drawn] == 0]
        assert len(negatives) == each
    assert set(np.concatenate(epochs)) == set(range(1000))


def test_the_naive_ratio_sampler_misses_negatives():
    """Redrawing 2P at random each epoch, what is commonly written, leaves some unseen."""
    rng = np.random.default_rng(0)
    negatives = np.arange(970)
    seen = {int(i) for _ in range(-(-970 // 60)) for i in rng.choice(negatives, 60, replace=False)}
    assert len(seen) < 970


def test_positives_are_spread_over_the_epoch():
    target = imbalanced()
    batches = epoch_of(NegativeRatioBatches(target, ratio=3, batch_size=12, seed=0))
    assert sum(target[b].sum() > 0 for b in batches) > 0.7 * len(batches)


def test_ratio_beyond_the_negatives_takes_them_all():
    target = imbalanced(100, 30)
    sampler = NegativeRatioBatches(target, ratio=50, batch_size=100, seed=0)
    assert sorted(np.concatenate(epoch_of(sampler))) == list(range(100))


def test_samples_per_epoch_keep_the_ratio():
    target = imbalanced()
    options = {"ratio": 3, "batch_size": 10, "seed": 0, "samples_per_epoch": 40}
    sampler = NegativeRatioBatches(target, **options)
    seen = [np.concatenate(epoch_of(sampler, e)) for e in range(3)]
    assert [int(target[s].sum()) for s in seen] == [10, 10, 10]
    assert set(np.flatnonzero(target)) <= set(np.concatenate(seen))


def test_ratio_ranks_have_as_many_batches():
    target = imbalanced(1000, 31)
    lengths = [
        len(NegativeRatioBatches(target, ratio=2, batch_size=8, seed=0, rank=r, world_size=4))
        for r in range(4)
    ]
    assert len(set(lengths)) == 1


@pytest.mark.parametrize(
    ("target", "ratio"), [(np.zeros(5, int), 1), (np.ones(5, int), 1), (np.arange(2), 0)]
)
def test_ratio_without_both_classes_is_refused(target, ratio):
    with pytest.raises(ConfigError, match="positives"):
        NegativeRatioBatches(target, ratio=ratio, batch_size=2, seed=0)


@given(n=st.integers(1, 40), batch_size=st.integers(1, 9), world_size=st.integers(1, 5))
def test_sequential_ranks_cover_everything_in_order(n, batch_size, world_size):
    target = np.zeros(n, np.int64)
    ranks = [
        list(SequentialBatches(target, batch_size=batch_size, rank=r, world_size=world_size))
        for r in range(world_size)
    ]
    assert len({tuple(len(p) for _, p in batches) for batches in ranks}) == 1
    assert {int(p) for batches in ranks for _, b in batches for p in b} == set(range(n))
    for rank, batches in enumerate(ranks):
        mine = np.concatenate([p for _, p in batches])
        own = np.arange(rank, n, world_size)
        assert np.array_equal(mine[: len(own)], own)
        assert set(mine[len(own) :]) <= ({own[-1]} if len(own) else {n - 1})


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}])
def test_impossible_arguments_are_refused(options):
    options = {"batch_size": 4, **options}
    with pytest.raises(ConfigError, match="expected at least one sample"):
        SequentialBatches(np.zeros(3, int), **options)
    with pytest.raises(ConfigError, match="expected at least one sample"):
        ShuffledBatches(np.zeros(3, int), seed=0, **options)
