"""Metadata -> features: agreement with scikit-learn, what is missing or unseen, what is refused."""

import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from isic.errors import DataError
from isic.index.isic2024 import INFO
from isic.index.metadata import MetadataEncoder
from isic.index.milk10k import INFO as MILK10K

COLUMNS = ["age", "diameter", "sex", "site"]
ages = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
sexes = st.sampled_from([None, "female", "male", "FEMALE", "", "other"])
row = st.tuples(ages, ages, sexes, st.one_of(st.none(), st.text(max_size=3)))
tables = st.lists(row, min_size=1, max_size=12).map(lambda rows: table(*rows))


def table(*rows):
    frame = pd.DataFrame(list(rows), columns=COLUMNS)
    numbers = {name: frame[name].astype("float64") for name in ("age", "diameter")}
    return frame.assign(**numbers)


def fitted(rows, columns=COLUMNS, **options):
    return MetadataEncoder.fit(rows, columns, info=INFO, **options)


@pytest.fixture
def train():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "age": rng.integers(3, 17, 60) * 5.0,
            "diameter": rng.lognormal(1, 1, 60),
            "sex": rng.choice(["female", "male"], 60),
            "site": rng.choice(["torso", "head/neck", "leg"], 60),
        }
    )
    for i, name in enumerate(COLUMNS):
        rows.loc[i::7, name] = None
    return rows


def test_it_agrees_with_scikit_learn(train):
    encoder, texts = fitted(train), ["sex", "site"]
    # the deviation is that of known values: filling the gaps first would shrink it
    number = make_pipeline(StandardScaler(), SimpleImputer(strategy="median", add_indicator=True))
    known = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    known.fit(train[texts].dropna())
    reference = make_column_transformer(
        (number, ["age"]), (number, ["diameter"]), sparse_threshold=0
    ).fit(train)
    test = pd.concat([train[20:40], train[:3].assign(site="oral/genital", age=200)])
    ours = pd.DataFrame(encoder.encode(test), columns=encoder.names)
    assert np.allclose(ours.iloc[:, :4], reference.transform(test), atol=1e-6)
    hot = known.transform(test[texts].fillna("not there"))
    names = [f"{n}={c}" for n, cs in zip(texts, known.categories_, strict=True) for c in cs]
    assert np.array_equal(ours[names], hot)
    unknown = ours[["sex=(unknown)", "site=(unknown)"]]
    assert np.array_equal(unknown, ~np.stack([hot[:, :2].any(1), hot[:, 2:].any(1)], 1))


@given(tables, tables)
def test_any_table_gives_finite_features_row_by_row(train, test):
    encoder = fitted(train)
    features = encoder.encode(test)
    assert features.dtype == np.float32
    assert features.shape == (len(test), len(encoder.names))
    assert np.isfinite(features).all()
    alone = np.concatenate([encoder.encode(test.iloc[[i]]) for i in range(len(test))])
    assert np.array_equal(features, alone)
    layout = encoder.layout
    for name in ("sex", "site"):
        assert (features[:, layout["groups"][name]].sum(axis=1) == 1).all()
    positions = sorted(i for group in layout["groups"].values() for i in group)
    assert positions == list(range(features.shape[1]))
    assert len(layout["absent"]) == features.shape[1]


@given(tables)
def test_its_state_is_plain_and_makes_the_same_encoder(train):
    encoder = fitted(train)
    again = MetadataEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    assert np.array_equal(again.encode(train), encoder.encode(train))
    assert again.layout == encoder.layout


@given(tables, st.randoms())
def test_it_depends_on_no_order_of_rows(train, random):
    order = list(range(len(train)))
    random.shuffle(order)
    one, other = fitted(train), fitted(train.iloc[order])
    assert one.names == other.names
    assert np.allclose(one.encode(train), other.encode(train), rtol=1e-4, atol=1e-4)


def test_training_rows_are_standardised(train):
    whole = train.dropna()
    features = pd.DataFrame(fitted(whole).encode(whole), columns=fitted(whole).names)
    assert np.allclose(features[["age", "diameter"]].mean(), 0, atol=1e-5)
    assert np.allclose(features[["age", "diameter"]].std(ddof=0), 1, atol=1e-5)


