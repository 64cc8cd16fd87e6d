"""Groups: every link is followed, names say the smallest patient, row order changes nothing."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic.index import isic2019
from isic.split.groups import count_groups, group_of, labelled


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"lesion_id": None, "patient_id": None, **columns})


def test_a_lesion_of_which_one_row_names_the_patient_stays_whole() -> None:
    rows = table(
        image_id=["a", "b", "c", "d"],
        lesion_id=["L", "L", None, "M"],
        patient_id=["P", None, None, None],
    )
    assert group_of(rows).tolist() == ["P", "P", "c", "M"]


def test_two_patients_of_one_lesion_are_one_group_named_after_the_smaller() -> None:
    rows = table(image_id=["a", "b", "c"], patient_id=["P2", "P1", "P2"], lesion_id=["L", "L", "M"])
    assert group_of(rows).tolist() == ["P1"] * 3


@pytest.mark.parametrize("column", ["duplicate_of", "parent_id"])
def test_what_points_to_another_image_is_of_its_group(column: str) -> None:
    rows = table(image_id=["a", "b", "c", "d"], patient_id=["P", None, None, None])
    rows[column] = [None, "a", "absent", "absent"]
    # Two that were made from an image which is not there still belong together.
    assert group_of(rows).tolist() == ["P", "P", "c", "c"]


def test_a_downsampled_image_meets_its_original() -> None:
    rows = table(image_id=["ISIC_1_downsampled", "ISIC_1", "ISIC_2"], patient_id=[None, "P", None])
    assert group_of(rows).tolist() == ["P", "P", "ISIC_2"]


def test_overlap_ties_rows_and_passes_over_ids_of_elsewhere() -> None:
    rows = table(image_id=["a", "b", "c"], patient_id=["P", "Q", None])
    assert group_of(rows, [("b", "c"), ("a", "test_image")]).tolist() == ["P", "Q", "Q"]


def test_an_empty_cell_names_no_patient() -> None:
    assert group_of(table(image_id=["a", "b"], patient_id=["", ""])).tolist() == ["a", "b"]


def test_one_name_for_a_patient_and_a_lesion_does_not_make_one_group() -> None:
    rows = table(
        image_id=["a", "b", "1"], patient_id=["1", None, None], lesion_id=[None, "1", None]
    )
    assert group_of(rows).tolist() == ["patient_id:1", "lesion_id:1", "image_id:1"]


def test_a_table_with_image_ids_alone() -> None:
    assert group_of(pd.DataFrame({"image_id": ["b", "a"]})).tolist() == ["b", "a"]


def by_search(rows: pd.DataFrame, pairs: list[tuple[str, str]]) -> list[frozenset[str]]:
    """The groups, found by looking at every two rows again and again."""
    linked = {frozenset(p) for p in pairs}
    groups = [frozenset([i]) for i in rows["image_id"]]
    keys = {r["image_id"]: r for r in rows.to_dict("records")}

    def meet(a: str, b: str) -> bool:
        x, y = keys[a], keys[b]
        same = any(x[k] is not None and x[k] == y[k] for k in ("patient_id", "lesion_id"))
        own = {a: {a, x["parent_id"]} - {None}, b: {b, y["parent_id"]} - {None}}
        return same or bool(own[a] & own[b]) or frozenset((a, b)) in linked

    changed = True
    while changed:
        changed = False
        for g in groups:
            for h in groups:
                if g != h and any(meet(a, b) for a in g for b in h):
                    groups = [x for x in groups if x not in (g, h)] + [g | h]
                    changed = True
                    break
            if changed:
                break
    return groups


ids = [f"i{n}" for n in range(9)]
some = st.lists(st.sampled_from(["1", "2", "3", None, None]), min_size=9, max_size=9)


parents_of = st.lists(st.sampled_from([*ids, None, None, None, None]), min_size=9, max_size=9)
pairs_of = st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), max_size=2)


@settings(max_examples=40)
@given(some, some, parents_of, pairs_of, st.randoms())
def test_the_same_groups_as_a_plain_search(
    patients: list[str | None],
    lesions: list[str | None],
    parents: list[str | None],
    pairs: list[tuple[str, str]],
    random: Any,
) -> None:
    rows = table(
        image_id=ids,
        patient_id=[p and f"P{p}" for p in patients],
        lesion_id=[x and f"L{x}" for x in lesions],
        parent_id=parents,
    ).astype(object)
    name = group_of(rows, pairs).set_axis(ids)
    found = {frozenset(members.index) for _, members in name.groupby(name)}
    assert found == set(by_search(rows.where(rows.notna(), None), pairs))
    for members in found:
        own = rows[rows["image_id"].isin(members)]
        named = [own[k].dropna().min() for k in ("patient_id", "lesion_id", "image_id")]
        assert set(name[list(members)]) == {next(n for n in named if isinstance(n, str))}
    order = list(range(9))
    random.shuffle(order)
    again = group_of(rows.iloc[order], pairs).set_axis([ids[i] for i in order])
    assert again[ids].tolist() == name.tolist()


def test_no_rows_and_rows_that_stand_twice() -> None:
    assert group_of(table(image_id=[])).tolist() == []
    rows = table(image_id=["a", "a", "b"], patient_id=["P", None, None])
    assert group_of(rows, [("b", "a")]).tolist() == ["P", "P", "P"]


def test_classes_are_called_by_their_columns_in_an_index(archive2019: Path) -> None:
    rows = labelled(isic2019.build_index(archive2019).table)
    titles = count_groups(rows, group_of(rows)).titles
    assert titles[:2] == ["target 0 (MEL)", "target 1 (NV)"]
    bare = rows[["image_id", "target"]]
    assert count_groups(bare, group_of(bare)).titles[0] == "target 0"
