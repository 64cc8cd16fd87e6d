"""The SIIM-ISIC 2020 reader: both targets, duplicates, every image layout, the real tables."""

import struct
from collections import Counter
from pathlib import Path

import google_crc32c
import pandas as pd
import pydicom
import pytest

from isic.errors import ConfigError, DataError
from isic.images.sources import read_refs
from isic.images.tfrecord import records
from isic.index.isic2019 import CLASSES
from isic.index.isic2020 import DIAGNOSES, DIAGNOSIS_INFO, INFO, build_index
from isic.index.schema import Index, index_hash, refuse_train_only
from tests.index.small_archives import edit, read, write_isic2020

DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
V2 = "ISIC_2020_Training_GroundTruth_v2.csv"


@pytest.fixture(scope="module")
def real(real_root: Path) -> Index:
    return build_index(real_root / "isic2020")


PAIRS = f"{DUPLICATES}: 1 pairs are one image twice; the second of each is never used"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_isic2020(tmp_path / "isic2020")


def test_two_targets_of_one_table(root: Path) -> None:
    binary, nine = build_index(root), build_index(root, target="diagnosis")
    raw = read(root / "train.csv")
    train = nine.table.query("split == 'train'")
    assert binary.table["target"][:12].tolist() == [int(t) for t in raw["target"]]
    named = [CLASSES[t] for t in train["target"]]
    assert named == [DIAGNOSES[d] for d in raw["diagnosis"]]
    assert train["diagnosis"].tolist() == raw["diagnosis"].tolist()
    assert (binary.info.classes, nine.info.classes) == (("benign", "malignant"), CLASSES)
    assert nine.info.submission_columns == ("target",)
    assert nine.info.submission_classes == ("MEL",)
    assert {"UNK", "MEL", "NV", "BKL"} == set(named)


def test_another_target_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="expected malignant or diagnosis, got 'melanoma'"):
        build_index(root, target="melanoma")


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("train.csv", "ISIC_2020_Training_GroundTruth.csv"),
        ("test.csv", "ISIC_2020_Test_Metadata.csv"),
    ],
)
def test_names_of_the_archive_do_as_well(root: Path, table: str, name: str) -> None:
    before = build_index(root).table
    (root / table).rename(root / name)
    pd.testing.assert_frame_equal(before, build_index(root).table)


def test_the_archives_own_test_table_has_other_names(root: Path) -> None:
    before = build_index(root).table
    names = {"image_name": "image", "patient_id": "patient"}
    names["anatom_site_general_challenge"] = "anatom_site_general"
    frame = read(root / "test.csv").rename(columns=names)
    frame["age_approx"] = [a.removesuffix(".0") for a in frame["age_approx"]]
    order = ["image", "patient", "age_approx", "anatom_site_general", "sex"]
    frame[order].to_csv(root / "ISIC_2020_Test_Metadata.csv", index=False)
    (root / "test.csv").unlink()
    index = build_index(root)
    assert index.notes == [PAIRS]
    pd.testing.assert_frame_equal(before, index.table)


@pytest.mark.parametrize("target", ["malignant", "diagnosis"])
def test_a_labelled_test_table_keeps_its_labels(root: Path, target: str) -> None:
    labels = {
        "diagnosis": ["melanoma", "nevus"] * 2,
        "benign_malignant": "",
        "target": ["1", "0"] * 2,
    }
    read(root / "test.csv").assign(**labels).to_csv(root / "test.csv", index=False)
    test = build_index(root, target=target).table.query("split == 'test'")
    named = [DIAGNOSIS_INFO.classes[t] if target == "diagnosis" else t for t in test["target"]]
    assert named == (["MEL", "NV"] * 2 if target == "diagnosis" else [1, 0] * 2)
    edit(root / "test.csv", "target", "0")
    with pytest.raises(DataError, match=r"test\.csv: target must be 1 where diagnosis is melanoma"):
        build_index(root, target=target)


def with_lesions(root: Path) -> pd.DataFrame:
    frame = read(root / "train.csv")
    frame.insert(2, "lesion_id", [f"IL_{i % 6:07d}" for i in range(12)])
    frame[::-1].to_csv(root / V2, index=False)
    return frame


def test_lesions_come_from_the_second_ground_truth(root: Path) -> None:
    assert build_index(root).table["lesion_id"].isna().all()
    frame = with_lesions(root)
    table = build_index(root).table
    assert table["lesion_id"].tolist()[:12] == frame["lesion_id"].tolist()
    (root / "train.csv").unlink()
    alone = build_index(root).table
    assert alone["lesion_id"].tolist()[:12] == frame["lesion_id"].tolist()[::-1]


