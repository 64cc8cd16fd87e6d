"""Marks of the archive: counted, and doubted where nothing speaks for them."""

from pathlib import Path

import pandas as pd
import pytest

from isic.audit.duplicates import check_duplicates
from isic.audit.findings import ODD, RIGHT
from isic.index.isic2020 import build_index
from isic.index.schema import Index
from tests.audit.test_leaks import index_of


def marked(**columns: object) -> Index:
    """ISIC_1 and ISIC_2 are marked as ISIC_0 again."""
    first = "ISIC_0"
    return index_of(duplicate_of=[None, first, first, None, None, None], **columns)


def read(*rows: int) -> pd.Series:
    return pd.Series([i in rows for i in range(6)])


def test_without_marks_nothing_is_said() -> None:
    assert check_duplicates(index_of()).findings == []
    assert check_duplicates(index_of(duplicate_of=None)).facts == {"marked": 0}


def test_one_patient_and_target_speak_for_a_mark() -> None:
    target = pd.array([1, 1, 1, 0, None, None], dtype="Int64")
    part = check_duplicates(marked(patient_id=list("aaabcd"), target=target))
    (finding,) = part.findings
    assert finding.state == RIGHT
    assert finding.text == (
        "2 images are marked as another one again and never used: 2 have its patient and target, "
        "none compared"
    )


@pytest.mark.parametrize("patients", [list("aabcde"), [None] * 6, ["a", "a", None, "d", "e", "f"]])
def test_another_or_no_patient_is_doubted_unless_both_show_the_same(
    patients: list[str | None],
) -> None:
    index = marked(patient_id=patients, target=pd.array([1, 1, 1, 0, None, None], dtype="Int64"))
    part = check_duplicates(index)
    assert part.findings[0].state == ODD
    assert part.facts["doubted"][-1] == "ISIC_2"
    # 0 = 3 = 1 and 3 = 2: of equal files each is paired with the one before.
    pairs = [("ISIC_0", "ISIC_3", "near"), ("ISIC_1", "ISIC_3", "bytes")]
    pairs.append(("ISIC_2", "ISIC_3", "bytes"))
    part = check_duplicates(index, pairs, read(0, 1, 2, 3))
    assert part.findings[0].state == RIGHT
    assert "2 of 2 compared show the same" in part.findings[0].text
    part = check_duplicates(index, (), read(0, 1, 2))
    assert part.findings[0].state == ODD
    assert "0 of 2 compared show the same" in part.findings[0].text
    assert check_duplicates(index, (), read(1, 2)).facts["compared"] == 0


def test_another_target_or_an_image_that_is_not_there_is_doubted() -> None:
    target = pd.array([1, 1, 0, 0, None, None], dtype="Int64")
    part = check_duplicates(marked(patient_id="a", target=target))
    assert part.facts["doubted"] == ["ISIC_2"]
    same = pd.array([1] * 6, dtype="Int64")
    gone = index_of(patient_id="a", target=same, duplicate_of=["ISIC_9", *[None] * 5])
    assert check_duplicates(gone).facts["doubted"] == ["ISIC_0"]


def test_a_name_alone_shows_nothing() -> None:
    ids = ["X", "X_downsampled", "B", "C", "D", "E"]
    index = index_of(image_id=ids, duplicate_of=[None, "X", *[None] * 4])
    assert check_duplicates(index).facts["doubted"] == ["X_downsampled"]


def test_marks_of_a_generated_archive_are_right(archive2020: Path) -> None:
    index = build_index(archive2020)
    (finding,) = check_duplicates(index).findings
    assert finding.state == RIGHT
    assert f"{index.table['duplicate_of'].notna().sum()} images are marked" in finding.text


def test_the_pairs_of_siim_are_right(real_root: Path) -> None:
    part = check_duplicates(build_index(real_root / "isic2020"))
    assert part.findings[0].state == RIGHT
    assert part.facts["marked"] == part.facts["same_patient_and_target"] == 425
