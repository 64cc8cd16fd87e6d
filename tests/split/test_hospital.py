"""Leave one hospital out: which are folds, who trains everywhere, and patients of two hospitals."""

import logging

import pandas as pd
import pytest

from isic.errors import DataError
from isic.split.groups import group_of
from isic.split.hospital import hospital_folds


def rows_of(*rows: tuple[str | None, str, int]) -> pd.DataFrame:
    """Rows of (hospital, patient, target)."""
    frame = pd.DataFrame(rows, columns=["attribution", "patient_id", "target"])
    frame["image_id"] = [f"i{n}" for n in range(len(frame))]
    return frame


TWO = [("A", "a1", 0), ("A", "a2", 1), ("B", "b1", 0), ("B", "b2", 1)]


def folds(rows: pd.DataFrame) -> list[int]:
    fold = hospital_folds(rows, group_of(rows))
    assert fold.dtype == "int64"
    return [int(f) for f in fold]


def test_each_hospital_with_two_classes_is_a_fold_and_others_train_everywhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    rows = rows_of(*TWO[2:], *TWO[:2], ("C", "c1", 0), (None, "d1", 1), (" ", "d2", 0))
    assert folds(rows) == [1, 1, 0, 0, -2, -2, -2]
    assert "fold 0: 2 rows of A" in caplog.text
    assert "fold 1: 2 rows of B" in caplog.text
    assert "in every training: 3 rows of C, unknown" in caplog.text


def test_a_patient_of_two_hospitals_goes_where_most_rows_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = rows_of(*TWO, ("A", "p", 0), ("B", "p", 0), ("B", "p", 1), (None, "p", 0))
    assert folds(rows)[4:] == [1, 1, 1, 1]
    assert "2 rows are of groups" in caplog.text
    assert folds(rows_of(*TWO, ("B", "p", 0), ("A", "p", 0)))[4:] == [0, 0]  # of equals, the first


def test_a_hospital_that_patients_leave_with_one_class_is_no_fold() -> None:
    # C has two classes, but its only positive is of a patient with more rows in A.
    rows = rows_of(*TWO, ("C", "c", 0), ("C", "p", 1), ("A", "p", 0), ("A", "p", 0))
    assert folds(rows) == [0, 0, 1, 1, -2, 0, 0, 0]


def test_row_order_changes_nothing() -> None:
    rows = rows_of(*TWO, ("A", "p", 0), ("B", "p", 0), ("C", "c", 1))
    mixed = rows.sample(frac=1, random_state=3)
    again = hospital_folds(mixed, group_of(mixed))
    pd.testing.assert_series_equal(again.sort_index(), hospital_folds(rows, group_of(rows)))


@pytest.mark.parametrize(
    "rows", [TWO[:2], [(None, "a", 0), (None, "b", 1)]], ids=["one hospital", "none known"]
)
def test_one_hospital_is_none(rows: list[tuple[str | None, str, int]]) -> None:
    with pytest.raises(DataError, match=r"two attributions .* got [01]; .* Use folds=grouped"):
        folds(rows_of(*rows))
