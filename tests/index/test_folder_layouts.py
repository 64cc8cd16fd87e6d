"""Folders as people have them: tables below the root, splits under any name, masks, left-overs."""

from pathlib import Path

import pytest

from isic.errors import DataError
from isic.index.folder import INFO, build_index
from isic.index.unlabelled import build_index as build_unlabelled
from isic.prepare import PixelOptions, load_rows
from tests.index.small_archives import touch
from tests.index.test_folder import put, table

LABELS = "image,label\na,x\nb,y\nc,x\n"
NAMES = ("in/a.jpg", "in/b.jpg", "in/c.jpg")


def splits(root: Path, **options) -> dict[str, tuple[str, str]]:
    """Image -> its split and its class."""
    rows = build_index(root, **options).table
    return {
        image: (split, label)
        for image, split, label in zip(rows["image"], rows["split"], rows["diagnosis"], strict=True)
    }


# ---- tables below the root


@pytest.mark.parametrize("folder", ["truth", "in", "deep/er"])
def test_the_only_table_of_images_below_the_root_is_read_with_a_note(tmp_path, folder):
    put(tmp_path, *NAMES, "more/a_picture.jpg")
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    index = build_index(table(tmp_path, LABELS, f"{folder}/labels.csv"))
    assert index.info.classes == ("x", "y")
    assert index.table["image"].tolist() == list(NAMES)
    assert f"{folder}/labels.csv is read, the only table of images" in "\n".join(index.notes)


def test_tables_of_parts_side_by_side_are_no_class_folders(tmp_path):
    for part in ("one", "two"):
        put(tmp_path, f"{part}/{part}_a.jpg", f"{part}/{part}_b.jpg")
        table(tmp_path / part, f"isic_id,diagnosis\n{part}_a,x\n{part}_b,y\n", "metadata.csv")
    with pytest.raises(
        DataError, match=r"one/metadata\.csv, two/metadata\.csv.*data\.index\.table"
    ):
        build_index(tmp_path)
    assert len(build_index(tmp_path, table="two/metadata.csv").table) == 2
    assert build_index(tmp_path, table=False).info.classes == ("one", "two")


def test_a_table_of_images_that_are_elsewhere_is_said(tmp_path):
    put(tmp_path, *NAMES, "out/d.jpg", "out/p.csv")
    table(tmp_path / "out", "image,label\na,x\np,y\nq,x\n", "p.csv")
    with pytest.raises(DataError, match=r"out/p\.csv below it name images \(33% of its first"):
        build_index(tmp_path)


def test_a_table_whose_columns_nobody_knows_is_one_of_images_by_its_values(tmp_path):
    put(tmp_path, "images/NEL/Nel1.jpg", "images/NEL/Nel2.jpg", "images/AAL/Aal1.jpg")
    body = "case,diagnosis,derm\n1,x,NEL/Nel1.jpg\n2,y,NEL/NEL2.jpg\n3,x,AAL/Aal1.jpg\n"
    table(tmp_path / "meta", body)
    with pytest.raises(DataError, match=r"names of image files are in derm\); name it"):
        build_index(tmp_path)
    assert build_index(tmp_path, columns={"image": "derm"}).info.classes == ("x", "y")


def test_tables_of_something_else_leave_class_folders_alone(tmp_path):
    put(tmp_path, "a/0.jpg", "a/1.jpg", "b/2.jpg", ".hidden/labels.csv")
    table(tmp_path / "a", "epoch,flag\n" + "5,0\n6,1\n" * 4, "log.csv")
    table(tmp_path / "b", "", "empty.csv")
    table(put(tmp_path, "b/c/d/3.jpg") / "b/c/d", "image,label\n0,x\n", "deep.csv")
    (tmp_path / "b/picture.csv").write_bytes(b"\x1f\x8b\x08\xff\x00\xfe")
    assert build_index(tmp_path).info.classes == ("a", "b")


def test_of_several_tables_at_the_root_the_only_one_of_images_is_read(tmp_path):
    put(tmp_path, *NAMES)
    table(table(tmp_path, "pixel0,label\n1,0\n2,1\n", "hmnist.csv"), LABELS)
    index = build_index(tmp_path)
    assert index.info.classes == ("x", "y")
    assert "labels.csv is read, the only one of 2 tables" in "\n".join(index.notes)


# ---- masks and left-overs


@pytest.mark.parametrize(
    "mask", ["a/1_segmentation.png", "b/2_mask_1.png", "masks/a/1.png", "a/train_masks/1.png"]
)
def test_masks_are_no_class_and_are_left_out_with_a_note(tmp_path, mask):
    index = build_index(put(tmp_path, "a/1.jpg", "b/2.jpg", mask))
    assert index.table["image"].tolist() == ["a/1.jpg", "b/2.jpg"]
    assert f"1 masks are no images of a class and are left out: {mask}" in index.notes


