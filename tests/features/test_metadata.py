"""Metadata as features: MILK10k's lesions, unknown texts, numbers in another dtype."""

import json

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.features.metadata import Metadata
from isic.features.table import fit_features, make_features
from isic.index import milk10k
from isic.index.isic2024 import INFO
from isic.index.schema import sample_rows
from tests.features.conftest import family


@pytest.fixture(scope="module")
def lesions(milk32):
    return sample_rows(milk10k.build_index(milk32))


def check_lesions(rows):
    families = {"milk10k": family("milk10k")}
    training = (rows["split"] == "train").to_numpy()
    states = fit_features(families, rows[training], info=milk10k.INFO)
    table = make_features(families, rows, states, info=milk10k.INFO).frame()
    assert sum(name.startswith("MONET_") for name in table) == 14
    for name in ("age", "skin_tone_class", "MONET_hair_clinical", "MONET_erythema_dermoscopic"):
        wanted = rows[name].to_numpy(np.float64, na_value=np.nan)
        np.testing.assert_allclose(table[name], wanted, rtol=1e-6)
    sites = [c for c in table if c.startswith("site_")]
    assert (table[sites].sum(axis=1) == 1).all()
    known = rows["site"].isin(rows["site"][training].dropna())
    np.testing.assert_array_equal(table["site_unknown"], ~known)
    return table


def test_milk10k_lesions(lesions):
    table = check_lesions(lesions)
    assert table.index.tolist() == lesions["image_id"].tolist()


def test_real_milk10k_lesions(real_root):
    table = check_lesions(sample_rows(milk10k.build_index(real_root / "milk10k")))
    assert len(table) == 4143 + 479


def test_a_train_only_column_is_refused(lesions, train):
    for column in ("diagnosis", "target", "invasion_thickness_interval"):
        with pytest.raises(DataError, match=f"train-only columns {column}"):
            fit_features({"m": Metadata([column])}, lesions, info=milk10k.INFO)
    for column in INFO.train_only_columns:
        if column in train and column != "lesion_id":
            with pytest.raises(DataError, match="they give the label away"):
                fit_features({"m": Metadata([column])}, train, info=INFO)
    with pytest.raises(ConfigError, match="names rows"):
        Metadata(["patient_id"])


def test_unknown_and_missing_texts_share_a_column():
    rows = pd.DataFrame({"sex": ["male", "female", None], "age": [50, 0, 85]})
    one = Metadata(["age", "sex"])
    state = json.loads(json.dumps(one.fit(rows)))
    frame = one.transform(pd.DataFrame({"sex": ["other", "male"], "age": [1.5, None]}), state)
    assert list(frame.columns) == ["age", "sex_female", "sex_male", "sex_unknown"]
    np.testing.assert_array_equal(frame, [[1.5, 0, 0, 1], [np.nan, 0, 1, 0]])
    empty = one.transform(pd.DataFrame({"sex": [np.nan, np.nan], "age": [1, 2]}), state)
    np.testing.assert_array_equal(empty["sex_unknown"], [1, 1])


def test_values_of_one_name_stay_apart():
    rows = pd.DataFrame({"place": ["arm - left", "arm left", "Unknown", "unknown", None]})
    one = Metadata(["place"])
    frame = one.transform(rows, one.fit(rows))
    assert len(set(frame.columns)) == frame.shape[1] == 5
    np.testing.assert_array_equal(frame.sum(axis=0), 1)


def test_values_of_several_columns_stay_apart():
    """`a` with `b_c`, `a_b` with `c`; a numbered name that a text has; columns in other scripts."""
    rows = pd.DataFrame(
        {
            "a": ["b_c", "x", "x", "x"],
            "a_b": ["y", "c", "y", "y"],
            "place": ["a", "a 2", "a-", "a"],
            "年龄": [1.0, 2.0, 3.0, 4.0],
            "部位": ["左", "右", "左", None],
        }
    )
    one = Metadata(list(rows.columns))
    state = json.loads(json.dumps(one.fit(rows)))
    frame = one.transform(rows, state)
    assert frame.columns.is_unique and frame.shape[1] == 3 + 3 + 4 + 1 + 3
    assert all(name.isascii() and name.isidentifier() or name[0].isdigit() for name in frame)
    ones = frame.sum(axis=0).tolist()
    assert ones[:10] == [1, 3, 0, 1, 3, 0, 2, 1, 1, 0] and ones[10] == 10 and sum(ones[11:]) == 4
    for name in frame:  # each feature says where it comes from
        assert len(one.sources(list(rows.columns), {name}, state)) == 1
    assert one.sources(list(rows.columns), {"place_a"}, state) == ("place",)


def test_too_many_texts_are_no_categories():
    rows = pd.DataFrame({"note": [f"text {i}" for i in range(101)]})
    with pytest.raises(DataError, match="note has 101 different texts"):
        Metadata(["note"]).fit(rows)


def test_images_of_a_patient(train):
    one = Metadata(["age"], patient_rows=True)
    frame = one.transform(train, one.fit(train))
    wanted = train.groupby("patient_id")["image_id"].transform("size")
    np.testing.assert_array_equal(frame["images_patient"], wanted)