def test_a_row_of_which_nothing_is_known_is_the_layouts_absent_row(train, caplog):
    encoder = fitted(train)
    nothing = encoder.encode(pd.DataFrame(index=range(2)))
    assert "no column age, diameter, sex, site" in caplog.text
    assert np.array_equal(nothing, [encoder.layout["absent"]] * 2)
    flags = pd.Series(nothing[0], encoder.names)
    assert flags[[n for n in encoder.names if "missing" in n or "unknown" in n]].eq(1).all()


def test_columns_that_training_never_knew():
    rows = table((None, 5.0, None, "torso"), (None, 5.0, None, "leg"))
    encoder = fitted(rows)
    seen = encoder.encode(table((40.0, 6.0, "male", "leg")))
    assert np.isfinite(seen).all()
    assert dict(zip(encoder.names, seen[0].tolist(), strict=True))["sex=(unknown)"] == 1


def test_groups_hold_columns_and_the_rest_stand_alone(train):
    encoder = fitted(train, groups={"person": ["sex", "age"]})
    groups = encoder.layout["groups"]
    assert list(groups) == ["person", "diameter", "site"]
    named = [encoder.names[i] for i in groups["person"]]
    assert named == ["age", "age:missing", "sex=female", "sex=male", "sex=(unknown)"]
    for wrong in ({"a": ["sex"], "b": ["sex"]}, {"a": ["hair"]}, {"site": ["sex"]}):
        with pytest.raises(DataError, match="each in one group"):
            fitted(train, groups=wrong)


@pytest.mark.parametrize(
    ("info", "column"),
    [
        (INFO, "lesion_id"),
        (INFO, "iddx_full"),
        (INFO, "tbp_lv_dnn_lesion_confidence"),
        (INFO, "target"),
        (INFO, "malignant"),
        (MILK10K, "diagnosis_1"),
        (MILK10K, "diagnosis_1_clinical"),
        (MILK10K, "MEL"),
    ],
)
def test_what_gives_the_label_away_is_refused(train, info, column):
    rows = train.assign(**{column: 1.0})
    with pytest.raises(DataError, match="give the label away"):
        MetadataEncoder.fit(rows, ["age", column], info=info)


def test_ids_and_columns_like_ids_are_refused(train):
    with pytest.raises(DataError, match="patient_id names rows"):
        fitted(train.assign(patient_id="IP_1"), ["age", "patient_id"])
    with pytest.raises(DataError, match="at most 100"):
        fitted(pd.DataFrame({"note": [f"n{i}" for i in range(101)]}), ["note"])
    with pytest.raises(DataError, match="no column hair"):
        fitted(train, ["age", "hair"])
    with pytest.raises(DataError, match="got age twice"):
        fitted(train, ["age", "age"])


def test_text_in_a_number_is_refused_and_digits_are_not(train):
    encoder = fitted(train)
    as_text = train.assign(age=train["age"].map(str, na_action="ignore"))
    assert np.array_equal(encoder.encode(as_text), encoder.encode(train))
    with pytest.raises(DataError, match="age was a number in training, got 'about 50'"):
        encoder.encode(train.assign(age="about 50"))


def test_test_rows_teach_it_nothing(train):
    encoder = fitted(train)
    before = replace(encoder)
    encoder.encode(train.assign(age=1e9, site="elsewhere"))
    assert encoder == before


def test_nullable_and_boolean_columns():
    rows = pd.DataFrame(
        {
            "age": pd.array([40, None, 60], dtype="Int64"),
            "biopsied": pd.array([True, None, False], dtype="boolean"),
            "sex": pd.Categorical(["male", None, "female"]),
        }
    )
    encoder = fitted(rows, list(rows))
    assert encoder.names[2:] == [
        *("biopsied=False", "biopsied=True", "biopsied=(unknown)"),
        *("sex=female", "sex=male", "sex=(unknown)"),
    ]
    assert encoder.encode(rows)[1].tolist() == [0, 1, 0, 0, 1, 0, 0, 1]


def test_columns_that_say_nothing_of_new_rows_are_logged(train, caplog):
    encoder = fitted(train)
    with caplog.at_level(logging.WARNING):
        encoder.encode(train)
        _ = encoder.layout
    assert "metadata:" not in caplog.text
    with caplog.at_level(logging.WARNING):
        encoder.encode(train.assign(age=np.nan, sex=train["sex"].str[:1].str.upper()))
    assert "metadata: no value in age; taken as missing" in caplog.text
    assert "no value of sex is one that training rows had: got F, M, known are" in caplog.text
