"""Drawing rows again: shares reached, nothing lost, nothing invented."""

import numpy as np
import pytest

from isic.errors import ConfigError
from isic.stack.resample import Resample


def drawn(options: Resample, *counts: int, seed: int = 0) -> np.ndarray:
    target = np.repeat(np.arange(len(counts)), counts)
    return target[options.rows(target, np.random.default_rng(seed))]


def test_the_winners_shares() -> None:
    # 393 of 401,059 in the archive; a tenth of it here
    got = np.bincount(drawn(Resample(0.003, 0.01), 40_000, 39))
    assert got.tolist() == [12_000, 120]


def test_every_rare_row_stays_and_no_common_row_comes_twice() -> None:
    target = np.repeat([0, 1], [5000, 7])
    rows = Resample(0.01, 0.05).rows(target, np.random.default_rng(3))
    assert set(range(5000, 5007)) <= set(rows.tolist())
    common = rows[rows < 5000]
    assert len(common) == len(set(common.tolist())) == 1000
    assert (np.diff(rows) >= 0).all()


def test_each_class_is_measured_by_the_largest_and_by_all_others() -> None:
    assert np.bincount(drawn(Resample(0.1, None), 1000, 20, 300)).tolist() == [1000, 100, 300]
    assert np.bincount(drawn(Resample(None, 0.5), 1000, 20, 300)).tolist() == [640, 20, 300]


def test_one_very_rare_class_does_not_cut_the_common_ones() -> None:
    # a training fold of MILK10k: the default took two of three basal cell carcinomas away
    milk10k = [198, 1590, 26, 335, 32, 29, 6, 290, 476, 302, 30]
    assert np.bincount(drawn(Resample(), *milk10k)).tolist() == milk10k


def test_nothing_is_drawn_where_nothing_is_asked() -> None:
    target = np.array([0, 1, 0, 0, 1])
    rng = np.random.default_rng(0)
    assert Resample(None, None).rows(target, rng).tolist() == [0, 1, 2, 3, 4]
    assert Resample().rows(target, rng).tolist() == [0, 1, 2, 3, 4]  # rarer than no share


def test_a_share_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"resample\.under: expected a share in \(0, 1\], got 3"):
        Resample(under=3)
