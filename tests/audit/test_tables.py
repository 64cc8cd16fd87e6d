"""Counts, vocabularies and empty cells, as the table has them."""

import dataclasses

from isic.audit.findings import NOTE, ODD, RIGHT
from isic.audit.tables import check_table
from isic.index.schema import Index


def by_subject(index: Index) -> dict[str, tuple[str, str]]:
    return {f.subject: (f.state, f.text) for f in check_table(index).findings}


def test_counts_that_differ_are_odd_and_equal_ones_right(whole: Index) -> None:
    facts = check_table(whole).facts
    counts = {"train": 600, "test": 20, "malignant": 60, "patients": 150, "images": 620}
    assert counts.items() <= facts["counts"].items()
    state, text = by_subject(whole)["counts"]
    assert state == ODD
    assert "train 600 of 401,059" in text
    info = dataclasses.replace(whole.info, published_counts=counts)
    assert by_subject(dataclasses.replace(whole, info=info))["counts"][0] == RIGHT


def test_values_never_seen_before_are_listed(whole: Index) -> None:
    known = {"sex": ["female", "male"], "site": ["head/neck"], "absent": ["x"]}
    info = dataclasses.replace(whole.info, vocabularies=known)
    index = dataclasses.replace(whole, info=info)
    unseen = check_table(index).facts["unseen_values"]
    assert set(unseen) == {"site"}
    rows = whole.table["site"].value_counts()
    assert unseen["site"]["posterior torso"] == rows["posterior torso"]
    state, text = by_subject(index)["values"]
    assert state == ODD
    assert f"posterior torso ({rows['posterior torso']})" in text
    table = whole.table.assign(site="head/neck")
    assert by_subject(dataclasses.replace(index, table=table))["values"][0] == RIGHT


def test_empty_cells_are_counted(whole: Index) -> None:
    age = whole.table["age"].where(whole.table.index > 6)
    part = check_table(dataclasses.replace(whole, table=whole.table.assign(age=age, sex=None)))
    empty = int(age[whole.table["split"] == "train"].isna().sum())
    assert part.facts["missing_values"]["train"]["age"] == empty >= 7
    text = next(f.text for f in part.findings if f.subject == "empty")
    assert f"age {empty}, sex all" in text


def test_rows_without_a_label_are_odd_and_what_the_reader_said_is_a_note(whole: Index) -> None:
    target = whole.table["target"].where(whole.table.index != 3)
    index = dataclasses.replace(whole, table=whole.table.assign(target=target))
    index.notes.append("3 records are in no table")
    index.notes.append("3 rows have no image file")
    found = by_subject(index)
    assert found["labels"][0] == ODD
    assert "1 train rows have none" in found["labels"][1]
    assert found["reader"] == (NOTE, "3 records are in no table")
