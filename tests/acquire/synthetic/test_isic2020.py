"""A generated SIIM-ISIC 2020 archive: tables, pairs of duplicates, three forms of images."""

import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pandas as pd
import pydicom
import pytest

from isic.acquire.synthetic import write_isic2020
from isic.acquire.synthetic.isic2020 import default_patients, default_positives
from isic.acquire.synthetic.isic2020_images import example, tfrecord
from isic.errors import ConfigError
from isic.images.decode import decode
from isic.images.sources import read_refs
from isic.index.isic2020 import build_index

COLUMNS = "image_name patient_id sex age_approx anatom_site_general_challenge".split()
LABELS = "diagnosis benign_malignant target".split()
DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
SECOND = "ISIC_2020_Training_GroundTruth_v2.csv"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("isic2020") / "full"
    return write_isic2020(root, n_images=33_126, n_test=10_982, images=False)


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_layout(archive2020: Path) -> None:
    assert sorted(p.name for p in archive2020.iterdir()) == [
        DUPLICATES,
        SECOND,
        "jpeg",
        "sample_submission.csv",
        "synthetic.json",
        "test.csv",
        "train.csv",
    ]
    for split in ("train", "test"):
        images = sorted(p.stem for p in (archive2020 / "jpeg" / split).glob("*.jpg"))
        assert images == table(archive2020 / f"{split}.csv")["image_name"].tolist()


def test_columns_and_forms_of_cells(full: Path) -> None:
    train, test, second = (table(full / name) for name in ("train.csv", "test.csv", SECOND))
    assert list(train.columns) == [*COLUMNS, *LABELS]
    assert list(test.columns) == COLUMNS
    assert list(second.columns) == [*COLUMNS[:2], "lesion_id", *COLUMNS[2:], *LABELS]
    assert set(train["age_approx"]) - {""} <= {f"{age}.0" for age in range(10, 95, 5)}
    assert (second["age_approx"] == train["age_approx"].str.removesuffix(".0")).all()
    same = [c for c in train if c != "age_approx"]
    assert second[same].equals(train[same])
    assert set(train["target"]) == {"0", "1"}
    assert (full / "train.csv").read_bytes().endswith(b"0\n")
    assert (full / SECOND).read_bytes().count(b"\r\n") == 33_126  # the last line is open
    sample = table(full / "sample_submission.csv")
    assert list(sample.columns) == ["image_name", "target"]
    assert sample["image_name"].tolist() == test["image_name"].tolist()


def test_published_counts(full: Path) -> None:
    train, test = table(full / "train.csv"), table(full / "test.csv")
    assert (train["target"] == "1").sum() == 584
    assert train["patient_id"].nunique() == 2_056
    size = train.groupby("patient_id").size()
    assert size.min() == 2
    assert 11 <= size.median() <= 13
    assert 80 <= size.max() <= 140
    ill = train.loc[train["target"] == "1", "patient_id"].nunique()
    assert ill == pytest.approx(428, rel=0.15)
    diagnoses = train["diagnosis"].value_counts()
    assert diagnoses["unknown"] == pytest.approx(27_124, rel=0.01)
    assert diagnoses["nevus"] == pytest.approx(5_193, rel=0.01)
    assert len(diagnoses) == 9
    assert (train["benign_malignant"] == "malignant").equals(train["target"] == "1")
    assert (train["diagnosis"] == "melanoma").equals(train["target"] == "1")
    assert not set(train["patient_id"]) & set(test["patient_id"])
    assert not set(train["image_name"]) & set(test["image_name"])


def test_published_rates_of_gaps(full: Path) -> None:
    missing = (table(full / "train.csv") == "").sum()
    for column, count in (("sex", 65), ("age_approx", 68), (COLUMNS[4], 527)):
        assert missing[column] == pytest.approx(count, rel=0.15)
    test = (table(full / "test.csv") == "").sum()
    assert test[COLUMNS[4]] > 0
    assert test.drop(COLUMNS[4]).sum() == 0


def test_sex_is_the_patients_and_ages_move_on(full: Path) -> None:
    groups = pd.read_csv(full / "train.csv").groupby("patient_id")
    assert groups["sex"].nunique().max() == 1
    assert 0.3 < (groups["age_approx"].nunique() > 1).mean() < 0.6


def test_pairs_of_duplicates(full: Path) -> None:
    train, pairs = table(full / SECOND).set_index("image_name"), table(full / DUPLICATES)
    assert list(pairs.columns) == ["image_name_1", "image_name_2"]
    assert len(pairs) == 425
    assert pd.concat([pairs["image_name_1"], pairs["image_name_2"]]).is_unique
    first, second = (train.loc[pairs[c]].reset_index(drop=True) for c in pairs)
    assert first.equals(second)
    assert (first["target"] == "1").sum() == 3
    assert train["lesion_id"].nunique() == 32_701


def test_duplicates_look_alike_and_others_do_not(archive2020: Path) -> None:
    pairs = table(archive2020 / DUPLICATES)
    folder = archive2020 / "jpeg" / "train"
    images = {p.stem: decode(p.read_bytes()).astype(float) for p in folder.iterdir()}
    assert len(pairs) == 2
    for a, b in pairs.itertuples(index=False):
        assert (folder / f"{a}.jpg").read_bytes() != (folder / f"{b}.jpg").read_bytes()
        near = {name: np.abs(images[a] - image).mean() for name, image in images.items()}
        order = sorted(near, key=near.__getitem__)
        assert order[:2] == [a, b]
        assert near[b] < 6 < near[order[2]]


