"""Patients, lesions and pictures on both sides, and labels that contradict each other."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.audit.findings import ODD, RIGHT
from isic.audit.leaks import check_ids, check_pairs
from isic.index.isic2024 import INFO
from isic.index.schema import Index


def index_of(**columns: object) -> Index:
    """Six rows: four of train (patients p0 to p3), two of test (p4, p5); some columns changed."""
    table = pd.DataFrame(
        {
            "image_id": [f"ISIC_{i}" for i in range(6)],
            "patient_id": [f"p{i}" for i in range(6)],
            "lesion_id": [f"l{i}" for i in range(6)],
            "target": pd.array([0, 1, 0, 1, None, None], dtype="Int64"),
            "split": ["train"] * 4 + ["test"] * 2,
            "age": np.arange(6.0),
        }
    )
    return Index(table.assign(**columns), INFO, Path("nowhere"))


def odd(part: object) -> list[str]:
    return [f.text for f in part.findings if f.state == ODD]  # type: ignore[attr-defined]


def test_nothing_shared_is_right_and_says_among_how_many() -> None:
    part = check_ids(index_of(lesion_id=["u", None, None, None, "v", None]))
    assert {f.state for f in part.findings} == {RIGHT}
    assert [f.text for f in part.findings] == [
        "none of the patients is in train and in test; known for 4 of 4 train rows and 2 of 2 "
        "test rows",
        "none of the lesions is in train and in test; known for 1 of 4 train rows and 1 of 2 "
        "test rows",
    ]


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        ([None] * 6, "of a train row is known: nothing can be said of what two folds, or train"),
        ([None] * 4 + ["a", "b"], "of a train row is known: nothing can be said"),
        (["a", "b", "c", "d", None, None], "of a test row is known: nothing can be said"),
    ],
    ids=["nobody", "only of test", "only of train"],
)
def test_where_nobody_is_known_nothing_is_said_to_be_right(
    patients: list[str | None], words: str
) -> None:
    part = check_ids(index_of(patient_id=patients, lesion_id=None))
    assert [f.state for f in part.findings] == [ODD]
    assert words in part.findings[0].text


def test_a_patient_of_train_and_a_lesion_of_test_cannot_be_compared() -> None:
    part = check_ids(index_of(patient_id=["a"] * 4 + [None] * 2, lesion_id=[None] * 4 + ["u"] * 2))
    assert [f.state for f in part.findings] == [ODD]


def test_without_test_rows_the_folds_are_what_patients_are_needed_for() -> None:
    index = index_of(patient_id=["a", "b", "c", "d", "e", "f"])
    alone = dataclasses.replace(index, table=index.table[:4])
    assert [f.state for f in check_ids(alone).findings] == [RIGHT]
    nameless = dataclasses.replace(
        index, table=index.table[:4].assign(patient_id=None, lesion_id=None)
    )
    (finding,) = check_ids(nameless).findings
    assert finding.state == ODD
    assert finding.text.endswith("what two folds share")


def test_ids_of_both_sides_are_named() -> None:
    part = check_ids(index_of(patient_id=["a", "b", "c", "d", "b", "d"], lesion_id=list("uvwxyu")))
    assert part.facts["patients_in_train_and_test"] == ["b", "d"]
    assert part.facts["lesions_in_train_and_test"] == ["u"]
    assert odd(part)[:2] == [
        "2 patients are in train and in test: b, d",
        "1 lesions are in train and in test: u",
    ]
    assert not any("none of" in f.text for f in part.findings)


def test_one_image_of_two_names_or_by_a_link_is_on_both_sides() -> None:
    ids = ["X", "Y_downsampled", "B", "C", "X_downsampled", "Y"]
    part = check_ids(index_of(image_id=ids))
    assert part.facts["images_in_train_and_test"] == ["X", "Y"]
    assert odd(part) == ["2 images are in train and in test: X, Y"]
    linked = check_ids(index_of(parent_id=[None, "ISIC_5", "ISIC_0", None, None, None]))
    assert linked.facts["images_in_train_and_test"] == ["ISIC_5"]


def test_a_column_of_train_alone_is_named_unless_it_is_listed() -> None:
    known = [1.0, 2.0, 3.0, 4.0, None, None]
    part = check_ids(index_of(thickness=known, mel_thick_mm=known))
    assert part.facts["train_only_columns_not_listed"] == ["thickness"]
    assert "mel_thick_mm" in part.facts["train_only_columns"]
    train = index_of(thickness=known)
    alone = dataclasses.replace(train, table=train.table[:4])
    assert check_ids(alone).facts["train_only_columns_not_listed"] == []


def test_pairs_are_told_apart_by_what_they_join() -> None:
    index = index_of(patient_id=["a", "a", "c", "d", "e", "f"])
    pairs = [
        ("ISIC_5", "ISIC_0", "bytes"),  # test and train
        ("ISIC_0", "ISIC_1", "bytes"),  # one patient, two labels
        ("ISIC_0", "ISIC_2", "near"),  # two patients, one label
    ]
    part = check_pairs(index, pairs, n_read=6)
    assert part.facts["across_train_and_test"] == ["ISIC_0 = ISIC_5"]
    assert part.facts["with_different_labels"] == ["ISIC_0 = ISIC_1"]
    assert part.facts["across_groups"] == ["ISIC_0 = ISIC_2"]
    assert part.facts["pairs"] == {"bytes": 2, "near": 1}
    assert len(odd(part)) == 3


def test_pairs_within_a_patient_and_no_pairs_are_right_among_those_read() -> None:
    index = index_of(patient_id=["a", "b", "a", "d", "e", "f"])
    part = check_pairs(index, [("ISIC_0", "ISIC_2", "near")], n_read=6)
    assert odd(part) == []
    assert part.findings[0].text == (
        "1 pairs show the same, each within a patient or lesion, among 6 images that were read"
    )
    part = check_pairs(index, [], n_read=4)
    assert part.findings[0].text == (
        "no two show the same, among 4 images that were read; nothing is known of the 2 others"
    )
    assert part.facts["images"] == 4
