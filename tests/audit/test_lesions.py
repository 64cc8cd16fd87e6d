"""Images of one lesion that contradict each other."""

import dataclasses
from pathlib import Path

import pytest

from isic.audit.findings import ODD
from isic.audit.lesions import check_lesions
from isic.index.milk10k import build_index
from isic.index.schema import Index, sample_rows
from tests.audit.test_leaks import index_of, odd


def test_several_labels_and_patients_are_named() -> None:
    part = check_lesions(index_of(lesion_id=["u", "u", "v", "w", "x", "y"]))
    assert part.facts["several_labels"] == part.facts["several_patients"] == ["u"]
    assert len(odd(part)) == 2
    assert check_lesions(index_of()).findings == []


@pytest.fixture
def milk(milk32: Path) -> Index:
    return build_index(milk32)


def test_nothing_differs_within_a_generated_lesion(milk: Index) -> None:
    assert check_lesions(milk).findings == []


@pytest.mark.parametrize(
    ("column", "value"),
    [("age", 99.0), ("age", None), ("sex", "other"), ("site", "x"), ("skin_tone_class", 9)],
)
def test_what_a_lesion_takes_from_its_first_view_alone_is_named(
    milk: Index, column: str, value: object
) -> None:
    at = milk.table.index[(milk.table["view"] == "clinical") & milk.table["age"].notna()][3]
    lesion = milk.table.loc[at, "lesion_id"]
    before = sample_rows(milk)[column]
    milk.table.loc[at, column] = value
    assert sample_rows(milk)[column].equals(before), "the other view's value is lost"
    (finding,) = check_lesions(milk).findings
    assert finding.state == ODD
    assert f"{column} in 1: {lesion}" in finding.text
    assert "dermoscopic" in finding.todo
    of_images = dataclasses.replace(milk.info, row_unit="image")
    assert check_lesions(dataclasses.replace(milk, info=of_images)).findings == []