def test_images_beside_their_masks_have_no_class(tmp_path):
    put(tmp_path, "Input/1.jpg", "GroundTruth/1_segmentation.png")
    with pytest.raises(DataError, match=r"two or more classes, got Input; class folders lie"):
        build_index(tmp_path)


def test_masks_alone_are_images(tmp_path):
    put(tmp_path, "a/1_mask.png", "b/2_mask.png")
    assert build_index(tmp_path).info.classes == ("a", "b")


def test_what_a_network_drive_leaves_behind_is_no_class(tmp_path):
    put(tmp_path, "a/1.jpg", "b/2.jpg", "@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg", "a/@eaDir/1.jpg")
    assert list(splits(tmp_path)) == ["a/1.jpg", "b/2.jpg"]


# ---- splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train_images", "test_images"),
        ("Training_Set", "Test_Set"),
        ("train-data", "testing data"),
        ("train/train", "test/test"),
        ("train/images", "test/images"),
        ("train/Train_Images/data", "test"),
        ("data/train/skin", "data/test/skin"),
        ("Training/v1/images", "Test/v1/images"),
    ],
)
def test_splits_are_found_under_any_name(tmp_path, train, test):
    put(tmp_path, f"{train}/a/1.jpg", f"{train}/b/2.jpg", f"{test}/a/3.jpg", f"{test}/b/4.jpg")
    assert list(splits(tmp_path).values()) == [
        ("train", "a"),
        ("train", "b"),
        ("test", "a"),
        ("test", "b"),
    ]


def test_splits_below_the_classes_are_kept(tmp_path):
    put(tmp_path, *(f"S/{c}/{s}/{c}{s}.jpg" for c in "ab" for s in ("Training", "Testing")))
    assert set(splits(tmp_path).values()) == {(s, c) for c in "ab" for s in ("train", "test")}
    note = "folders below the classes are splits: Testing (test), Training (train)"
    assert note in build_index(tmp_path).notes


def test_splits_below_some_classes_alone_are_refused(tmp_path):
    put(tmp_path, "a/train/1.jpg", "a/2.jpg", "b/test/3.jpg")
    with pytest.raises(DataError, match=r"2 images .* in test, train below their class .*a/2\.jpg"):
        build_index(tmp_path)


def test_a_split_of_one_class_keeps_its_class(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/deep/3.jpg")
    assert splits(tmp_path)["test/a/deep/3.jpg"] == ("test", "a")


def test_unlabelled_test_images_may_lie_one_folder_deeper(tmp_path):
    put(tmp_path, "train/images/a/1.jpg", "train/images/b/2.jpg", "test/images/3.jpg")
    rows = build_index(tmp_path).table
    assert rows["target"].fillna(-1).tolist() == [0, 1, -1]


def test_folders_read_as_splits_are_named(tmp_path):
    put(tmp_path, "train_images/a/1.jpg", "train_images/b/2.jpg", "test_images/a/3.jpg")
    note = "folders above the classes are splits: test_images (test), train_images (train)"
    assert note in build_index(tmp_path).notes


def test_images_of_formats_that_are_not_read_are_counted_by_name(tmp_path: Path) -> None:
    touch(tmp_path / "a", ["1.jpg", "2.jpg", "IMG_3.HEIC"])
    touch(tmp_path / "b", ["4.png", "5.avif", "6.gif"])
    index = build_index(tmp_path)
    assert len(index.table) == 3
    (note,) = (n for n in index.notes if "not read" in n)
    assert "not read: 3 (" in note and "1 HEIC, 1 AVIF, 1 GIF" in note
    assert "a/IMG_3.HEIC, b/5.avif, b/6.gif" in note and "convert them to JPEG" in note


def test_a_table_that_names_other_formats_finds_what_they_were_converted_to(
    tmp_path: Path,
) -> None:
    touch(tmp_path, ["1.heic", "2.heic", "2.jpg", "3.jpg"])
    (tmp_path / "labels.csv").write_text("image,label\n1.heic,x\n2.heic,y\n3.jpg,x\n")
    index = build_index(tmp_path)
    assert index.table["image"].fillna("").tolist() == ["", "2.jpg", "3.jpg"]
    assert any("1 of 3 rows have no image file: 1.heic" in note for note in index.notes)
    rows = index.table[index.table["image_id"] == "1"].reset_index(drop=True)
    with pytest.raises(DataError, match=r"1 HEIC.*1.heic.*convert them"):
        load_rows(index, rows, PixelOptions(tmp_path / "cache"), image_size=32)


def test_a_folder_of_nothing_but_other_formats_says_so(tmp_path: Path) -> None:
    touch(tmp_path / "a", ["1.heic", "2.webm"])
    with pytest.raises(DataError, match=r"holds no image and no CSV.*1 HEIC.*convert"):
        build_index(tmp_path)
    info = INFO.to_dict()
    with pytest.raises(DataError, match=r"got none in .*1 HEIC.*convert"):
        build_unlabelled(tmp_path, info=info)
