"""Clusters and groups: against a plain second way, unseen groups, few rows."""

import json

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.features.cross_patient import CLUSTERED, GroupContext, LesionClusters, nearest
from isic.features.lesion_shape import LesionValues
from isic.features.patient_context import PatientContext
from isic.features.table import NAME


def test_z_scores_within_clusters_by_hand(train, test_rows):
    columns = ["tbp_lv_areaMM2", "tbp_lv_L", "hue_contrast"]
    one = LesionClusters(clusters=4, columns=columns)
    state = one.fit(train)
    values = {c: LesionValues(train)[c] for c in columns}
    centres, mean, std = (np.array(state[k]) for k in ("centres", "mean", "std"))
    np.testing.assert_allclose(mean, [v.mean() for v in values.values()])
    np.testing.assert_allclose(std, [v.std() for v in values.values()])

    def cluster_of(rows):
        x = np.stack([LesionValues(rows)[c] for c in columns], axis=1)
        away = ((x - mean) / (std + 1e-5))[:, None] - centres[None]
        distance = np.sqrt((away**2).sum(axis=2))
        return x, distance.argmin(axis=1), distance.min(axis=1)

    _, learned, _ = cluster_of(train)
    assert len(np.unique(learned)) == 4
    x, cluster, distance = cluster_of(test_rows)
    frame = one.transform(test_rows, state)
    np.testing.assert_allclose(frame["cluster_distance"], distance, rtol=1e-5)
    for i, (name, known) in enumerate(values.items()):
        inside = [known[learned == k] for k in range(4)]
        wanted = [
            (v - inside[k].mean()) / (inside[k].std() + 1e-5)
            for v, k in zip(x[:, i], cluster, strict=True)
        ]
        got = frame[f"{name.removeprefix('tbp_lv_')}_cluster_z"]
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_about_fifty_columns_and_29_clusters(train):
    assert len(set(CLUSTERED)) == 50
    assert len(LesionClusters().fit(train)["centres"]) == 29


def test_fewer_rows_than_clusters_lower_k_and_say_so(train, caplog):
    state = LesionClusters().fit(train.iloc[:7])
    assert len(state["centres"]) == 7
    assert "7 clusters, not 29" in caplog.text
    same = train.iloc[[3] * 9].assign(image_id=[f"ISIC_{i:07d}" for i in range(9)])
    assert len(LesionClusters().fit(same)["centres"]) == 1


def test_a_sample_is_enough_and_is_the_same_in_any_order(train):
    one = LesionClusters(clusters=5, sample=100)
    state = one.fit(train)
    assert state == one.fit(train.sample(frac=1.0, random_state=0))
    assert state != LesionClusters(clusters=5).fit(train)


def test_nearest_is_that_of_a_plain_search():
    rng = np.random.default_rng(0)
    points, centres = rng.random((500, 7)), rng.random((11, 7))
    distance = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest(points, centres), distance.argmin(axis=1))


def test_no_rows_and_no_clusters_are_refused(train):
    with pytest.raises(DataError, match="no training rows"):
        LesionClusters().fit(train.iloc[:0])
    with pytest.raises(ConfigError, match="at least 1"):
        LesionClusters(clusters=0)


def test_scores_within_groups_by_pandas(train):
    one = GroupContext(by=("attribution", "sex"), fewest=5)
    got = one.transform(train, one.fit(train))["score_net_group_z"]
    key = train["attribution"] + "|" + train["sex"].fillna("missing")
    score = train["score_net"].groupby(key)
    wanted = (train["score_net"] - score.transform("mean")) / (score.transform("std") + 1e-5)
    wanted = wanted.where(score.transform("size") >= 5)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert got.notna().mean() > 0.5


def test_an_unseen_hospital_is_missing_and_int_ages_are_floats(train):
    one = GroupContext(by=("attribution", "age"), fewest=2)
    rows = train.assign(age=train["age"].fillna(40.0))
    state = one.fit(rows)
    whole = one.transform(rows.astype({"age": "int64"}), state)
    np.testing.assert_array_equal(whole, one.transform(rows, state))
    assert one.transform(rows.assign(attribution="FNQH"), state)["score_net_group_z"].isna().all()


def test_groups_whose_texts_look_alike_when_joined_stay_apart():
    rows = pd.DataFrame(
        {
            "a": ["x | y", "x", "nan", None] * 6,
            "b": ["z", "y | z", "z", "z"] * 6,
            "score_net": np.arange(24.0),
        }
    )
    one = GroupContext(by=("a", "b"), fewest=2)
    state = json.loads(json.dumps(one.fit(rows)))
    assert len(state["groups"]) == 4
    z = one.transform(rows, state)["score_net_group_z"].to_numpy().reshape(6, 4)
    np.testing.assert_allclose(z, np.repeat(z[:, :1], 4, axis=1), atol=1e-5)
    # what an earlier release kept is read as it was meant
    earlier = {k: v for k, v in state.items() if k != "apart"} | {
        "groups": ["x | y | z", "nan | z"],
        "columns": {"score_net": {"mean": [0.0, 1.0], "std": [1.0, 1.0]}},
    }
    assert not one.transform(rows, earlier).isna().any(axis=None)


def test_columns_that_differ_in_odd_characters_make_two_features():
    rows = pd.DataFrame({"p-1": np.arange(8.0), "p+1": np.ones(8), "tbp_lv_p_1": np.zeros(8)})
    rows["patient_id"], rows["attribution"] = "IP_1", "A"
    columns = ["p-1", "p+1", "tbp_lv_p_1", "年龄"]
    rows["年龄"] = 50.0
    context = PatientContext({"patient": ["z"]}, columns=columns, sums=(), summary=False)
    groups = GroupContext(columns=columns, by=("attribution",), fewest=2)
    for family, more in ((context, 1), (groups, 0)):
        state = family.fit(rows)
        made = family.transform(rows, state)
        assert made.columns.is_unique and made.shape[1] == len(columns) + more
        assert all(NAME.fullmatch(name) for name in made)
        behind = [family.sources(list(rows.columns), {name}, state)[0] for name in made]
        assert behind[: len(columns)] == columns
