"""The ISIC 2024 reader: both layouts, every quirk of the official files, every fault at once."""

import fcntl
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from isic.acquire.synthetic import write_isic2024
from isic.errors import DataError
from isic.index.isic2024 import INFO, build_index
from isic.index.isic2024_columns import TEST_COLUMNS, TRAIN_COLUMNS, TRAIN_ONLY
from isic.index.schema import standard_columns


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("isic2024") / "archive"
    return write_isic2024(root, n_images=60, n_test=8, size_range=32, seed=3)


@pytest.fixture
def copy(archive: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(archive, tmp_path / "copy"))


def read_text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def edit(path: Path, column: str, value: str, rows: slice | int = 0) -> None:
    frame = read_text(path)
    frame.iloc[rows, frame.columns.get_loc(column)] = value
    frame.to_csv(path, index=False)


def test_official_column_counts_and_order() -> None:
    assert (len(TRAIN_COLUMNS), len(TEST_COLUMNS), len(TRAIN_ONLY)) == (55, 44, 11)
    assert [c for c in TRAIN_COLUMNS if c not in TRAIN_ONLY] == list(TEST_COLUMNS)


def test_standard_columns_come_first_and_train_rows_too(archive: Path) -> None:
    table = build_index(archive).table
    assert tuple(table.columns[:15]) == standard_columns(INFO)
    assert table["split"].tolist() == ["train"] * 60 + ["test"] * 8
    raw = read_text(archive / "train-metadata.csv")
    assert table["image_id"].tolist()[:60] == raw["isic_id"].tolist()
    assert set(table.columns[15:]) <= set(TRAIN_COLUMNS)
    assert {"tbp_lv_A", "iddx_full", "copyright_license"} <= set(table.columns)


def test_values_equal_a_plain_reading_of_the_csv(archive: Path) -> None:
    table = build_index(archive).table
    train = table[table["split"] == "train"]
    raw = pd.read_csv(archive / "train-metadata.csv", low_memory=False)
    for column in (c for c in TRAIN_COLUMNS if c in train and raw[c].dtype.kind in "fi"):
        np.testing.assert_allclose(
            train[column].astype(float), raw[column].astype(float), rtol=1e-12, equal_nan=True
        )
    np.testing.assert_array_equal(train["age"], raw["age_approx"])
    for column, source in (("site", "anatom_site_general"), ("sex", "sex"), ("attribution",) * 2):
        assert train[column].fillna("").tolist() == raw[source].fillna("").tolist()


def test_test_rows_have_no_label_and_no_leak(archive: Path) -> None:
    table = build_index(archive).table
    test = table[table["split"] == "test"]
    hidden = ["target", "benign", "malignant", "diagnosis", "lesion_id", *TRAIN_ONLY[2:]]
    assert test[hidden].isna().all().all()
    assert table["target"].dtype == "Int64"
    train = table[table["split"] == "train"]
    assert (train["malignant"] == train["target"].astype(float)).all()
    assert (train["malignant"] + train["benign"] == 1).all()


def test_image_references_point_into_the_hdf5(archive: Path) -> None:
    table = build_index(archive).table
    assert table["image"][0] == f"train-image.hdf5#{table['image_id'][0]}"
    assert table["image"].iloc[-1] == f"test-image.hdf5#{table['image_id'].iloc[-1]}"


@pytest.mark.parametrize("age", ["45", "45.0", "NA", ""])
def test_ages_as_int_float_or_missing(copy: Path, age: str) -> None:
    for name in ("train-metadata.csv", "test-metadata.csv"):
        edit(copy / name, "age_approx", age, slice(None))
    ages = build_index(copy).table["age"]
    assert ages.dtype == np.float64
    assert (ages == 45).all() if age.startswith("45") else ages.isna().all()


def test_byte_order_mark_crlf_and_column_order_change_nothing(copy: Path) -> None:
    before = build_index(copy).table
    path = copy / "train-metadata.csv"
    frame = read_text(path)
    frame = frame[frame.columns[::-1]]
    frame.to_csv(path, index=False, lineterminator="\r\n", encoding="utf-8-sig")
    after = build_index(copy).table
    pd.testing.assert_frame_equal(before, after[before.columns])


def ground_truth(root: Path, *, values: tuple[str, str] = ("0", "1"), **text: str) -> Path:
    root.mkdir(exist_ok=True)
    rows = "\n".join(f"ISIC_000000{i},{values[i % 2]}" for i in range(6))
    body = text.get("body", f"isic_id,malignant\n{rows}\n")
    (root / "ISIC_2024_Training_GroundTruth.csv").write_text(body)
    return root


