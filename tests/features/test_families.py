"""What every family must hold: order, alone or together, real rows, bad input, JSON states."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from isic.cli import CONF
from isic.errors import DataError
from isic.features.cache import features_hash
from isic.features.table import fit_features, make_features
from isic.index.isic2024 import INFO
from tests.features.conftest import ISIC2024, SMALL, YAMLS, family

FIXED = [name for name in ISIC2024 if not family(name).learns]


def made(name, rows, training=None):
    """Features of one family as a frame."""
    training = np.ones(len(rows), bool) if training is None else training
    families = {name: family(name)}
    states = fit_features(families, rows[training], info=INFO)
    return make_features(families, rows, states, info=INFO).frame()


def same_bits(one, other):
    assert list(one.columns) == list(other.columns)
    assert one.index.tolist() == other.index.tolist()
    np.testing.assert_array_equal(
        one.to_numpy(np.float32).view(np.uint32), other.to_numpy(np.float32).view(np.uint32)
    )


def test_every_yaml_is_covered_here():
    assert {p.stem for p in YAMLS} - set(ISIC2024) == {"milk10k"}
    assert len(FIXED) >= 5


@pytest.mark.parametrize("name", ISIC2024)
def test_a_family_of_a_composed_config_is_the_same(name, train):
    # Hydra gives lists and mappings of its own kind
    node = OmegaConf.load(CONF / "features" / f"{name}.yaml")[name]
    one = instantiate(node, **SMALL.get(name, {}))
    state = json.loads(json.dumps(one.fit(train)))
    other = family(name)
    pd.testing.assert_frame_equal(
        one.transform(train, state), other.transform(train, other.fit(train))
    )
    assert features_hash({name: one}, train, {name: state})


@pytest.mark.parametrize("name", ISIC2024)
def test_values_are_float32_and_finite_or_missing(name, train):
    frame = made(name, train)
    values = frame.to_numpy()
    assert values.dtype == np.float32
    assert frame.index.tolist() == train["image_id"].tolist()
    assert not np.isinf(values).any()
    assert np.isfinite(values).mean() > 0.5


@pytest.mark.parametrize("name", ISIC2024)
def test_the_order_of_rows_changes_no_bit(name, train):
    turned = train.sample(frac=1.0, random_state=3).reset_index(drop=True)
    same_bits(made(name, train), made(name, turned).loc[train["image_id"]])


@pytest.mark.parametrize("name", FIXED)
def test_a_patient_alone_has_the_features_it_has_among_others(name, train):
    whole = made(name, train)
    for _, rows in train.groupby("patient_id"):
        alone = made(name, rows.reset_index(drop=True))
        same_bits(alone, whole.loc[rows["image_id"]])


@pytest.mark.parametrize("name", [n for n in ISIC2024 if n not in FIXED])
def test_a_learned_state_survives_json_and_serves_other_rows(name, train, test_rows):
    families = {name: family(name)}
    states = fit_features(families, train, info=INFO)
    again = json.loads(json.dumps(states, allow_nan=False))
    one = make_features(families, test_rows, states, info=INFO)
    other = make_features(families, test_rows, again, info=INFO)
    same_bits(one.frame(), other.frame())
    assert one.names == make_features(families, train, states, info=INFO).names


@pytest.mark.parametrize("name", [n for n in ISIC2024 if n not in FIXED])
def test_only_training_rows_are_learned_from(name, train):
    training = np.arange(len(train)) < 300
    changed = train.copy()
    numbers = changed.select_dtypes("float64").columns
    changed.loc[~training, numbers] = 7.0
    changed.loc[~training, "site"] = "elsewhere"
    families = {name: family(name)}
    states = [fit_features(families, rows[training], info=INFO) for rows in (train, changed)]
    assert states[0] == states[1]


@pytest.mark.parametrize("name", ISIC2024)
def test_real_rows_pass_without_a_warning(name, real_rows, train, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        families = {name: family(name)}
        learned = train if families[name].learns else real_rows
        states = fit_features(families, learned, info=INFO)
        frame = make_features(families, real_rows, states, info=INFO).frame()
        if name != "clusters":  # five rows make no 29 clusters, which is said
            made(name, real_rows, (real_rows["split"] == "train").to_numpy())
    assert len(frame) == 8
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    test = frame[real_rows["split"].to_numpy() == "test"]
    assert test.notna().any(axis=None) or name in ("outliers", "group_scores")


def broken(train):
    """A patient of one lesion, age 0, a constant, an empty and infinite columns, int64 ages."""
    rows = train.copy()
    rows.loc[0, "patient_id"] = "IP_0000001"
    rows.loc[1:3, "patient_id"] = None
    rows["age"] = rows["age"].fillna(40).astype("int64")
    rows.loc[:5, "age"] = 0
    rows["tbp_lv_stdL"] = 3.25
    rows["tbp_lv_H"] = np.nan
    rows.loc[:9, "tbp_lv_A"] = np.inf
    rows.loc[2, "tbp_lv_L"] = -np.inf
    rows["tbp_lv_norm_border"] = 0.0
    rows["tbp_lv_symm_2axis"] = 0.0
    rows.loc[4, "tbp_lv_areaMM2"] = 1e300
    return rows


@pytest.mark.parametrize("name", ISIC2024)
def test_odd_values_pass_without_a_warning(name, train):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = made(name, broken(train))
    assert not np.isinf(frame.to_numpy()).any()
    assert np.isfinite(frame.to_numpy()).mean() > 0.5
    turned = broken(train).sample(frac=1.0, random_state=1).reset_index(drop=True)
    same_bits(frame, made(name, turned).loc[train["image_id"]])


@pytest.mark.parametrize("name", ISIC2024)
def test_a_missing_column_is_named(name, train):
    one = family(name)
    needed = [c for c in one.needs(list(train.columns)) if c != "image_id"]
    for column in (needed[0], needed[-1]):
        with pytest.raises(DataError, match="no column"):
            fit_features({name: one}, train.drop(columns=column), info=INFO)


@pytest.mark.parametrize("name", ISIC2024)
def test_text_among_numbers_is_refused(name, train):
    one = family(name)
    numbers = [
        c
        for c in one.needs(list(train.columns))
        if pd.api.types.is_float_dtype(train[c]) and c not in getattr(one, "by", ())
    ]
    if not numbers:
        pytest.skip("reads texts only")
    rows = train.astype({numbers[0]: object})
    rows.loc[3, numbers[0]] = "large"
    state = one.fit(train)
    with pytest.raises(DataError, match=f"{numbers[0]} must be numbers, got 'large'"):
        one.transform(rows, state)
    rows.loc[3, numbers[0]] = "NA"  # the hidden test table of 2024 is known to hold it
    one.transform(rows, state)


@pytest.mark.parametrize("name", ISIC2024)
def test_no_rows_give_no_features(name, train):
    one = family(name)
    frame = one.transform(train.iloc[:0], one.fit(train))
    assert list(frame.columns) == list(one.transform(train, one.fit(train)).columns)
    assert frame.shape[0] == 0
