"""Any folder: the ISIC Archive, tables of other column names, class folders, links, odd names."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.errors import ConfigError, DataError
from isic.images.sources import check_refs
from isic.index.folder import INFO, build_index
from isic.index.folder.files import image_names, safe_ids
from isic.index.schema import ID_PATTERN, faults_of, standard_columns
from isic.index.unread_cells import refuse_unread

ARCHIVE = (
    "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,"
    "diagnosis_3,image_type,lesion_id,sex\r\n"
    "ISIC_0000001,X,CC-0,85,head/neck,Benign,Benign melanocytic proliferations,Nevus,dermoscopic,"
    "IL_1,male\r\n"
    "ISIC_0000002,X,CC-0,,NA,Malignant,Malignant melanocytic proliferations (Melanoma),"
    "Melanoma in situ,dermoscopic,IL_1,female\r\n"
    "ISIC_0000003,X,CC-0,30,,Indeterminate,Indeterminate epidermal proliferations,,"
    "clinical: close-up,,\r\n"
    "ISIC_0000004,X,CC-0,30,torso,,,,dermoscopic,,\r\n"
)


def put(root: Path, *names: str) -> Path:
    """Files whose content is their own name, so that no two are the same."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def table(root: Path, text: str, name: str = "labels.csv") -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_text(text)
    return root


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """As `isic image download` leaves it: flat images and a metadata.csv, with a BOM and CRLF."""
    put(tmp_path, *(f"ISIC_000000{i}.jpg" for i in (1, 2, 3, 4)), "licenses/CC-0.txt")
    (tmp_path / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + ARCHIVE.encode())
    return tmp_path


# ---- the ISIC Archive's download


def test_the_archives_download_opens_without_configuration(archive):
    index = build_index(archive)
    rows, info = index.table, index.info
    assert tuple(rows.columns[: len(standard_columns(info))]) == standard_columns(info)
    assert info.classes == ("Benign", "Indeterminate", "Malignant")
    assert rows["image_id"].tolist() == [f"ISIC_000000{i}" for i in (1, 2, 3, 4)]
    assert rows["image"].tolist() == [f"{i}.jpg" for i in rows["image_id"]]
    assert rows["target"].fillna(-1).tolist() == [0, 2, 1, -1]
    assert rows["split"].tolist() == ["train"] * 3 + ["test"]
    assert rows["lesion_id"].fillna("").tolist() == ["IL_1", "IL_1", "", ""]
    np.testing.assert_array_equal(rows["age"], [85, np.nan, 30, 30])
    assert rows["site"].fillna("").tolist() == ["head/neck", "", "", "torso"]
    assert rows["diagnosis"][0] == "Benign::Benign melanocytic proliferations::Nevus"
    assert info.views == ("clinical: close-up", "dermoscopic")
    assert {"diagnosis_1", "diagnosis_2", "diagnosis_3"} <= set(info.train_only_columns)
    assert "copyright_license" in rows
    assert not faults_of(rows, info)


def test_the_notes_say_which_columns_were_taken_and_how_to_change_them(archive):
    notes = "\n".join(build_index(archive).notes)
    assert "image=isic_id, label=diagnosis_1" in notes
    assert "data.index.columns.ROLE=COLUMN" in notes
    assert "1 rows without a label are test rows" in notes


@pytest.mark.parametrize(
    ("target", "classes", "codes"),
    [
        ("malignant", ("benign", "malignant"), [0, 1, 0, -1]),
        ("diagnosis", ("MEL", "NV", "AK"), [1, 0, 2, -1]),
    ],
)
def test_the_archives_tree_gives_shared_targets(archive, target, classes, codes):
    index = build_index(archive, target=target)
    assert index.info.classes == classes
    assert index.table["target"].fillna(-1).tolist() == codes


def test_a_level_of_the_tree_is_chosen_by_column(archive):
    index = build_index(archive, columns={"label": "diagnosis_3"})
    assert index.info.classes == ("Melanoma in situ", "Nevus")
    assert index.info.submission_columns == ("target",)


def test_what_a_mac_leaves_in_a_zip_does_no_harm(archive):
    (archive / "._metadata.csv").write_bytes(b"\x00\x05\x16\x07")
    put(archive, "._ISIC_0000001.jpg", "__MACOSX/ISIC_0000001.jpg")
    assert build_index(archive).table["image"].tolist()[0] == "ISIC_0000001.jpg"


