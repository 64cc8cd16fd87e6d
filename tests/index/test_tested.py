"""Pseudo-labels among extra rows: test images may train as such, training images may not."""

from pathlib import Path

import pytest

from isic.acquire.synthetic import write_isic2024
from isic.errors import DataError
from isic.index.extra import with_extra
from isic.index.isic2024 import build_index
from isic.index.schema import Index, faults_of, index_hash

HEAD = "image,label,image_id,parent_id,pseudo,pseudo_run\n"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Index:
    root = tmp_path_factory.mktemp("pseudo") / "isic2024"
    write_isic2024(root, n_images=30, n_test=4, size_range=32, seed=3)
    return build_index(root)


def csv(folder: Path, text: str, name: str = "pseudo.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def ids(index: Index) -> tuple[str, str]:
    """A train and a test image."""
    return str(index.table["image_id"].iloc[0]), str(index.table["image_id"].iloc[-1])


def test_a_marked_test_image_may_train(archive, tmp_path):
    _, test = ids(archive)
    row = f"x.jpg,benign,{test}_pseudo,{test},true,it\n"
    index = with_extra(archive, csv(tmp_path, HEAD + row + "y.jpg,malignant,,,,\n"))
    extra = index.table[index.table["external"]].set_index("image_id")
    assert extra["pseudo"].fillna("").to_dict() == {f"{test}_pseudo": "it", "y": ""}
    assert extra["split"].eq("train").all()
    assert index.table.loc[~index.table["external"], "pseudo"].isna().all()
    assert not faults_of(index.table, index.info)
    assert test in set(index.table.loc[index.table["split"] == "test", "image_id"])


def test_without_the_mark_it_is_refused(archive, tmp_path):
    _, test = ids(archive)
    for mark in ("false,", ","):
        row = f"x.jpg,benign,{test}_pseudo,{test},{mark}\n"
        with pytest.raises(DataError, match=f"1 rows show test images: {test}_pseudo"):
            with_extra(archive, csv(tmp_path, HEAD + row))
    alone = f"x.jpg,benign,{test}_pseudo,,,\n"  # its name alone says what it shows
    with pytest.raises(DataError, match="show test images"):
        with_extra(archive, csv(tmp_path, HEAD + alone))


def test_what_was_made_from_a_pseudo_label_is_refused_too(archive, tmp_path):
    _, test = ids(archive)
    rows = f"x.jpg,benign,{test}_pseudo,{test},true,it\nz.jpg,benign,z,{test}_pseudo,,\n"
    with pytest.raises(DataError, match="1 rows show test images: z;"):
        with_extra(archive, csv(tmp_path, HEAD + rows))


@pytest.mark.parametrize("parent", [True, False])
def test_pseudo_labels_of_training_images_are_refused(archive, tmp_path, parent):
    train, _ = ids(archive)
    row = f"x.jpg,benign,{train}_pseudo,{train if parent else ''},true,it\n"
    with pytest.raises(DataError, match=f"1 pseudo-labels are of training images: {train}_pseudo"):
        with_extra(archive, csv(tmp_path, HEAD + row))


def test_its_test_row_may_be_missing(archive, tmp_path):
    row = "x.jpg,benign,gone_pseudo,gone,true,it\n"
    assert len(with_extra(archive, csv(tmp_path, HEAD + row)).table) == len(archive.table) + 1


def test_its_images_lie_where_it_says(archive, tmp_path):
    (tmp_path / "images").mkdir()
    head = HEAD.strip() + ",pseudo_folder\n"
    row = f"x.jpg,benign,a,,true,it,{tmp_path / 'images'}\n"
    index = with_extra(archive, csv(tmp_path / "csv", head + row))
    assert index.sources.path("@extra0/x.jpg") == tmp_path / "images" / "x.jpg"
    other = f"y.jpg,benign,b,,true,it,{tmp_path}\n"
    for rows in (row + other, row.replace("images", "none"), "x.jpg,benign,a,,true,it,images\n"):
        with pytest.raises(DataError, match="pseudo_folder must be one absolute folder"):
            with_extra(archive, csv(tmp_path / "csv", head + rows))


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ("maybe,it", "pseudo must be true or false: 1 rows, a"),
        ("true,", "pseudo=true needs pseudo_run: 1 rows, a"),
        (",it", "pseudo_run is given, but pseudo is not true: 1 rows, a"),
    ],
)
def test_marks_that_contradict_each_other(archive, tmp_path, marks, message):
    with pytest.raises(DataError, match=message):
        with_extra(archive, csv(tmp_path, f"{HEAD}x.jpg,benign,a,,{marks}\n"))


def test_who_gave_the_label_is_part_of_the_rows(archive, tmp_path):
    _, test = ids(archive)
    hashes = set()
    for run in ("one", "two"):
        row = f"x.jpg,benign,{test}_pseudo,{test},true,{run}\n"
        index = with_extra(archive, csv(tmp_path, HEAD + row))
        hashes.add(index_hash(index.table, external=True))
    assert len(hashes) == 2
