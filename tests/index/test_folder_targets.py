"""What a folder's labels become under a shared target, and what is said where there are none."""

import pytest

from isic.errors import DataError
from isic.index.folder import build_index
from tests.index.test_folder import table

OLDER = (
    "isic_id,benign_malignant,diagnosis\n"
    "a,indeterminate/benign,nevus\nb,malignant,melanoma\nc,benign,unknown\nd,,AIMP\n"
    "e,indeterminate/malignant,other\nf,,\n"
)


def classes(root, **options) -> dict[str, str]:
    """Image id -> the name of its class, empty where it has none."""
    index = build_index(root, **options)
    names = dict(enumerate(index.info.classes))
    return dict(
        zip(index.table["image_id"], index.table["target"].map(names).fillna(""), strict=True)
    )


def test_a_shared_target_takes_the_diagnosis_and_not_the_coarser_column(tmp_path):
    table(tmp_path, OLDER)
    found = classes(tmp_path, target="diagnosis")
    assert found == {"a": "NV", "b": "MEL", "c": "UNK", "d": "UNK", "e": "UNK", "f": ""}
    assert build_index(tmp_path).info.classes[0] == "benign"  # a label as the table calls it


def test_what_the_diagnosis_leaves_open_is_taken_from_benign_malignant(tmp_path):
    index = build_index(table(tmp_path, OLDER), target="malignant")
    found = classes(tmp_path, target="malignant")
    assert found == {"a": "benign", "b": "malignant", "c": "benign", "d": "benign", "f": ""}
    assert "1 rows take benign or malignant from the column benign_malignant" in index.notes


def test_other_columns_of_labels_come_after_diagnoses(tmp_path):
    table(tmp_path, "image,target,dx\na,0,nv\nb,1,mel\n")
    assert classes(tmp_path, target="diagnosis") == {"a": "NV", "b": "MEL"}
    assert classes(tmp_path) == {"a": "0", "b": "1"}


MIXED = "image,dx{0}\na,nv{1}\nb,mel{1}\nc,akiec{1}\nd,akiec{2}\ne,{2}\n"


def test_labels_that_are_neither_benign_nor_malignant_do_not_become_test_rows(tmp_path):
    index = build_index(table(tmp_path, MIXED.format("", "", "")), target="malignant")
    assert index.table["image_id"].tolist() == ["a", "b", "e"]
    assert index.table["split"].tolist() == ["train", "train", "test"]
    assert (
        "2 train rows are neither benign nor malignant and are left out: akiec (2)" in index.notes
    )


def test_they_stay_where_the_table_calls_them_test_rows(tmp_path):
    table(tmp_path, MIXED.format(",split", ",train", ",test"))
    rows = build_index(tmp_path, target="malignant").table.set_index("image_id")
    assert rows["split"].to_dict() == {"a": "train", "b": "train", "d": "test", "e": "test"}


def test_columns_of_0_and_1_are_named_where_no_label_is_found(tmp_path):
    body = "image_id,melanoma,seborrheic,age\na,1.0,0.0,30\nb,0.0,1.0,\nc,0.0,0.0,1\n"
    with pytest.raises(
        DataError,
        match=r"columns melanoma, seborrheic hold 0 and 1, but not one 1 in each row; .*"
        r"data\.index\.columns\.label=melanoma",
    ):
        build_index(table(tmp_path, body))
    found = classes(tmp_path, columns={"label": "melanoma"})
    assert found == {"a": "1", "b": "0", "c": "0"}