# ---- other tables


def test_columns_of_any_name_are_mapped_and_others_kept(tmp_path):
    put(tmp_path, "a/x 1.PNG", "b/y.jpeg", "b/z.jpg")
    table(tmp_path, "Picture;Verdict;Who;weight\nx 1.PNG;no;p1;70\nb/y;yes;p1;80\nz.png;yes;;\n")
    columns = {"image": "Picture", "label": "Verdict", "patient": "Who", "age": None}
    index = build_index(tmp_path, columns=columns)
    rows = index.table
    assert index.info.classes == ("no", "yes")
    assert rows["image"].tolist() == ["a/x 1.PNG", "b/y.jpeg", "b/z.jpg"]
    assert rows["image_id"].tolist() == ["x_1", "y", "z"]
    assert rows["patient_id"].fillna("").tolist() == ["p1", "p1", ""]
    # a weight of a patient must not become the weight of a loss
    assert "weight" not in rows
    assert rows["raw_weight"].tolist()[:2] == ["70", "80"]
    assert "1 image names are no ids: x 1.PNG -> x_1" in "\n".join(index.notes)
    assert rows["Picture"].tolist() == ["x 1.PNG", "b/y", "z.png"]


def test_ham10000s_names_are_known(tmp_path):
    put(tmp_path, "part_1/ISIC_0027419.jpg", "part_2/ISIC_0025030.jpg")
    table(
        tmp_path,
        "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        "HAM_1,ISIC_0027419,bkl,histo,80.0,male,scalp\nHAM_1,ISIC_0025030,mel,histo,,female,ear\n",
        "HAM10000_metadata.csv",
    )
    rows = build_index(tmp_path).table
    assert rows["diagnosis"].tolist() == ["bkl", "mel"]
    assert rows["lesion_id"].tolist() == ["HAM_1", "HAM_1"]
    assert rows["image"].tolist() == ["part_1/ISIC_0027419.jpg", "part_2/ISIC_0025030.jpg"]


HAM = (
    ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"),
    ("HAM_1", "ISIC_0027419", "bkl", "histo", "80.0", "male", "scalp"),
    ("-", "ISIC_0025030", "mel", "histo", "unknown", "unknown", "unknown"),
)


@pytest.mark.parametrize(
    ("name", "comma"),
    [
        ("HAM10000_metadata", ","),
        ("HAM10000_metadata.tab", "\t"),
        ("labels.TSV", "\t"),
        ("labels.txt", ";"),
    ],
)
def test_a_table_of_another_ending_is_read_where_it_looks_like_one(tmp_path, name, comma):
    put(tmp_path, "part_1/ISIC_0027419.jpg", "part_2/ISIC_0025030.jpg", "licence.txt", "Makefile")
    table(tmp_path, "".join(comma.join(row) + "\n" for row in HAM), name)
    rows = build_index(tmp_path).table
    assert rows["diagnosis"].tolist() == ["bkl", "mel"]
    for column in ("lesion_id", "sex", "site", "age"):
        assert rows[column].isna().tolist() == [False, True]


def test_a_blank_line_before_the_header_does_no_harm(tmp_path):
    rows = build_index(table(tmp_path, "\n \r\nimage,label\na,x\nb,y\n")).table
    assert rows["image_id"].tolist() == ["a", "b"]


def test_labels_under_other_names_are_no_features(tmp_path):
    body = "image,label,Disease,nine_partition_label\na,x,p,q\nb,y,p,q\n"
    info = build_index(table(tmp_path, body)).info
    assert {"Disease", "nine_partition_label"} <= set(info.train_only_columns)


def test_what_cannot_be_used_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"occur twice: a\n.*data\.index\.columns"):
        build_index(table(tmp_path, "image,label\na,x\na,y\n"))


def test_pad_ufes_names_are_known_and_shared(tmp_path):
    put(tmp_path, "imgs/PAT_1_2_3.png", "imgs/PAT_1_2_4.png")
    table(
        tmp_path,
        "patient_id,lesion_id,smoke,age,gender,region,diagnostic,img_id,biopsed\n"
        "PAT_1,2,False,30,FEMALE,ARM,ACK,PAT_1_2_3.png,False\n"
        "PAT_1,2,,,,,BCC,PAT_1_2_4.png,True\n",
        "metadata.csv",
    )
    index = build_index(tmp_path, target="diagnosis")
    assert index.info.classes == ("BCC", "AK")
    assert index.table["sex"].tolist()[0] == "female"
    assert "biopsed" in index.info.train_only_columns


