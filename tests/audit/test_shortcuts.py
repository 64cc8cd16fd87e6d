"""A column that gives the class away is named, one that does not is not; agreement with sklearn."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic.audit.findings import ODD, RIGHT
from isic.audit.out_of_fold import N_FOLDS, SMOOTHING, contingency, deal, out_of_fold_auc
from isic.audit.predictors import MAX_CODES, codes_of, predictors
from isic.audit.shortcuts import LIMIT, check_shortcuts
from isic.index.schema import Index


def changed(index: Index, **columns: object) -> Index:
    """The index with other columns."""
    return dataclasses.replace(index, table=index.table.assign(**columns))


def named(index: Index, files: pd.DataFrame | None = None) -> str:
    """What the check says is odd."""
    part = check_shortcuts(index, files)
    return "\n".join(f.text for f in part.findings if f.state == ODD)


@pytest.fixture
def sick(whole: Index) -> np.ndarray:
    """Whether each row is malignant."""
    return (whole.table["target"] == 1).fillna(False).to_numpy(bool)


def test_a_clean_archive_has_none(whole: Index) -> None:
    part = check_shortcuts(whole)
    assert {f.state for f in part.findings} == {RIGHT}
    assert max(found["auc"] for found in part.facts["columns"].values()) < LIMIT
    assert part.facts["train_only"]["iddx_full / value"]["auc"] == 1
    assert not [c for c in part.facts["columns"] if c.startswith(("target", "malignant", "iddx"))]


def test_a_value_that_goes_with_the_class_is_named(whole: Index, sick: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    odd = rng.random(len(sick)) < 0.1
    found = named(changed(whole, attribution=np.where(sick ^ odd, "Clinic", "Fair")))
    assert "attribution (malignant 0.9" in found
    assert "known" not in found


def test_what_is_known_alone_is_named_apart(whole: Index, sick: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    known = sick | (rng.random(len(sick)) < 1 / 6)  # the real file's proportions
    clinic = rng.choice(["A", "B", "C"], len(sick)).astype(object)
    clinic[~known] = None
    found = named(changed(whole, attribution=clinic))
    assert "attribution being known (malignant 0.9" in found


def test_a_number_is_named_where_it_is_not_monotone_too(whole: Index, sick: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    size = np.where(sick, rng.normal(0, 0.1, len(sick)), rng.choice([-1.0, 1.0], len(sick)))
    assert "tbp_lv_x (malignant 1.00)" in named(changed(whole, tbp_lv_x=size))


def test_facts_of_images_are_columns_like_any_other(whole: Index, sick: np.ndarray) -> None:
    n = len(sick)
    files = pd.DataFrame(
        {
            "status": "ok",
            "width": np.where(sick, 1024, 600),
            "height": 600,
            "n_bytes": np.random.default_rng(0).integers(1000, 2000, n),
            "format": np.where(sick, "PNG", "JPEG"),
        },
        index=whole.table.index,
    )
    found = named(whole, files)
    assert "image width (malignant 1.00)" in found
    assert "image format (malignant 1.00)" in found
    assert "height" not in found
    assert "bytes" not in found
    missing = files.assign(width=600, format="JPEG", status=np.where(sick, "ok", "missing"))
    assert "image being known (malignant 1.00)" in named(whole, missing)


def test_ids_tell_by_their_form_and_number_not_by_being_unique(
    whole: Index, sick: np.ndarray
) -> None:
    ids = np.where(sick, "BCN_", "HAM_").astype(object) + whole.table["image_id"].str[5:]
    found = named(changed(whole, image_id=ids))
    assert "form of image_id (malignant 1.00)" in found
    # One name for each image, and one for each patient: no other group knows them.
    own = whole.table["image_id"].str[::-1]
    patient = whole.table["patient_id"] + "x"
    assert named(changed(whole, tbp_lv_location=own, attribution=patient)) == ""


def test_a_rare_class_is_not_tried_and_said(whole: Index) -> None:
    target = whole.table["target"].where(np.arange(len(whole.table)) % 37 == 0, 0)
    part = check_shortcuts(changed(whole, target=target))
    assert part.facts["too_rare"] == ["malignant"]
    assert part.facts["columns"] == {}


def test_several_classes_one_against_the_rest(whole: Index, sick: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    target = pd.array(np.where(sick, 3, rng.integers(0, 3, len(sick))), dtype="Int64")
    info = dataclasses.replace(whole.info, classes=("A", "B", "C", "D"))
    table = whole.table.assign(target=target, site=np.where(target == 1, "foot", "hand"))
    part = check_shortcuts(Index(table, info, whole.root))
    assert part.facts["columns"]["site / value"] == {"class": "B", "auc": 1.0}


def test_groups_are_whole_and_rare_classes_spread() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 60, 1000)
    target = (group < 7).astype(np.int64)
    fold = deal(target, group)
    assert pd.Series(fold).groupby(group).nunique().max() == 1
    positives = pd.Series(group[target == 1]).groupby(fold[target == 1]).nunique()
    assert positives.sum() == 7
    assert len(positives) == N_FOLDS
    assert positives.max() == 2


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(2, 3))
def test_the_auc_is_that_of_a_plain_target_encoding(
    seed: int, n_codes: int, n_classes: int
) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    codes, target = rng.integers(0, n_codes, 200), rng.integers(0, n_classes, 200)
    fold = rng.integers(0, N_FOLDS, 200)
    aucs, weights = [], []
    for f in range(N_FOLDS):
        fit, held = fold != f, fold == f
        hit = target == 1
        prior = hit[fit].mean()
        rate = {
            c: (hit[fit & (codes == c)].sum() + SMOOTHING * prior)
            / ((fit & (codes == c)).sum() + SMOOTHING)
            for c in range(n_codes)
        }
        if len(set(hit[held])) == 2:
            aucs.append(roc_auc_score(hit[held], np.vectorize(rate.get)(codes[held])))
            weights.append(hit[held].sum())
    expected = np.average(aucs, weights=weights)
    counts = contingency(codes, fold, target, n_classes)
    assert out_of_fold_auc(counts, 1) == pytest.approx(expected, abs=1e-12)


def test_codes_of_values() -> None:
    assert codes_of(pd.Series([None, "a", "b", "a"])).tolist() == [0, 1, 2, 1]
    assert codes_of(pd.Series([np.nan, np.nan])).tolist() == [0, 0]
    assert codes_of(pd.Series([True, False, True])).tolist() == [1, 2, 1]
    assert codes_of(pd.Series([1, None, 2], dtype="Int64"))[1] == 0
    number = codes_of(pd.Series([*range(1000), *[500.5] * 500]))
    assert len(set(number[1000:])) == 1
    assert not set(number[1000:]) & set(number[:1000]), "a common value stands alone"
    assert (np.diff(number[:1000]) >= 0).all()
    unique = codes_of(pd.Series([f"name {i}" for i in range(5000)] + ["often"] * 9))
    assert unique.max() == MAX_CODES + 1
    assert set(unique[-9:]) == {1}


def test_a_column_that_never_varies_is_no_predictor(whole: Index) -> None:
    tried = {(p.column, p.kind) for p in predictors(whole.table, whole.info)}
    assert ("image_type", "value") not in tried
    assert ("sex", "known") in tried
    assert ("patient_id", "value") not in tried


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, "a", None] * 200, dtype=object),
        pd.Series([None] * 600, dtype=object),
        pd.Series([np.nan] * 600),
        pd.Series([np.inf, -np.inf, 0.0] * 200),
        pd.Series(pd.date_range("2020", periods=600)),
        pd.Series(["x", "y"] * 300, dtype="category"),
        pd.Series([True, None, False] * 200, dtype="boolean"),
        pd.Series(range(600), dtype="Int64"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_any_kind_of_column_can_be_tried(whole: Index, values: pd.Series) -> None:
    table = whole.table.iloc[:600].assign(own=values, lesion_id=None)
    part = check_shortcuts(dataclasses.replace(whole, table=table))
    aucs = [found["auc"] for name, found in part.facts["columns"].items() if "own" in name]
    assert all(0.3 < auc < 0.7 for auc in aucs)
