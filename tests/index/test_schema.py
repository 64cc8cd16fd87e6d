"""DatasetInfo, the index hash, train-only columns, and what a sound index is."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic.errors import DataError
from isic.index.isic2024 import INFO, build_index
from isic.index.schema import (
    DatasetInfo,
    Index,
    archive_hash,
    faults_of,
    index_hash,
    one_hot,
    raise_faults,
    refuse_train_only,
    sample_rows,
    standard_columns,
)


def make_table(n: int = 12) -> pd.DataFrame:
    target = pd.Series([i % 2 for i in range(n - 2)] + [None, None], dtype="Int64")
    columns = dict.fromkeys(standard_columns(INFO))
    columns |= {
        "image_id": [f"ISIC_{i:07d}" for i in range(n)],
        "patient_id": [f"IP_{i // 3}" for i in range(n)],
        "lesion_id": [None] * n,
        "target": target,
        "split": ["train"] * (n - 2) + ["test"] * 2,
    }
    return pd.DataFrame(columns)


def test_info_survives_json() -> None:
    assert DatasetInfo.from_dict(json.loads(json.dumps(INFO.to_dict()))) == INFO
    assert INFO.positive_class == "malignant"


def test_one_hot_marks_the_class_and_leaves_unlabelled_rows_empty() -> None:
    target = pd.Series([0, 2, None, 1], dtype="Int64", index=[7, 5, 3, 1])
    hot = one_hot(target, ("a", "b", "c"))
    assert hot.index.tolist() == [7, 5, 3, 1]
    assert (hot.dtypes == np.float32).all()
    expected = [[1, 0, 0], [0, 0, 1], [np.nan] * 3, [0, 1, 0]]
    np.testing.assert_array_equal(hot.to_numpy(), expected)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_hash_ignores_row_order(order: list[int]) -> None:
    table = make_table()
    assert index_hash(table.iloc[order]) == index_hash(table)


def test_hash_is_twelve_hex_and_the_same_for_other_dtypes() -> None:
    table = make_table()
    plain = table.astype({"image_id": object, "patient_id": object})
    assert index_hash(plain) == index_hash(table)
    assert len(index_hash(table)) == 12
    int(index_hash(table), 16)


@pytest.mark.parametrize("column", ["image_id", "target", "patient_id", "lesion_id"])
def test_hash_sees_what_decides_a_split(column: str) -> None:
    table, changed = make_table(), make_table()
    changed[column] = changed[column].astype("object")
    changed.loc[0, column] = 1 if column == "target" else "other"
    assert index_hash(changed) != index_hash(table)


def test_hash_ignores_test_rows_and_other_columns() -> None:
    table, changed = make_table(), make_table()
    changed.loc[11, "patient_id"] = "IP_other"
    changed["age"] = 50.0
    assert index_hash(changed) == index_hash(table)


@pytest.mark.parametrize("column", [*INFO.train_only_columns, "diagnosis", "malignant"])
def test_train_only_columns_are_refused_by_name(column: str) -> None:
    with pytest.raises(DataError, match=column):
        refuse_train_only(["age", column], INFO)


def test_other_columns_are_features() -> None:
    refuse_train_only(["age", "sex", "tbp_lv_A"], INFO)


def test_a_sound_index_passes_and_all_faults_are_listed() -> None:
    raise_faults(faults_of(make_table(), INFO), where="it", next_step="")
    table = make_table()
    table.loc[1, "image_id"] = table.loc[0, "image_id"]
    table.loc[2, "image_id"] = "../x"
    table.loc[3, "target"] = 4
    assert len(faults_of(table, INFO)) == 3
    with pytest.raises(DataError, match=r"duplicate(.|\n)*\.\./x(.|\n)*target must be 0\.\.1"):
        raise_faults(faults_of(table, INFO), where="it", next_step="")


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=70))
def test_ids_are_file_name_safe_or_refused(name: str) -> None:
    table = make_table()
    table.loc[0, "image_id"] = name
    safe = len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    assert (not any("must match" in f for f in faults_of(table, INFO))) == safe


def lesions():
    """Two views of lesion a, the dermoscopic one of b only, the clinical one of c only."""
    rows = [
        ("c1", "a", "clinical", 0.1),
        ("d1", "a", "dermoscopic", 0.2),
        ("d2", "b", "dermoscopic", 0.3),
        ("c3", "c", "clinical", 0.4),
    ]
    table = pd.DataFrame(rows, columns=["image_id", "lesion_id", "view", "hair"])
    table["image"] = "x/" + table["image_id"] + ".jpg"
    table["age"] = 50.0
    info = dataclasses.replace(
        INFO, row_unit="lesion", views=("dermoscopic", "clinical"), view_columns=("hair",)
    )
    return Index(table, info, Path())


def test_a_lesion_is_one_sample_with_its_views_side_by_side():
    samples = sample_rows(lesions())
    assert samples["lesion_id"].tolist() == ["a", "b", "c"]
    assert samples["image_id"].tolist() == ["d1", "d2", "c3"]
    assert samples["image_clinical"].fillna("").tolist() == ["x/c1.jpg", "", "x/c3.jpg"]
    assert samples["image_dermoscopic"].fillna("").tolist() == ["x/d1.jpg", "x/d2.jpg", ""]
    assert samples["hair_clinical"].fillna(-1).tolist() == [0.1, -1, 0.4]
    assert "hair" not in samples
    assert samples["age"].tolist() == [50.0] * 3


def test_views_join_by_name_whatever_the_order_of_rows():
    index = lesions()
    turned = Index(index.table.iloc[::-1].reset_index(drop=True), index.info, index.root)
    one = sample_rows(index).set_index("lesion_id")
    other = sample_rows(turned).set_index("lesion_id").loc[one.index]
    pd.testing.assert_frame_equal(one, other)


def test_an_image_is_its_own_sample_elsewhere(archive32):
    index = build_index(archive32)
    assert sample_rows(index) is index.table


def test_an_image_that_comes_later_makes_another_archive(archive32):
    index = build_index(archive32)
    before = archive_hash(index)
    index.table.loc[3, "image"] = None
    assert archive_hash(index) != before


def test_added_rows_move_the_split_but_not_the_archives_own_hash(archive32):
    index = build_index(archive32)
    own, every = index_hash(index.table), index_hash(index.table, external=True)
    assert own == every
    added = index.table.iloc[:1].assign(image_id="EXTRA_1")
    table = pd.concat([index.table.assign(external=False), added.assign(external=True)])
    assert index_hash(table) == index_hash(index.table.assign(external=False))
    assert index_hash(table, external=True) != index_hash(table)