def test_a_duplicate_names_what_it_repeats(root: Path) -> None:
    before = index_hash(build_index(root).table)
    table = build_index(root).table.set_index("image_id")["duplicate_of"]
    assert table.dropna().to_dict() == {"ISIC_0000006": "ISIC_0000000"}
    (root / DUPLICATES).unlink()
    index = build_index(root)
    assert index.table["duplicate_of"].isna().all()
    assert any(DUPLICATES in note for note in index.notes)
    assert index_hash(index.table) != before


def test_pairs_of_images_that_are_not_there_are_a_note(root: Path) -> None:
    pairs = {
        "image_name_1": ["ISIC_0000001", "ISIC_77"],
        "image_name_2": ["ISIC_88", "ISIC_0000002"],
    }
    pd.DataFrame(pairs).to_csv(root / DUPLICATES, index=False)
    index = build_index(root)
    assert index.table["duplicate_of"].isna().all()
    assert f"{DUPLICATES}: 2 of 2 pairs name images" in index.notes[0]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"00": "06"}, None),
        ({"01": "03"}, "1 pairs are of two patients: ISIC_0000001 and ISIC_0000003"),
        ({"00": "02"}, "1 pairs have two targets: ISIC_0000000 and ISIC_0000002"),
        ({"01": "01"}, "1 images are paired with themselves: ISIC_0000001"),
        ({"00": "01", "01": "00"}, "2 images repeat one another in a circle: ISIC_0000000"),
    ],
)
def test_pairs_that_cannot_be_one_image_are_refused(
    root: Path, pairs: dict[str, str], message: str | None
) -> None:
    names = [[f"ISIC_00000{n}" for n in side] for side in (pairs, pairs.values())]
    table = dict(zip(("image_name_1", "image_name_2"), names, strict=True))
    pd.DataFrame(table).to_csv(root / DUPLICATES, index=False)
    if message is None:
        assert PAIRS in build_index(root).notes
        return
    with pytest.raises(DataError, match=message):
        build_index(root, target="diagnosis")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("diagnosis", "NV", "diagnosis must be one of unknown, nevus.* got 'NV' in 1 rows: ISIC_"),
        ("diagnosis", "melanoma", "target must be 1 where diagnosis is melanoma.* 1 rows: ISIC_"),
        ("target", "1", "target must be 1 where diagnosis is melanoma.* 1 rows: ISIC_"),
    ],
)
@pytest.mark.parametrize("target", ["malignant", "diagnosis"])
def test_labels_that_disagree_are_named(
    root: Path, target: str, column: str, value: str, message: str
) -> None:
    edit(root / "train.csv", column, value)
    with pytest.raises(DataError, match=message):
        build_index(root, target=target)


def test_what_comes_with_labels_is_no_feature(root: Path) -> None:
    index = build_index(root)
    hidden = index.table.loc[index.table["split"] == "test", ["benign_malignant", "target"]]
    assert hidden.isna().all().all()
    for column in ("benign_malignant", "diagnosis", "lesion_id", "duplicate_of"):
        with pytest.raises(DataError, match=column):
            refuse_train_only([column], index.info)


def test_the_reduced_sets(root: Path) -> None:
    path = root / "train.csv"
    more = {"tfrecord": "3", "width": "512", "height": "512", "patient_code": "7"}
    read(path).assign(**more).to_csv(path, index=False)
    (root / "jpeg" / "train").rename(root / "train")
    (root / "jpeg" / "test").rename(root / "test")
    index = build_index(root)
    assert index.notes == [PAIRS]
    assert index.table["image"][0] == "train/ISIC_0000000.jpg"
    assert index.table["image"].iloc[-1] == "test/ISIC_0000093.jpg"
    assert (index.table["width"][:12] == 512).all()


def test_dicom_serves_where_there_is_no_jpeg(root: Path) -> None:
    for split in ("train", "test"):
        for image in sorted((root / "jpeg" / split).iterdir()):
            (root / split).mkdir(exist_ok=True)
            (root / split / f"{image.stem}.dcm").touch()
    assert build_index(root).table["image"].str.startswith("jpeg/").all()
    (root / "jpeg" / "train" / "ISIC_0000003.jpg").unlink()
    table = build_index(root).table.set_index("image_id")
    assert table.loc["ISIC_0000003", "image"] == "train/ISIC_0000003.dcm"
    assert table["image"].str.endswith(".dcm").sum() == 1