def test_labels_spread_over_columns_are_read(tmp_path):
    body = "image,MEL,NV,BKL\nA,1.0,0.0,0.0\nB,0,1,0\nC,0,0,1\nD,,,\n"
    index = build_index(table(tmp_path, body))
    assert index.info.classes == ("BKL", "MEL", "NV")
    assert index.table["diagnosis"].fillna("").tolist() == ["MEL", "NV", "BKL", ""]
    assert index.table["split"].tolist() == ["train"] * 3 + ["test"]


def test_train_csv_and_test_csv_are_one_table(tmp_path):
    put(tmp_path, "train/a.jpg", "train/b.jpg", "test/c.jpg")
    table(tmp_path, "image_name,target\na,0\nb,1\n", "train.csv")
    rows = build_index(table(tmp_path, "image_name\nc\n", "test.csv")).table
    assert rows["split"].tolist() == ["train", "train", "test"]
    assert rows["image"].tolist() == ["train/a.jpg", "train/b.jpg", "test/c.jpg"]


def test_row_numbers_that_pandas_saved_do_no_harm(tmp_path):
    rows = build_index(table(tmp_path, ",image,label\n0,a,x\n1,b,y\n")).table
    assert rows["image_id"].tolist() == ["a", "b"]
    assert rows["column_1"].tolist() == ["0", "1"]


def test_a_split_column_is_followed_and_val_rows_train(tmp_path):
    body = "image,label,split\na,x,Train\nb,y,val\nc,x,test\nd,,test\n"
    index = build_index(table(tmp_path, body))
    assert index.table["split"].tolist() == ["train", "train", "test", "test"]
    assert index.table["target"].fillna(-1).tolist() == [0, 1, 0, -1]
    assert "1 rows of the split val are train rows" in "\n".join(index.notes)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["2", "10", "1"], ("1", "2", "10")),
        (["1.0", "0.0", "1"], ("0", "1")),
        (["b", "a", "C"], ("C", "a", "b")),
        (["001", "1", "2"], ("001", "1", "2")),
    ],
)
def test_classes_are_sorted_whole_numbers_as_numbers(tmp_path, values, classes):
    body = "image,label\n" + "".join(f"i{i},{v}\n" for i, v in enumerate(values))
    assert build_index(table(tmp_path, body)).info.classes == classes


def test_classes_may_be_given_in_their_order(tmp_path):
    table(tmp_path, "image,label\na,mel\nb,nv\n")
    index = build_index(tmp_path, classes=["nv", "bcc", "mel"])
    assert index.info.classes == ("nv", "bcc", "mel")
    assert index.table["target"].tolist() == [2, 0]
    with pytest.raises(DataError, match=r"got 'mel' in 1 rows: a;"):
        build_index(tmp_path, classes=["nv", "bcc"])


def test_the_positive_class_is_last_or_the_one_named(tmp_path):
    table(tmp_path, "image,label\na,melanoma\nb,nevus\n")
    index = build_index(tmp_path)
    assert index.info.positive_class == "nevus"
    assert "data.index.positive=melanoma" in "\n".join(index.notes)
    assert build_index(tmp_path, positive="melanoma").info.positive_class == "melanoma"
    with pytest.raises(ConfigError, match=r"data\.index\.positive"):
        build_index(tmp_path, positive="mel")


def test_without_a_patient_the_notes_say_that_scores_are_too_good(tmp_path):
    body = "image,label,subject\na,x,1\nb,y,1\n"
    assert "every image is its own group" in "\n".join(build_index(table(tmp_path, body)).notes)
    mapped = build_index(tmp_path, columns={"patient": "subject"})
    assert "its own group" not in "\n".join(mapped.notes)


def test_a_role_can_be_left_out(tmp_path):
    table(tmp_path, "image,label,patient_id\na,x,1\nb,y,1\n")
    assert build_index(tmp_path).table["patient_id"].notna().all()
    rows = build_index(tmp_path, columns={"patient": False}).table
    assert rows["patient_id"].isna().all()
    assert rows["raw_patient_id"].tolist() == ["1", "1"]


