"""Families put together: shared names, leaks, infinities, joins, and the cache."""

import dataclasses
import logging

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.features.cache import features_hash
from isic.features.lesion_shape import LesionShape
from isic.features.metadata import Metadata
from isic.features.patient_context import PatientContext
from isic.features.table import (
    FeatureTable,
    fit_features,
    join_features,
    make_features,
    split_families,
)
from isic.index.isic2024 import INFO
from tests.features.conftest import family

SHAPE = {"lesion_shape": LesionShape(formulas=["hue_contrast"])}


@dataclasses.dataclass(frozen=True)
class Doubled:
    """A family that an outsider may write."""

    column: str = "tbp_lv_A"
    feature: str = "doubled"

    name = "doubled"
    learns = False

    def needs(self, available):
        return (self.column,)

    def fit(self, rows):
        return {}

    def transform(self, rows, state):
        return pd.DataFrame({self.feature: rows[self.column].astype("float32") * 2})


def test_families_stand_side_by_side(train):
    table = make_features({**SHAPE, "mine": Doubled()}, train, info=INFO)
    assert table.values.shape == (400, 35)
    assert table.values.dtype == np.float32
    assert table.names[-2:] == ("hue_contrast", "doubled")
    assert table.ids.tolist() == train["image_id"].tolist()
    assert table.frame().loc[train["image_id"][3], "doubled"] == table.values[3, -1]
    frame = table.frame()
    np.testing.assert_array_equal(frame["doubled"], 2 * frame["tbp_lv_A"])


def test_the_families_of_every_yaml_share_no_name(train):
    names = "lesion_shape patient_context outliers image_scores patient_scores group_scores"
    families = {n: family(n) for n in [*names.split(), "clusters", "metadata"]}
    fixed, learned = split_families(families)
    assert set(learned) == {"group_scores", "clusters", "metadata"}
    states = fit_features(learned, train, info=INFO)
    parts = [make_features(fixed, train, info=INFO)]
    parts.append(make_features(learned, train, states, info=INFO))
    joined = join_features(parts)
    whole = make_features({**fixed, **learned}, train, states, info=INFO)
    assert joined.names == whole.names
    np.testing.assert_array_equal(joined.values, whole.values)


def test_a_shared_name_is_refused(train):
    families = {**SHAPE, "mine": Doubled(feature="hue_contrast")}
    with pytest.raises(DataError, match="hue_contrast is made by lesion_shape and mine"):
        make_features(families, train, info=INFO)
    one = make_features(SHAPE, train, info=INFO)
    with pytest.raises(DataError, match="is made by"):
        join_features([one, one])


def test_a_name_that_boosters_refuse_is_refused(train):
    with pytest.raises(DataError, match="letters, digits"):
        make_features({"mine": Doubled(feature='a "b"')}, train, info=INFO)


def test_train_only_columns_are_refused_by_name(train):
    for column in ("tbp_lv_dnn_lesion_confidence", "mel_thick_mm", "target"):
        with pytest.raises(DataError, match=f"train-only columns {column}"):
            make_features({"mine": Doubled(column)}, train, info=INFO)
    context = PatientContext(columns=["tbp_lv_dnn_lesion_confidence"])
    with pytest.raises(DataError, match="they give the label away"):
        make_features({"context": context}, train, info=INFO)


def test_a_column_missing_in_test_is_named(test_rows):
    with pytest.raises(DataError, match="lesion_shape: the table has no column tbp_lv_Hext"):
        make_features(SHAPE, test_rows.drop(columns="tbp_lv_Hext"), info=INFO)


def test_a_misspelt_name_is_told_its_nearest_and_no_label(train):
    with pytest.raises(ConfigError, match="no formula 'hue_contras'; there are hue_contrast"):
        LesionShape(formulas=["hue_contras"])
    context = PatientContext(columns=["tbp_lv_Hextt"])
    with pytest.raises(DataError, match=r"no column tbp_lv_Hextt.* Near it: tbp_lv_Hext") as said:
        make_features({"context": context}, train, info=INFO)
    assert "target" not in str(said.value) and "iddx" not in str(said.value)


def test_a_family_that_learns_needs_its_state(train):
    with pytest.raises(ConfigError, match="metadata learn from training rows"):
        make_features({"metadata": Metadata()}, train, info=INFO)


def test_infinite_values_are_missing_and_counted(train, caplog):
    rows = train.copy()
    rows.loc[:2, "tbp_lv_A"] = [np.inf, -np.inf, 1e31]
    with caplog.at_level(logging.INFO):
        table = make_features({**SHAPE, "mine": Doubled()}, rows, info=INFO)
    assert "3 infinite values in tbp_lv_A are missing" in caplog.text
    made = table.frame()
    assert made["tbp_lv_A"].iloc[:3].isna().all()
    assert made["doubled"].iloc[:2].isna().all()
    assert "2 infinite values taken as missing in doubled" in caplog.text
    assert not np.isinf(table.values).any()


def test_a_sample_that_stands_twice_is_refused(train):
    with pytest.raises(DataError, match="1 samples stand twice"):
        make_features(SHAPE, pd.concat([train, train.iloc[:1]]), info=INFO)


def test_tables_of_other_rows_do_not_join(train):
    one = make_features(SHAPE, train, info=INFO)
    other = make_features({"mine": Doubled()}, train.iloc[::-1], info=INFO)
    with pytest.raises(DataError, match="different rows"):
        join_features([one, other])


# ---- the cache


def cached(rows, root, families=SHAPE):
    return make_features(families, rows, info=INFO, cache_root=root)


def files(root):
    return sorted((root / "features").iterdir())


def test_the_second_time_it_is_read(train, tmp_path, monkeypatch):
    first = cached(train, tmp_path)
    monkeypatch.setattr(LesionShape, "transform", None)
    again = cached(train, tmp_path)
    assert isinstance(again, FeatureTable)
    assert again.names == first.names
    assert again.ids.tolist() == first.ids.tolist()
    np.testing.assert_array_equal(again.values, first.values)
    assert again.values.flags.f_contiguous
    assert len(files(tmp_path)) == 1


def test_whatever_changes_the_features_makes_another_file(train):
    families = {**SHAPE, "metadata": Metadata(["sex", "age"])}
    states = fit_features(families, train, info=INFO)
    moved = train.copy()
    moved.loc[3, "tbp_lv_H"] += 1e-9
    blank = train.copy()
    blank.loc[3, "sex"] = None
    other = {**families, "lesion_shape": LesionShape(formulas=["lab_hue"])}
    unlearned = {**states, "metadata": {**states["metadata"], "columns": ["age"]}}
    hashes = [
        features_hash(families, train, states),
        features_hash(families, moved, states),
        features_hash(families, blank, states),
        features_hash(families, train.iloc[::-1], states),
        features_hash(other, train, states),
        features_hash(families, train, unlearned),
    ]
    assert len(set(hashes)) == len(hashes)
    unseen = train.assign(mel_thick_mm=1.0)  # of no family
    assert features_hash(families, unseen, states) == hashes[0]


def test_a_torn_file_is_made_again(train, tmp_path, caplog):
    first = cached(train, tmp_path)
    files(tmp_path)[0].write_bytes(b"PAR1 torn")
    np.testing.assert_array_equal(cached(train, tmp_path).values, first.values)
    assert "no whole feature table" in caplog.text


def test_a_cache_that_cannot_be_written_costs_speed_only(train, tmp_path, caplog):
    (tmp_path / "features").write_text("a file where a folder should be")
    assert cached(train, tmp_path).values.shape == (400, 34)
    assert "not kept" in caplog.text
