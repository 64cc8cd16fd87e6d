"""Within-patient features against pandas, patient by patient."""

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.features.lesion_shape import MEASURED
from isic.features.patient_context import GROUPINGS, PatientContext, summarise
from isic.features.table import make_features
from isic.index.isic2024 import INFO


def slow(values, keys):
    """z-score, ratio, rank and percentile of one column by plain pandas."""
    text = keys.astype(object).where(keys.notna(), "missing").astype(str).agg("|".join, axis=1)
    each = values.groupby(text)
    mean, std = each.transform("mean"), each.transform(lambda v: v.std(ddof=1))
    return {
        "z": (values - mean) / (std + 1e-5),
        "ratio": values / mean,
        "rank": each.transform(lambda v: v.rank(method="average")),
        "percentile": each.transform(lambda v: v.rank(pct=True)),
    }


@pytest.mark.parametrize("grouping", sorted(GROUPINGS))
def test_every_grouping_and_statistic_is_that_of_pandas(train, grouping):
    columns = ["tbp_lv_areaMM2", "tbp_lv_L", "age", "tbp_lv_symm_2axis_angle", "lesion_size_ratio"]
    kinds = ["z", "ratio", "rank", "percentile"]
    one = PatientContext({grouping: kinds}, columns, counts=False, sums=[], summary=False)
    frame = one.transform(train, {})
    made = train.assign(
        lesion_size_ratio=train["tbp_lv_minorAxisMM"] / train["clin_size_long_diam_mm"]
    )
    for column in columns:
        wanted = slow(made[column], train[list(GROUPINGS[grouping])])
        for kind in kinds:
            got = frame[f"{column.removeprefix('tbp_lv_')}_{grouping}_{kind}"]
            expected = wanted[kind].replace([np.inf, -np.inf], np.nan)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6, err_msg=kind)


def test_counts_and_sums(train):
    one = PatientContext({"patient": [], "patient_site": []}, [], summary=False)
    frame = one.transform(train, {})
    patient = train["patient_id"]
    place = patient + "|" + train["site"].fillna("missing")
    area = train["tbp_lv_areaMM2"]
    np.testing.assert_array_equal(frame["lesions_patient"], area.groupby(patient).transform("size"))
    for key, name in ((patient, "patient"), (place, "patient_site")):
        wanted = area.groupby(key).transform("sum")
        np.testing.assert_allclose(frame[f"areaMM2_{name}_sum"], wanted, rtol=1e-6)


def test_the_summary_over_columns(train):
    one = PatientContext({"patient": ["ratio", "z"]}, counts=False, sums=[])
    frame = one.transform(train.assign(tbp_lv_H=np.nan), {})
    z = frame[[f"{c.removeprefix('tbp_lv_')}_patient_z" for c in MEASURED]].astype(np.float64)
    np.testing.assert_allclose(frame["z_largest_patient"], z.abs().max(axis=1))
    np.testing.assert_array_equal(frame["z_unusual_patient"], (z.abs() > 2).sum(axis=1))
    np.testing.assert_allclose(frame["z_std_patient"], z.std(axis=1, ddof=1), rtol=1e-5)


def test_a_summary_of_nothing_is_missing():
    largest, unusual, std = summarise(np.full((2, 3), np.nan, np.float32))
    assert np.isnan(largest).all()
    assert np.isnan(std).all()
    assert (unusual == 0).all()


def test_a_patient_with_one_lesion(train):
    frame = PatientContext().transform(train.iloc[[5]], {})
    for name, value in frame.iloc[0].items():
        if str(name).endswith("_z"):
            assert np.isnan(value)
        if str(name).endswith("_percentile"):
            assert value == 1.0 or np.isnan(train.iloc[5][f"tbp_lv_{name}".rsplit("_", 2)[0]])
    assert frame["lesions_patient"].tolist() == [1.0]


def test_lesions_without_a_patient_share_nothing(train):
    rows = train.assign(patient_id=pd.Series([None] * len(train), dtype="object"))
    frame = PatientContext().transform(rows, {})
    assert (frame["lesions_patient"] == 1).all()
    np.testing.assert_allclose(frame["areaMM2_patient_sum"], rows["tbp_lv_areaMM2"], rtol=1e-6)


def test_patterns_stand_for_columns(train):
    rows = train.assign(score_b=train["score_net"] * 2)
    one = PatientContext({"patient": ["ratio"]}, ["score_*"], counts=False, sums=[])
    frame = one.transform(rows, {})
    assert list(frame.columns) == ["score_net_patient_ratio", "score_b_patient_ratio"]
    np.testing.assert_allclose(frame.iloc[:, 0], frame.iloc[:, 1], rtol=1e-6)
    with pytest.raises(DataError, match=r"no column score_\*"):
        bare = rows.drop(columns=["score_net", "score_b"])
        make_features({"patient_scores": one}, bare, info=INFO)


def test_a_grouping_or_statistic_that_is_unknown_is_refused():
    with pytest.raises(ConfigError, match="got hospital"):
        PatientContext({"hospital": ["z"]})
    with pytest.raises(ConfigError, match="got zscore"):
        PatientContext({"patient": ["zscore"]})