FAULTY = [
    ("image,label\n../a,x\nb,y\n", "1 images lie outside data.root: ../a"),
    ("image,label\n/etc/passwd,x\nb,y\n", "lie outside data.root: /etc/passwd"),
    ("image,label\nC:\\a.jpg,x\nb,y\n", "lie outside data.root"),
    ("image,label\na,x\na,y\n", "1 images occur twice: a"),
    ("image,label\n,x\nb,y\n", "1 rows name no image: row 1"),
    ("image,label\na,x\nb,x\n", "expected two or more classes, got x"),
    ("image,label\na,x\nb,y\nc", "is not a readable UTF-8 CSV: .*Expected 2 columns, got 1"),
    ("", "is not a readable UTF-8 CSV: Empty CSV file"),
    ("image,label,split\na,x,train\nb,y,train\nc,,train\n", "1 train rows have no label: c"),
    ("image,label,split\na,x,fold1\nb,y,train\n", "split must be one of .* got 'fold1'"),
    ("image,label,label\na,x,x\n", "names a column twice: label"),
    ("image,label\n", "has a header but no rows"),
    ("picture,label\na,x\n", "no column of image names; .*data.index.columns.image"),
    ("image,word\na,x\nb,y\n", "no row has a label; .*data.index.columns.label"),
    ("image,label\na,view\nb,y\n", "named like columns of the index: view"),
]


def test_an_age_that_is_no_number_is_missing_until_a_model_asks_for_it(tmp_path):
    index = build_index(table(tmp_path, "image,label,age\na,x,old\nb,y,3\n"))
    assert index.table["age"].tolist()[1] == 3 and index.table["age"].isna().sum() == 1
    assert any("age must be a number, got 'old' in 1 rows: a" in note for note in index.notes)
    with pytest.raises(DataError, match="data.metadata: age must be a number, got 'old'"):
        refuse_unread(index, ["age"], key="data.metadata")


@pytest.mark.parametrize(("body", "message"), FAULTY)
def test_a_faulty_table_is_refused_with_names(tmp_path, body, message):
    with pytest.raises(DataError, match=message):
        build_index(table(tmp_path, body))


def test_a_column_of_ids_is_no_column_of_labels(tmp_path):
    body = "image,label\n" + "".join(f"i{i},c{i}\n" for i in range(30))
    with pytest.raises(DataError, match=r"30 classes among 30 labelled rows.*column of ids"):
        build_index(table(tmp_path, body))


def test_a_name_that_fits_two_folders_is_refused_until_a_folder_is_named(tmp_path):
    put(tmp_path, "images/a.jpg", "masks/a.png", "images/b.jpg")
    table(tmp_path, "image,label\na,x\nb,y\n")
    with pytest.raises(DataError, match=r"a \(images/a.jpg and masks/a.png\)"):
        build_index(tmp_path)
    rows = build_index(tmp_path, images="images").table
    assert rows["image"].tolist() == ["images/a.jpg", "images/b.jpg"]


def test_two_files_that_differ_in_case_are_told_apart(tmp_path):
    put(tmp_path, "A.jpg", "a.jpg", "a.png")
    table(tmp_path, "image,label\nA,x\na,y\na.PNG,x\n")
    with pytest.raises(DataError, match=r"occur twice: a.jpg|fit several"):
        build_index(tmp_path)
    table(tmp_path, "image,label\nA,x\na,y\na.png,x\n")
    assert build_index(tmp_path).table["image"].tolist() == ["A.jpg", "a.jpg", "a.png"]


def test_wrong_options_are_config_errors(tmp_path):
    table(tmp_path, "image,label\na,x\nb,y\n")
    for options in (
        {"columns": {"patiente": "x"}},
        {"columns": {"label": "diagnosis"}},
        {"target": "cancer"},
        {"classes": ["x"]},
        {"table": "../labels.csv"},
    ):
        with pytest.raises(ConfigError, match=r"data\.index\."):
            build_index(tmp_path, **options)


def test_several_tables_are_refused_until_one_is_named(tmp_path):
    table(tmp_path, "image,label\na,x\nb,y\n")
    table(tmp_path, "image,label\na,x\nb,y\nc,y\n", "more.csv")
    with pytest.raises(DataError, match=r"labels\.csv, more\.csv; .*data\.index\.table=FILE"):
        build_index(tmp_path)
    assert len(build_index(tmp_path, table="more.csv").table) == 3


def test_class_folders_are_read_beside_a_table_that_is_not_wanted(tmp_path):
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    table(tmp_path, "author,licence\nme,CC-0\n")
    with pytest.raises(DataError, match=r"no column of image names.*data\.index\.table=false"):
        build_index(tmp_path)
    assert build_index(tmp_path, table=False).info.classes == ("a", "b")