@pytest.mark.parametrize("values", [("0", "1"), ("0.0", "1.0")])
def test_ground_truth_layout_has_no_patient(tmp_path: Path, values: tuple[str, str]) -> None:
    table = build_index(ground_truth(tmp_path, values=values)).table
    assert table["target"].tolist() == [0, 1, 0, 1, 0, 1]
    assert table["patient_id"].isna().all()
    assert table["image"].isna().all()  # no image source, and none is needed


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("train-image.hdf5", "train-image.hdf5#ISIC_0000000"),
        ("permissive.hdf5", "permissive.hdf5#ISIC_0000000"),
        ("ISIC_2024_Training_Input/", "ISIC_2024_Training_Input/ISIC_0000000.jpg"),
        ("train-image/image/", "train-image/image/ISIC_0000000.jpg"),
        ("crops/", "crops/ISIC_0000000.jpg"),
        ("./", "ISIC_0000000.jpg"),
    ],
)
def test_train_images_are_found(tmp_path: Path, source: str, expected: str) -> None:
    ground_truth(tmp_path)
    (tmp_path / "test-image.hdf5").touch()  # never taken for the train images
    place = tmp_path / source
    if source.endswith("/"):
        place.mkdir(parents=True, exist_ok=True)
        place = place / "ISIC_0000000.jpg"
    place.touch()
    assert build_index(tmp_path).table["image"][0] == expected


def test_test_files_are_found_beside_the_ground_truth_layout(archive: Path, tmp_path: Path) -> None:
    ground_truth(tmp_path)
    for name in ("test-metadata.csv", "test-image.hdf5"):
        shutil.copy(archive / name, tmp_path)
    table = build_index(tmp_path).table
    assert table["split"].value_counts().to_dict() == {"test": 8, "train": 6}
    assert table["patient_id"].notna().sum() == 8


def test_kaggle_layout_wins_over_the_ground_truth(copy: Path) -> None:
    assert (build_index(ground_truth(copy)).table["split"] == "train").sum() == 60