@pytest.mark.parametrize(("n", "positives"), [(20, 17), (24, 23), (60, 0)])
def test_any_number_of_positives(tmp_path: Path, n: int, positives: int) -> None:
    root = write_isic2020(tmp_path, n_images=n, positives=positives, images=False)
    assert (table(root / "train.csv")["target"] == "1").sum() == positives


def test_a_small_archive_has_every_class_in_two_patients(archive2020: Path) -> None:
    index = build_index(archive2020, target="diagnosis")
    train = index.table[index.table["split"] == "train"]
    patients = train.groupby("target")["patient_id"].nunique()
    named = {index.info.classes[i] for i in patients.index}
    assert named == {"MEL", "NV", "BKL", "UNK"}
    assert patients.min() >= 2


def test_defaults() -> None:
    assert (default_positives(33_126), default_patients(33_126)) == (584, 2_056)
    assert default_positives(2_000) == 100


@pytest.mark.parametrize("wrong", [{"positives": 50}, {"n_patients": 51}, {"n_patients": 0}])
def test_impossible_arguments_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="n_images >= 2"):
        write_isic2020(tmp_path, **{"n_images": 50, **wrong})


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="form: expected jpeg, dicom, tfrecord, got png"):
        write_isic2020(tmp_path, n_images=20, form="png")  # type: ignore[arg-type]


def test_the_frames_are_not_square_unless_asked(tmp_path: Path) -> None:
    root = write_isic2020(tmp_path, n_images=20, n_test=1)
    shapes = {decode(p.read_bytes()).shape[:2] for p in (root / "jpeg" / "train").iterdir()}
    assert shapes == {(400, 600), (351, 624), (480, 640)}


@pytest.mark.parametrize("form", ["dicom", "tfrecord"])
def test_each_form_holds_the_same_pictures(archive2020: Path, tmp_path: Path, form) -> None:
    options = {"n_images": 120, "n_test": 12, "size_range": 32, "n_patients": 30, "positives": 16}
    index = build_index(write_isic2020(tmp_path, form=form, **options))
    plain = build_index(archive2020)
    ids = plain.table["image_id"].tolist()
    assert index.table["image_id"].tolist() == ids
    mine, theirs = (read_refs(i.sources, i.table["image"].tolist()) for i in (index, plain))
    for image_id, a, b in zip(ids, mine, theirs, strict=True):
        assert isinstance(a, bytes)
        assert isinstance(b, bytes)
        apart = np.abs(decode(a).astype(float) - decode(b).astype(float)).mean()
        assert apart < 6, image_id
        assert b"Invented" not in a  # names and birth dates stay in the file


def test_dicom_files_are_as_siim_wrote_them(tmp_path: Path) -> None:
    root = write_isic2020(tmp_path, n_images=40, n_test=2, size_range=(40, 60), form="dicom")
    train = table(root / "train.csv").set_index("image_name")
    files = sorted((root / "train").glob("*.dcm"))
    assert [p.stem for p in files] == train.index.tolist()
    for path in files:
        data, row = pydicom.dcmread(path), train.loc[path.stem]
        assert data.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
        assert data.PhotometricInterpretation == "YBR_FULL_422"
        assert data.PatientID == row["patient_id"]
        sex = {"male": "M", "female": "F", "": ""}[row["sex"]]
        age = f"{int(float(row['age_approx'])):03d}Y" if row["age_approx"] else ""
        assert (data.PatientSex, data.PatientAge) == (sex, age)
        assert data.BodyPartExamined == row[COLUMNS[4]].upper()
        assert str(data.PatientName).startswith("Invented")
        assert len(data.PatientBirthDate) == 8
        jpeg = next(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1))
        image = decode(jpeg)
        assert image.shape == (data.Rows, data.Columns, 3)
        assert np.abs(image.astype(int) - data.pixel_array).mean() < 2  # pydicom's own decoder
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    assert files[0].read_bytes()[128:132] == b"DICM"


def records(path: Path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        length, check = struct.unpack("<QI", data[:12])
        body, after = data[12 : 12 + length], data[12 + length :]
        assert check == unmasked_is(data[:8])
        assert struct.unpack("<I", after[:4])[0] == unmasked_is(body)
        found.append(body)
        data = after[4:]
    return found


def unmasked_is(data: bytes) -> int:
    """TensorFlow's mask: rotate right by 15, add a constant."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def test_tfrecords_are_named_and_checked_as_kaggles(tmp_path: Path) -> None:
    root = write_isic2020(tmp_path, n_images=120, n_test=9, size_range=24, form="tfrecord")
    names = sorted(p.name for p in (root / "tfrecords").iterdir())
    assert names == ["test00-9.tfrec", "train00-60.tfrec", "train01-60.tfrec"]
    ids = [i.encode() for i in table(root / "train.csv")["image_name"]]
    bodies = [b for name in names[1:] for b in records(root / "tfrecords" / name)]
    assert len(bodies) == 120
    for image_id, body in zip(ids, bodies, strict=True):
        assert image_id in body
        for key in (*COLUMNS, "image", "diagnosis", "target"):
            assert key.encode() in body
    for body in records(root / "tfrecords" / "test00-9.tfrec"):
        assert b"diagnosis" not in body
        assert b"target" not in body


def test_an_example_is_the_known_bytes() -> None:
    # tf.train.Example with one int64 feature n = [300] and one bytes feature b = [b"x"]
    assert example({"n": 300}).hex() == "0a0d0a0b0a016e12061a040a02ac02"
    assert example({"b": b"x"}).hex() == "0a0c0a0a0a016212050a030a0178"
    assert tfrecord(b"abc")[:8] == struct.pack("<Q", 3)
