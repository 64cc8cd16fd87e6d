"""Patients, lesions and pictures on both sides, and labels that contradict each other."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

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


def test_nothing_shared_is_right() -> None:
    part = check_ids(index_of())
    assert {f.state for f in part.findings} == {RIGHT}
    assert "no patient or lesion" in part.findings[0].text
    nameless = check_ids(index_of(patient_id=None, lesion_id=None))
    assert "name no patient" in nameless.findings[0].text


def test_ids_of_both_sides_are_named() -> None:
    part = check_ids(index_of(patient_id=["a", "b", "c", "d", "b", "d"], lesion_id=list("uvwxyu")))
    assert part.facts["patients_in_train_and_test"] == ["b", "d"]
    assert part.facts["lesions_in_train_and_test"] == ["u"]
    assert odd(part)[:2] == [
        "2 patients are in train and in test: b, d",
        "1 lesions are in train and in test: u",
    ]


def test_lesions_that_contradict_themselves_are_named() -> None:
    part = check_ids(index_of(lesion_id=["u", "u", "v", "w", "x", "y"]))
    assert part.facts["lesions_with_several_labels"] == ["u"]
    assert part.facts["lesions_of_several_patients"] == ["u"]
    assert len(odd(part)) == 2


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
    part = check_pairs(index, pairs)
    assert part.facts["across_train_and_test"] == ["ISIC_0 = ISIC_5"]
    assert part.facts["with_different_labels"] == ["ISIC_0 = ISIC_1"]
    assert part.facts["across_groups"] == ["ISIC_0 = ISIC_2"]
    assert part.facts["pairs"] == {"bytes": 2, "near": 1}
    assert len(odd(part)) == 3


def test_pairs_within_a_patient_and_no_pairs_are_right() -> None:
    index = index_of(patient_id=["a", "b", "a", "d", "e", "f"])
    assert odd(check_pairs(index, [("ISIC_0", "ISIC_2", "near")])) == []
    assert "no two images" in check_pairs(index, []).findings[0].text