def test_a_zip_that_is_not_unpacked_is_said(tmp_path):
    (tmp_path / "images.zip").touch()
    with pytest.raises(DataError, match=r"not unpacked: images\.zip"):
        build_index(tmp_path)


def test_a_compressed_table_is_said(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(DataError, match="not a readable UTF-8 CSV"):
        build_index(tmp_path)


# ---- class folders


def test_class_folders_with_counted_files_keep_them_apart(tmp_path):
    put(tmp_path, "benign/1.jpg", "benign/deep/er/2.PNG", "malignant/1.jpg", ".git/x.jpg")
    index = build_index(tmp_path)
    rows = index.table.set_index("image")
    assert index.info.classes == ("benign", "malignant")
    assert rows["target"].to_dict() == {
        "benign/1.jpg": 0,
        "benign/deep/er/2.PNG": 0,
        "malignant/1.jpg": 1,
    }
    assert rows["image_id"].tolist() == ["benign_1", "2", "malignant_1"]


def test_train_val_and_test_folders_above_the_classes(tmp_path):
    put(tmp_path, "Train/a/1.jpg", "Train/b/2.jpg", "val/a/3.jpg", "test/4.jpg", "test/b/5.jpg")
    rows = build_index(tmp_path).table
    assert rows.set_index("image_id")["split"].to_dict() == {
        **dict.fromkeys("123", "train"),
        **dict.fromkeys("45", "test"),
    }
    assert rows.set_index("image_id")["target"].fillna(-1).to_dict()["4"] == -1


def test_a_single_folder_around_everything_is_gone_through(tmp_path):
    put(tmp_path, "data/v1/a/1.jpg", "data/v1/b/2.jpg")
    index = build_index(tmp_path)
    assert index.info.classes == ("a", "b")
    assert "below data/v1/" in "\n".join(index.notes)


@pytest.mark.parametrize("names", [("a/ISIC_0000001.jpg", "b/ISIC_0000001.png")])
def test_an_archives_id_in_two_classes_is_refused(tmp_path, names):
    put(tmp_path, *names)
    with pytest.raises(DataError, match=re.escape(" and ".join(names))):
        build_index(tmp_path)


def test_the_same_bytes_in_two_classes_or_splits_are_refused(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/1.jpg")
    (tmp_path / "test/a/1.jpg").write_bytes((tmp_path / "train/a/1.jpg").read_bytes())
    with pytest.raises(DataError, match=r"test/a/1\.jpg and train/a/1\.jpg"):
        build_index(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no image and no CSV"),
        (["1.jpg", "a/2.jpg", "b/3.jpg"], "1 images .* lie in no class folder: 1.jpg"),
        (["train/a/1.jpg", "train/b/2.jpg", "more/3.jpg"], "holds train and beside them .* more"),
        (["train/a/1.jpg", "train/b/2.jpg", "test/c/3.jpg"], "got 'c' in 1 rows"),
        (["a/x#1.jpg", "b/2.jpg"], "names without #, got 1 others: 'a/x#1.jpg'"),
    ],
)
def test_faulty_class_folders_are_refused(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        build_index(put(tmp_path, *names))


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(DataError, match="no such folder .*nowhere"):
        build_index(tmp_path / "nowhere")


def test_classes_that_differ_in_case_alone_are_one(tmp_path):
    put(tmp_path, "train/Benign/1.jpg", "train/malignant/2.jpg", "val/benign/3.jpg")
    index = build_index(put(tmp_path, "val/benign/4.jpg"))
    assert index.info.classes == ("benign", "malignant")
    assert "Benign (1) are counted as benign" in "\n".join(index.notes)
    given = build_index(tmp_path, classes=["malignant", "Benign"])
    assert given.table["target"].value_counts().to_dict() == {1: 3, 0: 1}
    both = build_index(tmp_path, classes=["malignant", "Benign", "benign"]).table["target"]
    assert sorted(both) == [0, 1, 2, 2]


def test_a_reduced_image_is_the_same_image(tmp_path):
    put(tmp_path, "benign/ISIC_0000001_downsampled.jpg", "malignant/ISIC_0000001.jpg")
    with pytest.raises(DataError, match=r"lie in two folders with another label"):
        build_index(tmp_path)


# ---- links and names


def test_links_neither_hang_nor_escape(tmp_path):
    root = put(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    outside = put(tmp_path / "outside", "3.jpg", "4.jpg")
    (root / "a/3.jpg").symlink_to(outside / "3.jpg")  # to a file: followed
    (root / "a/gone.jpg").symlink_to("nowhere.jpg")  # dangling: not there
    (root / "a/self.jpg").symlink_to("self.jpg")  # a loop of one
    (root / "a/up").symlink_to("..")  # back into the tree
    (root / "b/all").symlink_to("/")  # above the tree
    (root / "b/more").symlink_to(outside)  # another folder: followed once
    (outside / "back").symlink_to(root)
    names, notes = image_names(root)
    assert names == ["a/1.jpg", "a/3.jpg", "b/2.jpg", "b/more/3.jpg", "b/more/4.jpg"]
    assert "3 links" in notes[0]


def test_a_folder_named_like_a_mount_is_not_one(tmp_path):
    index = build_index(put(tmp_path, "@a/1.jpg", "@b/2.jpg"))
    check_refs(index.table["image"].tolist())
    assert index.sources.path(index.table["image"][0]).read_bytes() == b"@a/1.jpg"


def test_names_that_are_no_text_are_refused(tmp_path):
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match="UTF-8 names"):
        build_index(tmp_path)


PART = st.text("aAbB1. _-é%", min_size=1, max_size=8).filter(lambda p: p.strip("."))
LONG = st.text("ab", min_size=60, max_size=90)
PATHS = st.lists(st.lists(PART | LONG, min_size=1, max_size=3).map("/".join), unique=True)


@given(PATHS)
def test_ids_are_safe_and_unique_whatever_the_paths(paths):
    names = [f"{p}.jpg" for p in paths]
    ids = safe_ids(names)
    assert all(re.fullmatch(ID_PATTERN, i) for i in ids)
    assert len({i.lower() for i in ids}) == len(names)


@given(PATHS)
def test_an_id_is_the_stem_where_it_can_be(paths):
    names = [f"{p}.jpg" for p in paths]
    stems = [p.rpartition("/")[2] for p in paths]
    sound = all(re.fullmatch(ID_PATTERN, s) for s in stems)
    if sound and len({s.lower() for s in stems}) == len(stems):
        assert safe_ids(names) == stems


def test_what_a_folder_is_travels_as_plain_types(archive):
    info = build_index(archive).info
    assert type(info).from_dict(info.to_dict()) == info
    assert INFO.name == info.name == "folder"


@pytest.mark.parametrize("scores", ["column", "columns"])
def test_the_yamls_auc_is_the_auc_where_there_are_two_classes(scores):
    from isic.metrics.classification import macro_auc, roc_auc

    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 200)
    score = (target + rng.normal(size=200)).round(1)
    probs = 1 / (1 + np.exp(-score))
    given_as = probs if scores == "column" else np.stack([1 - probs, probs], axis=1)
    assert macro_auc(target, given_as) == pytest.approx(roc_auc(target, probs), abs=1e-12)


# ---- real tables under the eyes of a reader that was not made for them


def test_a_real_one_hot_table_gives_its_own_counts(real_root):
    index = build_index(real_root / "isic2019", table="ISIC_2019_Training_GroundTruth.csv")
    truth = pd.read_csv(real_root / "isic2019" / "ISIC_2019_Training_GroundTruth.csv")
    counts = index.table["diagnosis"].value_counts()
    assert {name: int(truth[name].sum()) for name in counts.index} == counts.to_dict()
    assert index.table["image"].notna().sum() == 330


def test_real_train_and_test_tables_open_without_configuration(real_root):
    rows = build_index(real_root / "isic2020").table
    assert rows["split"].value_counts().to_dict() == {"train": 33126, "test": 10982}
    assert rows["target"].sum() == 584
    assert rows.loc[rows["split"] == "train", "patient_id"].nunique() == 2056


def test_columns_named_as_later_stages_name_theirs_make_way(tmp_path):
    put(tmp_path, *(f"{i}.jpg" for i in range(4)))
    table(tmp_path, "image,label,fold,group,status\n" + "".join(
        f"{i}.jpg,{'xy'[i % 2]},{i % 2},g{i},seen\n" for i in range(4)
    ))  # fmt: skip
    rows = build_index(tmp_path).table
    assert {"raw_fold", "raw_group", "raw_status"} <= set(rows.columns)
    assert not {"fold", "group", "status"} & set(rows.columns)
