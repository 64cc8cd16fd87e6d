"""Statistics within groups: against pandas, group by group, with ties and missing values."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic.features.grouped import (
    GUARD,
    STATISTICS,
    group_rows,
    mean_of,
    sort_within,
    statistics_within,
    std_of,
    total_of,
)

cells = st.one_of(
    st.none(), st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0]), st.floats(-1e6, 1e6, width=32)
)
tables = st.lists(st.tuples(st.sampled_from("abcde"), cells), min_size=1, max_size=60)


def frame(pairs):
    patients, values = zip(*pairs, strict=True)
    return pd.DataFrame({"patient_id": list(patients), "x": np.array(values, dtype=np.float64)})


def slow(rows):
    """The four statistics by pandas, one lambda each."""
    x = rows.groupby("patient_id")["x"]
    with np.errstate(all="ignore"):
        ratio = x.transform(lambda v: v / v.mean()).replace([np.inf, -np.inf], np.nan)
    return {
        "z": x.transform(lambda v: (v - v.mean()) / (v.std() + GUARD)),
        "ratio": ratio,
        "rank": x.transform(lambda v: v.rank()),
        "percentile": x.transform(lambda v: v.rank(pct=True)),
    }


def fast(rows, keys=("patient_id",)):
    out = np.empty((len(rows), len(STATISTICS)), np.float32, order="F")
    groups = group_rows(rows, keys)
    statistics_within(groups, [rows["x"].to_numpy()], list(STATISTICS), out)
    return dict(zip(STATISTICS, out.T, strict=True))


@settings(max_examples=50)
@given(tables)
def test_statistics_are_those_of_pandas(pairs):
    rows = frame(pairs)
    wanted, got = slow(rows), fast(rows)
    mean = rows.groupby("patient_id")["x"].transform("mean").abs()
    size = rows.groupby("patient_id")["x"].transform(lambda v: v.abs().max())
    # a mean that is what rounding left of a sum that cancels has no ratio worth comparing
    sound = ((mean > 1e-9 * size) | (size == 0) | mean.isna()).to_numpy()
    for name in STATISTICS:
        use = sound if name == "ratio" else slice(None)
        np.testing.assert_allclose(
            got[name][use],
            wanted[name].to_numpy()[use],
            *(2e-5, 2e-4 if name == "z" else 2e-6),
            err_msg=name,
        )


@settings(max_examples=30)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_bit(pairs, random):
    rows = frame(pairs)
    order = list(range(len(rows)))
    random.shuffle(order)
    one, other = fast(rows), fast(rows.iloc[order])
    for name in STATISTICS:
        np.testing.assert_array_equal(one[name][order], other[name])


def test_mean_deviation_and_sum_of_groups():
    rows = frame([("b", 1.0), ("a", None), ("b", 4.0), ("a", 2.0), ("c", None)])
    column = sort_within(group_rows(rows, ("patient_id",)), rows["x"].to_numpy())
    # groups are numbered as they come
    np.testing.assert_allclose(mean_of(column), [2.5, 2.0, np.nan])
    np.testing.assert_allclose(std_of(column), [np.sqrt(4.5), np.nan, np.nan])
    np.testing.assert_allclose(total_of(column), [5.0, 2.0, 0.0])


def test_rows_without_a_patient_are_a_group_each():
    rows = frame([("a", 1.0), ("a", 3.0), ("a", 5.0), ("a", 9.0)])
    rows.loc[2:, "patient_id"] = None
    got = fast(rows)
    np.testing.assert_array_equal(got["percentile"], [0.5, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(got["ratio"], [0.5, 1.5, 1.0, 1.0])
    assert np.isnan(got["z"][2:]).all()


def test_a_missing_second_key_is_a_value_of_its_own():
    rows = frame([("a", 1.0), ("a", 3.0), ("a", 5.0), ("b", 7.0)])
    rows["site"] = ["arm", None, None, None]
    groups = group_rows(rows, ("patient_id", "site"))
    assert sorted(groups.sizes) == [1, 1, 2]
    np.testing.assert_array_equal(groups.spread(groups.sizes), [1, 2, 2, 1])


def test_a_constant_column_is_no_outlier():
    rows = frame([("a", 0.1)] * 7 + [("b", 5.0)])
    got = fast(rows)
    np.testing.assert_allclose(got["z"][:7], 0.0, atol=1e-6)
    np.testing.assert_array_equal(got["rank"][:7], 4.0)


@pytest.mark.parametrize("width", [1, 2, 9])
def test_columns_do_not_mix(width):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"patient_id": rng.integers(0, 5, 100)})
    columns = [rng.random(100) for _ in range(width)]
    groups = group_rows(rows, ("patient_id",))
    together = np.empty((100, 2 * width), np.float32, order="F")
    statistics_within(groups, columns, ["z", "rank"], together)
    for i, column in enumerate(columns):
        alone = np.empty((100, 2), np.float32, order="F")
        statistics_within(groups, [column], ["z", "rank"], alone)
        np.testing.assert_array_equal(together[:, 2 * i : 2 * i + 2], alone)