def test_missing_root_says_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        build_index(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(error.value)
    assert "kaggle competitions download -c isic-2024-challenge" in str(error.value)
    assert "python -m isic synth" in str(error.value)


def test_missing_csv_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-metadata\.csv.*Training_GroundTruth\.csv"):
        build_index(tmp_path)


FAULTS = [
    ("isic_id", "../../etc/passwd", "must match .*passwd"),
    ("isic_id", "a/b", "must match"),
    ("isic_id", "", "1 rows have no isic_id"),
    ("target", "2", "target must be 0 or 1, got '2' in 1 rows: ISIC_"),
    ("target", "benign", "got 'benign'"),
    ("target", "0.5", "got '0.5'"),
    ("target", "", "target is empty in 1 rows: ISIC_"),
    ("target", "NA", "target is empty in 1 rows: ISIC_"),
]


@pytest.mark.parametrize(("column", "value", "message"), FAULTS)
def test_one_bad_cell_is_named(copy: Path, column: str, value: str, message: str) -> None:
    edit(copy / "train-metadata.csv", column, value)
    with pytest.raises(DataError, match=message):
        build_index(copy)


def test_all_faults_are_reported_at_once(copy: Path) -> None:
    path = copy / "train-metadata.csv"
    edit(path, "target", "7", 1)
    edit(path, "target", "", 2)
    edit(path, "age_approx", "old", 3)
    edit(path, "isic_id", "x y", 4)
    frame = read_text(path).drop(columns="tbp_lv_x")
    frame.loc[5, "isic_id"] = frame.loc[6, "isic_id"]
    frame.to_csv(path, index=False)
    edit(copy / "test-metadata.csv", "tbp_lv_H", "red")
    with pytest.raises(DataError) as error:
        build_index(copy)
    message = str(error.value)
    for part in (
        "lacks 1 of 55 columns: tbp_lv_x",
        "got '7'",
        "is empty",
        "'old'",
        "'x y'",
        "1 duplicate isic_id",
        "test-metadata.csv: tbp_lv_H",
    ):
        assert part in message, part


def test_five_of_many_duplicates_are_named(copy: Path) -> None:
    path = copy / "train-metadata.csv"
    frame = read_text(path)
    pd.concat([frame, frame[:9]]).to_csv(path, index=False)
    with pytest.raises(DataError, match="9 duplicate isic_id: .* and 4 more"):
        build_index(copy)


def test_an_id_in_train_and_test_is_a_duplicate(copy: Path) -> None:
    shared = read_text(copy / "train-metadata.csv").loc[0, "isic_id"]
    edit(copy / "test-metadata.csv", "isic_id", shared)
    with pytest.raises(DataError, match=f"1 duplicate isic_id: {shared}"):
        build_index(copy)


@pytest.mark.parametrize("body", ["", "isic_id,malignant\n", "isic_id,malignant\nA,0,1\n", "\x00"])
def test_empty_and_torn_tables_are_refused(tmp_path: Path, body: str) -> None:
    with pytest.raises(DataError, match="Training_GroundTruth"):
        build_index(ground_truth(tmp_path, body=body))


def test_two_ground_truths_are_refused(tmp_path: Path) -> None:
    ground_truth(tmp_path)
    (tmp_path / "ISIC_2024_Permissive_Training_GroundTruth.csv").touch()
    with pytest.raises(DataError, match=r"one \*Training_GroundTruth.csv"):
        build_index(tmp_path)


def test_of_two_stores_the_user_names_one(tmp_path: Path) -> None:
    ground_truth(tmp_path)
    (tmp_path / "a.hdf5").touch()
    (tmp_path / "b.hdf5").touch()
    with pytest.raises(DataError, match="one source of train images, got a.hdf5, b.hdf5") as error:
        build_index(tmp_path)
    advice = str(error.value).split("data.index.images=")[1].split()[0]
    assert build_index(tmp_path, images=advice).table["image"][0] == "a.hdf5#ISIC_0000000"
    for wrong in ("c.hdf5", "../a.hdf5"):
        with pytest.raises(DataError, match="expected a file or a folder of data.root"):
            build_index(tmp_path, images=wrong)


def test_named_stores_of_train_and_test(copy: Path) -> None:
    for split in ("train", "test"):
        (copy / f"{split}-image.hdf5").rename(copy / f"{split}_2.h5")
    table = build_index(copy, images=["train_2.h5", "test_2.h5"]).table
    stores = table["image"].str.partition("#")[0]
    assert (stores == table["split"] + "_2.h5").all()
    assert (table["image"].str.partition("#")[2] == table["image_id"]).all()


def loose(root: Path, folder: str, suffixes: tuple[str, ...] = (".jpg",)) -> pd.DataFrame:
    """The archive with empty files instead of its stores; the table before."""
    before = build_index(root).table
    for split in ("train", "test"):
        (root / f"{split}-image.hdf5").unlink()
        (root / folder.format(split)).mkdir(parents=True, exist_ok=True)
    for n, (image, split) in enumerate(zip(before["image_id"], before["split"], strict=True)):
        (root / folder.format(split) / f"{image}{suffixes[n % len(suffixes)]}").touch()
    return before


@pytest.mark.parametrize(
    "folder", ["{}-image/image", "{}-image/imgs", "{}-image/image/image", "crops", "{}/a/b", "."]
)
def test_loose_images_of_any_folder_and_extension(copy: Path, folder: str) -> None:
    before = loose(copy, folder, (".jpg", ".JPG", ".jpeg", ".png"))
    index = build_index(copy)
    assert index.notes == []
    assert all((copy / ref).is_file() for ref in index.table["image"])
    assert [Path(ref).stem for ref in index.table["image"]] == before["image_id"].tolist()
    columns = [c for c in before if c != "image"]
    pd.testing.assert_frame_equal(index.table[columns], before[columns])


def test_an_official_folder_wins_over_a_store_of_another_name(copy: Path) -> None:
    loose(copy, "{}-image/image")
    (copy / "other.hdf5").touch()
    assert build_index(copy).table["image"].str.startswith(("train-image/", "test-image/")).all()
    shutil.rmtree(copy / "train-image")
    images = build_index(copy).table["image"]
    assert images[:60].str.startswith("other.hdf5#").all()
    assert images[60:].str.startswith("test-image/image/").all()


def test_missing_images_are_noted(copy: Path) -> None:
    (copy / "train-image.hdf5").unlink()
    index = build_index(copy)
    assert index.table["image"].notna().sum() == 8
    assert "60 of 60 train rows have no image file" in index.notes[0]


def test_ids_with_extension_or_blanks(copy: Path) -> None:
    before = build_index(copy).table
    for name in ("train-metadata.csv", "test-metadata.csv"):
        frame = read_text(copy / name)
        ends = [".JPG", ".jpg", " ", ""]
        frame["isic_id"] = [f" {i}{ends[n % 4]}" for n, i in enumerate(frame["isic_id"])]
        frame.to_csv(copy / name, index=False)
    pd.testing.assert_frame_equal(before, build_index(copy).table)


def test_names_of_tables_and_stores_in_upper_case(copy: Path) -> None:
    before = build_index(copy).table
    for path in list(copy.iterdir()):
        path.rename(path.with_name(path.name.upper()))
    after = build_index(copy).table
    assert after["image"].tolist() == [
        ref.replace("train-image.hdf5", "TRAIN-IMAGE.HDF5").replace(
            "test-image.hdf5", "TEST-IMAGE.HDF5"
        )
        for ref in before["image"]
    ]
    pd.testing.assert_frame_equal(before.drop(columns="image"), after.drop(columns="image"))


def test_an_unknown_column_is_noted(copy: Path) -> None:
    path = copy / "train-metadata.csv"
    read_text(path).assign(surprise="1").to_csv(path, index=False)
    index = build_index(copy)
    assert "surprise" not in index.table
    assert "'surprise'" in index.notes[0]


def test_unknown_is_a_location_and_no_patient(copy: Path) -> None:
    path = copy / "train-metadata.csv"
    for column in ("patient_id", "sex", "anatom_site_general", "tbp_lv_location_simple"):
        edit(path, column, "Unknown", slice(None))
    train = build_index(copy).table.query("split == 'train'")
    assert train[["patient_id", "sex", "site"]].isna().all().all()
    assert (train["tbp_lv_location_simple"] == "Unknown").all()


@pytest.mark.slow
def test_loose_files_cost_no_more_than_their_number(tmp_path: Path) -> None:
    seconds = []
    for n in (2_000, 16_000):
        root = tmp_path / str(n)
        folder = root / "train-image" / "image"
        folder.mkdir(parents=True)
        ids = [f"ISIC_{i:07d}" for i in range(n)]
        for image in ids:
            (folder / f"{image}.jpg").touch()
        rows = "\n".join(f"{image},0" for image in ids)
        (root / "ISIC_2024_Training_GroundTruth.csv").write_text(f"isic_id,malignant\n{rows}\n")
        build_index(root)
        start = time.process_time()
        assert build_index(root).table["image"].notna().all()
        seconds.append(time.process_time() - start)
    assert seconds[1] < 16 * seconds[0] + 0.1, seconds  # 8 for linear, 64 for quadratic


def test_a_labelled_test_file_keeps_its_targets(copy: Path) -> None:
    path = copy / "test-metadata.csv"
    frame = read_text(path)
    frame["target"] = ["1", "0", ""] + ["0"] * 5
    frame.to_csv(path, index=False)
    table = build_index(copy).table
    targets = table.loc[table["split"] == "test", "target"]
    assert targets.isna().tolist() == [False, False, True] + [False] * 5
    assert targets.dropna().tolist()[:2] == [1, 0]


def test_a_read_only_root_is_fine(copy: Path) -> None:
    before = sorted(p.name for p in copy.iterdir())
    build_index(copy)
    assert sorted(p.name for p in copy.iterdir()) == before


def test_real_archive_layout(real_root: Path) -> None:
    index = build_index(real_root / "isic2024")
    table = index.table
    assert table["split"].value_counts().to_dict() == {"train": 8281, "test": 3}
    assert int((table["target"] == 1).sum()) == 230
    test = table[table["split"] == "test"]
    assert test["image_id"].tolist() == ["ISIC_0015657", "ISIC_0015729", "ISIC_0015740"]
    assert test["age"].tolist() == [45.0, 35.0, 65.0]
    with h5py.File(index.root / "train-image.hdf5") as file:
        name, _, key = table["image"][0].partition("#")
        assert name == "train-image.hdf5"
        assert key in file


def test_real_kaggle_rows(real_root: Path, tmp_path: Path) -> None:
    real = real_root / "isic2024"
    shutil.copy(real / "train-metadata_5rows_55cols.csv", tmp_path / "train-metadata.csv")
    shutil.copy(real / "test-metadata.csv", tmp_path)
    table = build_index(tmp_path).table
    assert table["target"].tolist()[:5] == [1, 0, 1, 1, 0]
    assert table["diagnosis"][2].endswith("Squamous cell carcinoma, Invasive")
    assert table["lesion_id"].notna().sum() == 3


def test_a_locked_store_is_an_error_and_not_taken_for_complete(copy: Path) -> None:
    """Loose files lie beside it: which ids the store lacks cannot be seen, and would be kept."""
    stray = pd.DataFrame({"image_id": ["ISIC_0000000"]})
    (copy / "train-image").mkdir()
    (copy / "train-image" / f"{stray['image_id'][0]}.jpg").touch()
    with (copy / "train-image.hdf5").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="HDF5_USE_FILE_LOCKING=FALSE"):
            build_index(copy)
    assert build_index(copy).table["image"].notna().all()