def with_tags(root: Path, split: str, image: str, **tags: str) -> None:
    """Put a DICOM header, without pixels, where an image's JPEG was."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header = pydicom.Dataset()
    header.file_meta = meta
    for name, value in tags.items():
        setattr(header, name, value)
    (root / "jpeg" / split / f"{image}.jpg").unlink()
    (root / split).mkdir(exist_ok=True)
    header.save_as(root / split / f"{image}.dcm", enforce_file_format=True)


def test_dicom_tags_fill_what_the_table_leaves_open(root: Path) -> None:
    image, path = "ISIC_0000002", root / "train.csv"
    for column in ("patient_id", "age_approx", "sex", "anatom_site_general_challenge"):
        edit(path, column, "", 2)
    known = {"PatientID": "IP_0000007", "PatientAge": "045Y", "PatientSex": "F"}
    with_tags(root, "train", image, **known, BodyPartExamined="UPPER EXTREMITY")
    index = build_index(root)
    row = index.table.set_index("image_id").loc[image, ["patient_id", "age", "sex", "site"]]
    assert row.tolist() == ["IP_0000007", 45.0, "female", "upper extremity"]
    note = (
        "4 empty cells are filled from DICOM tags: 1 of patient_id, 1 of age, 1 of sex, 1 of site"
    )
    assert note in index.notes


def test_dicom_tags_overrule_no_table_and_disagreements_are_named(root: Path) -> None:
    edit(root / "train.csv", "sex", "", 2)
    known = {"PatientID": "IP_0000009", "PatientAge": "010Y", "PatientSex": "O"}
    with_tags(root, "train", "ISIC_0000002", **known, BodyPartExamined="SKIN")
    index = build_index(root)
    row = index.table.set_index("image_id").loc["ISIC_0000002"]
    assert row["patient_id"] == "IP_0000001"
    assert pd.isna(row["sex"])
    notes = "\n".join(index.notes)
    said = "patient_id: 1 DICOM tags disagree with the table, which counts: ISIC_0000002"
    assert said in notes
    assert "BodyPartExamined" in notes
    assert "'SKIN'" in notes
    assert "age: 1 DICOM" not in notes


def test_dicom_headers_are_read_only_where_a_cell_is_empty(root: Path) -> None:
    with_tags(root, "train", "ISIC_0000000", PatientSex="F")  # nothing is empty in its row
    (root / "train" / "ISIC_0000000.dcm").write_bytes(b"no DICOM")
    assert not any("DICOM" in note for note in build_index(root).notes)
    edit(root / "train.csv", "sex", "", 0)
    said = "1 DICOM files whose tags cannot be read: train/ISIC_0000000.dcm (not a DICOM file"
    assert any(said in note for note in build_index(root).notes)


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def record(name: str, image: bytes) -> bytes:
    """A `tf.train.Example` of an image and its name, framed as TFRecords are."""
    features = b""
    for key, value in (("image", image), ("image_name", name.encode())):
        feature = field(1, field(1, value))
        features += field(1, field(1, key.encode()) + field(2, feature))
    data = field(1, features)
    size = struct.pack("<Q", len(data))
    return size + masked_crc(size) + data + masked_crc(data)


def test_records_serve_where_there_is_no_file(root: Path) -> None:
    folder = root / "tfrecords"
    folder.mkdir()
    gone = ["ISIC_0000002", "ISIC_0000091"]
    (root / "jpeg" / "train" / f"{gone[0]}.jpg").unlink()
    (root / "jpeg" / "test" / f"{gone[1]}.jpg").unlink()
    names = ["ISIC_0000001", "ISIC_7777777", *gone, gone[0]]
    # The name says test, as that of a public file of training records does.
    body = b"".join(record(n, b"jpeg %d" % i) for i, n in enumerate(names))
    (folder / "test00-5.tfrec").write_bytes(body)
    index = build_index(root)
    table = index.table.set_index("image_id")
    refs = table.loc[gone, "image"].tolist()
    assert [r.partition("#")[0] for r in refs] == ["tfrecords/test00-5.tfrec"] * 2
    assert table["image"].str.contains("#").sum() == 2
    assert table.loc[gone, "split"].tolist() == ["train", "test"]
    offsets = dict(Counter(int(r.partition("#")[2]) for r in refs))
    images = [f["image"] for offset, f in records(folder / "test00-5.tfrec") if offset in offsets]
    assert images == [b"jpeg 2", b"jpeg 3"]
    assert index.notes == [
        PAIRS,
        "1 TFRecords are of no row and left out: ISIC_7777777",
        f"1 TFRecords repeat an image, the first counts: {gone[0]}",
    ]


@pytest.mark.parametrize("ending", ["tfrecord", "TFRECORDS", "TFREC"])
def test_records_of_any_ending_are_found(root: Path, ending: str) -> None:
    (root / "jpeg" / "train" / "ISIC_0000002.jpg").unlink()
    (root / f"a.{ending}").write_bytes(record("ISIC_0000002", b"jpeg"))
    table = build_index(root).table.set_index("image_id")
    assert table.loc["ISIC_0000002", "image"] == f"a.{ending}#0"


def test_an_empty_file_of_records_is_said(root: Path) -> None:
    (root / "jpeg" / "train" / "ISIC_0000002.jpg").unlink()
    (root / "a.tfrec").touch()
    with pytest.raises(DataError, match=r"a\.tfrec is empty \(0 bytes\)"):
        build_index(root)


def test_records_are_not_opened_where_every_row_has_a_file(root: Path) -> None:
    (root / "damaged.tfrec").write_bytes(b"no record")
    assert build_index(root).notes == [PAIRS]
    next((root / "jpeg" / "train").iterdir()).unlink()
    with pytest.raises(DataError, match=r"damaged\.tfrec"):
        build_index(root)


def test_the_real_tables(real: Index) -> None:
    table, published = real.table, INFO.published_counts
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    assert (len(train), len(test)) == (published["train"], published["test"])
    assert int(train["target"].sum()) == published["malignant"]
    assert train["patient_id"].nunique() == published["patients"]
    assert train.loc[train["target"] == 1, "patient_id"].nunique() == 428
    sizes = train["patient_id"].value_counts()
    assert (sizes.min(), sizes.median(), sizes.max()) == (2, 12, 115)
    missing = {"sex": 65, "age": 68, "site": 527}
    assert {c: int(train[c].isna().sum()) for c in missing} == missing
    assert train["sex"].value_counts().to_dict() == {"male": 17080, "female": 15981}
    assert train["site"].value_counts().to_dict() == {
        "torso": 16845,
        "lower extremity": 8417,
        "upper extremity": 4983,
        "head/neck": 1855,
        "palms/soles": 375,
        "oral/genital": 124,
    }
    assert set(train["age"].dropna()) == {0, *range(10, 95, 5)}
    assert train["lesion_id"].nunique() == published["lesions"]


def test_the_real_diagnoses(real_root: Path) -> None:
    train = build_index(real_root / "isic2020", target="diagnosis").table.query("split == 'train'")
    assert train["diagnosis"].value_counts().to_dict() == {
        "unknown": 27124,
        "nevus": 5193,
        "melanoma": 584,
        "seborrheic keratosis": 135,
        "lentigo NOS": 44,
        "lichenoid keratosis": 37,
        "solar lentigo": 7,
        "cafe-au-lait macule": 1,
        "atypical melanocytic proliferation": 1,
    }
    counts = {c: int((train["target"] == i).sum()) for i, c in enumerate(CLASSES)}
    assert counts == {c: DIAGNOSIS_INFO.published_counts[c] for c in CLASSES}


def test_the_real_duplicates(real: Index) -> None:
    table = real.table.set_index("image_id")
    second = table["duplicate_of"].dropna()
    assert len(second) == 425
    assert second.is_unique
    assert not set(second) & set(second.index)  # the pairs are disjoint
    a, b = table.loc[second], table.loc[second.index]
    for column in ("patient_id", "target", "split"):
        assert a[column].tolist() == b[column].tolist()
    # The lesion ids, published later, disagree: 8 pairs are two lesions, 8 lesions no pair.
    alike = a["lesion_id"].to_numpy() == b["lesion_id"].to_numpy()
    sizes = table.loc[table["split"] == "train", "lesion_id"].value_counts()
    assert (int(alike.sum()), int((sizes == 2).sum()), int(sizes.max())) == (417, 425, 2)
    assert int(a["target"].sum()) == 3


def test_the_real_records_are_training_images(real: Index) -> None:
    path = real.root / "tfrecords" / "test16-26.tfrec"
    names = [f["image_name"].decode() for _, f in records(path)]
    rows = real.table.set_index("image_id").loc[names]
    assert len(names) == 26
    assert rows["split"].eq("train").all()
    held = rows["image"].str.startswith("tfrecords/")
    assert (held.sum(), rows["image"][~held].str.startswith("jpeg/").sum()) == (25, 1)
    assert not any("TFRecords" in note for note in real.notes)
    for data in read_refs(real.sources, rows["image"].tolist()):
        assert isinstance(data, bytes)
        assert data[:3] == b"\xff\xd8\xff"
