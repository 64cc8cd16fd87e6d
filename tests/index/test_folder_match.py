"""Tables whose names do not lead straight to one file: copies, paths from elsewhere, no header."""

import unicodedata

import pytest

from isic.errors import DataError
from isic.index.folder import build_index
from tests.index.test_folder import put, table

ROWS = {"a": "x", "b": "y", "c": "x"}


def paths(*names: str) -> str:
    return "path,label\n" + "".join(f"{n},{'xyx'[i % 3]}\n" for i, n in enumerate(names))


# ---- a name of several files


def copies(tmp_path, *, alike):
    for folder in ("part_1", "PART-1"):
        put(tmp_path, f"{folder}/a.jpg", f"{folder}/b.jpg")
    if alike:
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / "part_1" / name).write_bytes((tmp_path / "PART-1" / name).read_bytes())
    return table(tmp_path, "image,label\na,x\nb,y\n")


def test_of_files_that_are_the_same_byte_for_byte_the_first_is_taken_with_a_note(tmp_path):
    index = build_index(copies(tmp_path, alike=True))
    assert index.table["image"].tolist() == ["PART-1/a.jpg", "PART-1/b.jpg"]
    assert "2 names fit several files of the same bytes" in "\n".join(index.notes)


def test_files_that_differ_are_refused_until_their_folder_is_named(tmp_path):
    copies(tmp_path, alike=False)
    with pytest.raises(DataError, match=r"data\.index\.images=FOLDER or \[FOLDER,FOLDER\]"):
        build_index(tmp_path)
    assert build_index(tmp_path, images="part_1").table["image"][0] == "part_1/a.jpg"


def test_several_folders_may_be_named(tmp_path):
    copies(tmp_path, alike=False)
    put(tmp_path, "part_2/c.jpg")
    table(tmp_path, "image,label\na,x\nb,y\nc,x\n")
    rows = build_index(tmp_path, images=["part_1/", "part_2"]).table
    assert rows["image"].tolist() == ["part_1/a.jpg", "part_1/b.jpg", "part_2/c.jpg"]
    with pytest.raises(DataError, match=r"no image file in .*part_3"):
        build_index(tmp_path, images=["part_1", "part_3"])


def test_the_command_lines_list_of_folders_is_one(tmp_path):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    put(tmp_path, "one/a.jpg", "two/b.jpg", "more/a.jpg")
    table(tmp_path, "image,label\na,x\nb,y\n")
    node = OmegaConf.create(
        {"_target_": "isic.index.folder.build_index", "_partial_": True, "images": ["one", "two"]}
    )
    assert instantiate(node)(tmp_path).table["image"].tolist() == ["one/a.jpg", "two/b.jpg"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_a_table_and_of_a_disk_may_be_written_in_two_forms(tmp_path, forms):
    on_disk, in_table = (unicodedata.normalize(form, "in/Müller_é.jpg") for form in forms)
    put(tmp_path, on_disk, "in/b.jpg")
    for name in (in_table, in_table.removeprefix("in/")):
        table(tmp_path, f"image,label\n{name},x\nb,y\n")
        assert set(build_index(tmp_path).table["image"]) == {on_disk, "in/b.jpg"}


def test_images_that_no_row_names_are_counted(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg", "more/c.jpg")
    index = build_index(table(tmp_path, "image,label\na,x\nb,y\n"))
    assert "1 image files are named by no row: more/c.jpg" in index.notes


# ---- paths from elsewhere


@pytest.mark.parametrize(
    "prefix", ["data/skin/", "/kaggle/input/skin/", "C:\\data\\skin\\", "../skin/", "./../"]
)
def test_what_lay_in_front_of_all_paths_is_dropped_with_a_note(tmp_path, prefix):
    put(tmp_path, "images/a.jpg", "images/b.jpg", "images/more/c.jpg", "copy/a.jpg")
    names = (f"{prefix}images/{n}" for n in ("a.jpg", "b.jpg", "more/c.jpg", "gone.jpg"))
    index = build_index(table(tmp_path, paths(*names)))
    assert index.table["image"].fillna("").tolist() == [
        *("images/a.jpg", "images/b.jpg", "images/more/c.jpg", "")
    ]
    assert index.table["image_id"].tolist() == ["a", "b", "c", "gone"]
    assert "no file lies where the table says; found by the ends of the paths" in "\n".join(
        index.notes
    )


def test_folders_in_which_paths_differ_are_dropped_where_every_row_then_has_its_file(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table(tmp_path, paths("/x/train/a.jpg", "/x/val/b.jpg", "/x/val/deep/c.jpg"))
    assert build_index(tmp_path).table["image"].tolist() == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (("a.jpg", "b.jpg"), ("/x/train/a.jpg", "/x/val/b.jpg", "/x/val/c.jpg")),  # one is missing
        (("a.jpg", "b.jpg"), ("/x/train/a.jpg", "/x/val/a.jpg", "/x/val/b.jpg")),  # two of one file
        (("q/a.jpg", "p/a.jpg", "b.jpg"), ("/x/a.jpg", "/x/b.jpg")),  # two files of one row
        (("a.jpg", "d.jpg"), ("/x/a.jpg", "/x/b.jpg", "/x/c.jpg")),  # few of them
    ],
)
def test_no_shorter_path_is_guessed_where_it_leaves_doubt(tmp_path, files, names):
    with pytest.raises(DataError, match=r"lie outside data\.root: /x/"):
        build_index(table(put(tmp_path, *files), paths(*names)))


def test_no_shorter_path_leads_out_of_the_root(tmp_path):
    put(tmp_path, "images/a.jpg", "secret/b.jpg")
    root = table(put(tmp_path / "root", "c.jpg"), paths("../images/a.jpg", "../secret/b.jpg"))
    with pytest.raises(DataError, match=r"lie outside data\.root"):
        build_index(root)


def test_paths_that_fit_are_left_as_they_are(tmp_path):
    put(tmp_path, "train/1.jpg", "test/2.jpg")
    table(tmp_path, paths("train/1.jpg", "train/2.jpg"))
    assert build_index(tmp_path).table["image"].fillna("").tolist() == ["train/1.jpg", ""]


def test_the_column_of_paths_is_found_though_they_are_from_elsewhere(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg")
    table(tmp_path, "image_id,path,label\n17,/x/a.jpg,x\n18,/x/b.jpg,y\n")
    assert build_index(tmp_path).table["image"].tolist() == ["a.jpg", "b.jpg"]


# ---- no header


@pytest.mark.parametrize("options", [{}, {"columns": {"image": "a", "label": "x"}}])
def test_a_first_line_of_data_is_no_header(tmp_path, options):
    put(tmp_path, "i/a.jpg", "i/b.jpg", "i/c.jpg")
    table(tmp_path, "a,x\nb,y\nc,x\n")
    with pytest.raises(DataError, match=r"first line is data.*a names an image.*image,label"):
        build_index(tmp_path, **options)


def test_a_column_may_be_named_like_an_image(tmp_path):
    put(tmp_path, "image.jpg", "path.jpg", "width.jpg")
    table(tmp_path, "image,path,width,label\nimage,p,7,x\npath,p,8,y\n")
    assert build_index(tmp_path).table["image"].tolist() == ["image.jpg", "path.jpg"]
