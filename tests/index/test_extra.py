"""Extra training images: where they lie, what they are, and everything that is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.acquire.synthetic import write_isic2024
from isic.errors import DataError
from isic.index.extra import with_extra
from isic.index.isic2024 import build_index
from isic.index.schema import Index, faults_of, index_hash, sample_rows


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Index:
    root = tmp_path_factory.mktemp("extra") / "isic2024"
    write_isic2024(root, n_images=30, n_test=4, size_range=32, seed=3)
    return build_index(root)


@pytest.fixture
def lesions() -> Index:
    """Two lesions of two views, as MILK10k has them, without files."""
    from isic.index.milk10k import INFO
    from isic.index.schema import one_hot, standard_columns

    table = pd.DataFrame(
        {
            "image_id": ["A1", "A2", "B1", "B2"],
            "lesion_id": ["A", "A", "B", "B"],
            "view": ["dermoscopic", "clinical"] * 2,
            "target": pd.array([0, 0, 1, 1], "Int64"),
            "split": "train",
            "image": ["a1.jpg", "a2.jpg", "b1.jpg", "b2.jpg"],
        }
    ).reindex(columns=[c for c in standard_columns(INFO) if c not in INFO.classes])
    table = table.join(one_hot(table["target"], INFO.classes))
    return Index(table[[*standard_columns(INFO)]], INFO, Path("nowhere"))


def csv(folder: Path, text: str, name: str = "extra.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def extra_rows(index: Index) -> pd.DataFrame:
    return index.table[index.table["external"]].set_index("image_id")


def test_rows_are_added_behind_the_train_rows_and_never_validate(archive, tmp_path):
    parent = archive.table["image_id"][0]
    text = (
        f"image,label,weight,parent_id,age\nmade/x.jpg,malignant,0.5,{parent},40\ny.png,benign,,,\n"
    )
    index = with_extra(archive, csv(tmp_path, text))
    table = index.table
    assert table["split"].tolist() == ["train"] * 32 + ["test"] * 4
    assert table["external"].tolist() == [False] * 30 + [True] * 2 + [False] * 4
    rows = extra_rows(index)
    assert rows.index.tolist() == ["x", "y"]
    assert rows["target"].tolist() == [1, 0]
    assert rows["malignant"].tolist() == [1, 0]
    assert rows["weight"].tolist() == [0.5, 1.0]
    assert rows["parent_id"].fillna("").tolist() == [parent, ""]
    np.testing.assert_array_equal(rows["age"], [40, np.nan])
    assert rows["image"].tolist() == ["@extra0/made/x.jpg", "@extra0/y.png"]
    assert index.sources.path("@extra0/y.png") == tmp_path / "y.png"
    assert table["weight"].notna().all()
    assert not faults_of(table, index.info)


def test_the_archives_own_rows_stay_as_they_were(archive, tmp_path):
    index = with_extra(archive, csv(tmp_path, "image,target\nx.jpg,1\n"))
    kept = index.table[~index.table["external"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept[archive.table.columns], archive.table)
    assert "external" not in archive.table
    assert index_hash(index.table) != index_hash(archive.table)


def test_several_files_have_a_mount_each(archive, tmp_path):
    one = csv(tmp_path / "one", "image,target\nx.jpg,1\n")
    two = csv(tmp_path / "two", "image,target,image_id,parent_id\nx.jpg,0,z,x\n")
    index = with_extra(archive, [one, str(two)])
    assert extra_rows(index)["image"].to_dict() == {"x": "@extra0/x.jpg", "z": "@extra1/x.jpg"}
    assert index.mounts == {"extra0": tmp_path / "one", "extra1": tmp_path / "two"}
    again = with_extra(index, csv(tmp_path / "three", "image,target\nw.jpg,1\n"))
    assert extra_rows(again)["image"]["w"] == "@extra2/w.jpg"


def test_names_in_any_case_and_columns_not_used_are_noted(archive, tmp_path):
    index = with_extra(archive, csv(tmp_path, "Image,LABEL,camera\r\nx.jpg,Malignant,3\r\n"))
    assert extra_rows(index)["target"].tolist() == [1]
    assert "columns not used: camera" in "\n".join(index.notes)
    assert "1 extra rows" in "\n".join(index.notes)


@pytest.mark.parametrize(
    ("column", "meant"), [("wieght", "weight"), ("Weights", "weight"), ("parent", "parent_id")]
)
def test_a_column_that_looks_like_a_known_one_is_refused(archive, tmp_path, column, meant):
    with pytest.raises(DataError, match=f"'{column}' \\(is {meant} meant\\?\\)"):
        with_extra(archive, csv(tmp_path, f"image,target,{column}\nx.jpg,1,2\n"))


def test_a_parent_may_be_named_as_a_file(archive, tmp_path):
    parent = archive.table["image_id"][0]
    text = f"image,target,parent_id,patient_id\nx.jpg,1,{parent}.jpg,unknown\n"
    row = extra_rows(with_extra(archive, csv(tmp_path, text))).loc["x"]
    assert row["parent_id"] == parent
    assert pd.isna(row["patient_id"])


def test_what_was_made_from_a_test_image_is_refused(archive, tmp_path):
    test = archive.table["image_id"].iloc[-1]
    child = f"image,target,parent_id\nx.jpg,1,{test}\ny.jpg,1,x\n"
    with pytest.raises(DataError, match=r"2 rows show test images: x, y; leave them out"):
        with_extra(archive, csv(tmp_path, child))
    one = csv(tmp_path / "one", "image,target,parent_id\nz.jpg,1,w\n")
    two = csv(tmp_path / "two", f"image,target,parent_id\nw.jpg,1,{test}\n")
    with pytest.raises(DataError, match="2 rows show test images: z, w"):
        with_extra(archive, [one, two])
    reduced = f"image,target\n{test}_downsampled.jpg,1\n"
    with pytest.raises(DataError, match=f"1 rows show test images: {test}_downsampled"):
        with_extra(archive, csv(tmp_path, reduced))


def test_a_circle_of_parents_ends(archive, tmp_path):
    text = "image,target,parent_id\nx.jpg,1,y\ny.jpg,1,x\n"
    assert len(extra_rows(with_extra(archive, csv(tmp_path, text)))) == 2


def test_a_patient_of_the_test_rows_is_a_note(archive, tmp_path):
    patient = archive.table.loc[archive.table["split"] == "test", "patient_id"].iloc[0]
    index = with_extra(archive, csv(tmp_path, f"image,target,patient_id\nx.jpg,1,{patient}\n"))
    assert "1 extra rows are of patients of test rows: x" in "\n".join(index.notes)


FAULTS = [
    ("image,label\nx.jpg,melanoma\n", "label must be one of benign, malignant: 1 rows, x"),
    ("image,target\nx.jpg,2\n", "target must be 0..1: 1 rows, x"),
    ("image,target\nx.jpg,\n", "neither label nor target: 1 rows, x"),
    ("image,label,target\nx.jpg,benign,1\n", "label and target disagree: 1 rows, x"),
    ("image,target\n,1\n", "1 rows have no image: line 2"),
    ("image,target\n../x.jpg,1\n", "got 1 outside: ../x.jpg"),
    ("image,target\n/x.jpg,1\n", "got 1 outside: /x.jpg"),
    ("image,target,weight\nx.jpg,1,inf\n", "weight must be finite and above 0: 1 rows, x"),
    ("image,target,weight\nx.jpg,1,nine\n", "weight must be finite"),
    ("image,target,weight\nx.jpg,1,0\n", "weight must be finite"),
    ("image,target,weight\nx.jpg,1,-1\n", "weight must be finite"),
    ("image,target,age\nx.jpg,1,old\n", "age must be a number: 1 rows, x"),
    ("image,target,view\nx.jpg,1,clinical\n", "view must be one of tbp, got clinical"),
    ("image,target,image_id\nx.jpg,1,a b\n", "must match"),
    ("image,target,image_id\nx.jpg,1,q\ny.jpg,1,q\n", "1 duplicate"),
    ("image,target,parent_id\nx.jpg,1,nobody\n", "parent_id must be .* got 1 others: nobody"),
    ("picture,target\nx.jpg,1\n", "expected the columns image and label"),
    ("image,weight\nx.jpg,1\n", "expected the columns image and label"),
    ("image,target\n", "no rows"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_a_faulty_file_is_refused_with_names(archive, tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        with_extra(archive, csv(tmp_path, text))


def test_all_faults_of_a_file_are_named_at_once(archive, tmp_path):
    text = "image,target,weight,age\nx.jpg,7,nan,old\ny.jpg,1,inf,3\n"
    with pytest.raises(DataError) as error:
        with_extra(archive, csv(tmp_path, text))
    for part in ("target must be", "weight must be", "age must be", "extra.csv"):
        assert part in str(error.value)


def test_ids_of_the_archive_are_taken(archive, tmp_path):
    taken = archive.table["image_id"].iloc[-1]  # of a test row
    with pytest.raises(DataError, match=f"image_id is taken.*1 rows, {taken}"):
        with_extra(archive, csv(tmp_path, f"image,target\n{taken}.jpg,1\n"))


def test_a_file_that_is_not_there_is_said(archive, tmp_path):
    with pytest.raises(DataError, match=r"no such file .*none\.csv"):
        with_extra(archive, tmp_path / "none.csv")


# ---- an archive of lesions


def test_an_extra_image_is_a_lesion_of_its_own(lesions, tmp_path):
    text = "image,label,parent_id\nx.jpg,BCC,A1\ny.jpg,NV,\n"
    index = with_extra(lesions, csv(tmp_path, text))
    samples = sample_rows(index).set_index("lesion_id")
    assert samples.index.tolist() == ["A", "B", "x", "y"]
    assert samples["external"].tolist() == [False, False, True, True]
    assert samples.loc["x", "image_dermoscopic"] == "@extra0/x.jpg"
    assert pd.isna(samples.loc["x", "image_clinical"])


def test_two_extra_views_are_one_lesion(lesions, tmp_path):
    text = "image,label,lesion_id,view\nx.jpg,NV,C,clinical\ny.jpg,NV,C,dermoscopic\n"
    sample = sample_rows(with_extra(lesions, csv(tmp_path, text))).set_index("lesion_id").loc["C"]
    assert sample["image_id"] == "y"
    assert sample["image_clinical"] == "@extra0/x.jpg"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x.jpg,NV,A,", "lesion_id is one of the archive's; .*parent_id: 1 rows, A"),
        ("x.jpg,NV,C,\ny.jpg,NV,C,", "two images of one lesion in one view"),
        ("x.jpg,NV,C,\ny.jpg,MEL,C,clinical", "one lesion with two labels: 2 rows, C"),
    ],
)
def test_a_lesion_that_would_hide_another_is_refused(lesions, tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        with_extra(lesions, csv(tmp_path, f"image,label,lesion_id,view\n{rows}\n"))
