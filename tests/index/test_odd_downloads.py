"""Downloads as people keep them: in parts, sorted into folders, through macOS, saved by pandas."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from isic.acquire.synthetic import write_isic2019, write_isic2024
from isic.acquire.synthetic.isic2020_images import example, tfrecord
from isic.errors import DataError
from isic.index import isic2019, isic2020, isic2024, isic2024_images, milk10k
from isic.index.schema import Index
from tests.index.small_archives import WRITERS, edit, read, touch

READERS = {"isic2019": isic2019, "isic2020": isic2020, "milk10k": milk10k}


@pytest.fixture(scope="module")
def made2024(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd") / "isic2024"
    return write_isic2024(root, n_images=40, n_test=6, size_range=32)


@pytest.fixture
def root2024(made2024: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made2024, tmp_path / "isic2024"))


@pytest.fixture
def root2019(tmp_path: Path) -> Path:
    return write_isic2019(tmp_path / "isic2019", n_images=40, n_test=4, size_range=32)


@pytest.fixture(params=tuple(WRITERS))
def small(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A reader's name and a small archive of it."""
    name = str(request.param)
    return name, WRITERS[name](tmp_path / name)


def move_out(store: Path, folder: Path, ids: list[str]) -> None:
    """Take images out of an HDF5 store and put them beside it as files."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(store, "r+") as file:
        for image_id in ids:
            (folder / f"{image_id}.jpg").write_bytes(np.asarray(file[image_id][()]).tobytes())
            del file[image_id]


def sorted_refs(index: Index) -> dict[str, str]:
    return dict(zip(index.table["image_id"], index.table["image"], strict=True))


@pytest.mark.parametrize("folder", ["train-image/image", "ISIC_2024_Training_Input", "jpgs"])
def test_loose_files_complete_a_store_that_holds_a_part(root2024: Path, folder: str) -> None:
    ids = read(root2024 / "train-metadata.csv")["isic_id"].tolist()
    move_out(root2024 / "train-image.hdf5", root2024 / folder, ids[:15])
    index = isic2024.build_index(root2024)
    refs = sorted_refs(index)
    assert [refs[i] for i in ids[:15]] == [f"{folder}/{i}.jpg" for i in ids[:15]]
    assert [refs[i] for i in ids[15:]] == [f"train-image.hdf5#{i}" for i in ids[15:]]
    assert any("31 rows are in train-image.hdf5, test-image.hdf5, 15" in n for n in index.notes)


def test_a_store_that_holds_all_is_taken_and_not_listed(root2024: Path, monkeypatch) -> None:
    ids = read(root2024 / "train-metadata.csv")["isic_id"].tolist()
    touch(root2024 / "train-image" / "image", [f"{i}.jpg" for i in ids])
    monkeypatch.setattr(isic2024_images, "FEW", 0)
    monkeypatch.setattr(h5py.File, "__iter__", None)
    assert isic2024.build_index(root2024).table["image"].str.contains("hdf5#").all()


def test_a_store_alone_is_not_opened(root2024: Path) -> None:
    (root2024 / "train-image.hdf5").write_bytes(b"no store")
    assert isic2024.build_index(root2024).table["image"].notna().all()
    touch(root2024 / "train-image", ["ISIC_0000000.jpg"])
    assert isic2024.build_index(root2024).table["image"].notna().all()


def test_stores_in_a_folder(root2024: Path) -> None:
    (root2024 / "hdf5").mkdir()
    for store in root2024.glob("*.hdf5"):
        store.rename(root2024 / "hdf5" / store.name)
    refs = isic2024.build_index(root2024).table["image"].str.partition("#")[0]
    assert refs.value_counts().to_dict() == {
        "hdf5/train-image.hdf5": 40,
        "hdf5/test-image.hdf5": 6,
    }


def test_files_of_macos_are_neither_tables_nor_stores(root2024: Path) -> None:
    before = isic2024.build_index(root2024).table
    truth = read(root2024 / "train-metadata.csv")[["isic_id", "target"]]
    truth = truth.rename(columns={"target": "malignant"})
    truth.to_csv(root2024 / "ISIC_2024_Training_GroundTruth.csv", index=False)
    (root2024 / "train-metadata.csv").rename(root2024 / "metadata.csv")
    for path in [*root2024.glob("*.csv"), *root2024.glob("*.hdf5")]:
        (path.parent / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    index = isic2024.build_index(root2024)
    assert index.table["image"].tolist() == before["image"].tolist()
    assert not any("._" in note for note in index.notes)


def test_tables_in_one_folder_and_images_in_another(small: tuple[str, Path]) -> None:
    name, root = small
    before = READERS[name].build_index(root).table
    (root / "csv").mkdir()
    for path in root.glob("*.csv"):
        path.rename(root / "csv" / path.name)
    index = READERS[name].build_index(root)
    pd.testing.assert_frame_equal(index.table, before)
    assert index.notes[0] == "no table lies in the root itself: those of csv/ are read"
    touch(root / "csv", ["a.jpg"])  # now a root of its own
    with pytest.raises(DataError, match=r"found .*/csv/.*: set data.root=.*/csv"):
        READERS[name].build_index(root)


def test_tables_saved_by_pandas_with_their_row_numbers(small: tuple[str, Path]) -> None:
    name, root = small
    before = READERS[name].build_index(root).table
    for i, path in enumerate(sorted(root.glob("*.csv"))):
        label = "Unnamed: 0" if i % 2 else None
        read(path).to_csv(path, index_label=label)
    index = READERS[name].build_index(root)
    pd.testing.assert_frame_equal(index.table, before)
    assert any("without a name is left out" in note for note in index.notes)


def test_a_further_column_of_a_ground_truth_is_to_be_removed(root2019: Path) -> None:
    path = root2019 / "ISIC_2019_Training_GroundTruth.csv"
    read(path).assign(NONE="0.0").to_csv(path, index=False)
    with pytest.raises(DataError, match="has not: 'NONE'; remove them from the file"):
        isic2019.build_index(root2019)


def test_images_of_the_archive_lie_under_the_bare_id_or_the_marked_one(root2019: Path) -> None:
    before = isic2019.build_index(root2019).table
    marked, bare = [], []
    for path in sorted((root2019 / "ISIC_2019_Training_Input").glob("*.jpg")):
        if path.stem.endswith("_downsampled"):
            marked.append(path.stem)
            path.rename(path.with_name(path.name.replace("_downsampled", "")))
        elif len(bare) < 2:
            bare.append(path.stem)
            path.rename(path.with_name(f"{path.stem}_downsampled.jpg"))
    index = isic2019.build_index(root2019)
    assert marked and index.table["image"].notna().all()
    assert index.table["image_id"].tolist() == before["image_id"].tolist()
    assert any(f"{len(marked) + len(bare)} images are named with _down" in n for n in index.notes)
    # the id itself wins
    touch(root2019 / "ISIC_2019_Training_Input", [f"{marked[0]}.jpg"])
    assert sorted_refs(isic2019.build_index(root2019))[marked[0]].endswith("_downsampled.jpg")


def test_isic2019_as_records(root2019: Path) -> None:
    folder = root2019 / "ISIC_2019_Training_Input"
    records = b""
    for i, path in enumerate(sorted(folder.glob("*.jpg"))):
        name = path.stem if i else path.stem.removesuffix("_downsampled")
        features = {"image": path.read_bytes(), "image_name": name.encode()}
        records += tfrecord(example(features))
    shutil.rmtree(folder)
    (root2019 / "train00-40.tfrec").write_bytes(records)
    index = isic2019.build_index(root2019)
    train = index.table[index.table["split"] == "train"]
    assert train["image"].str.startswith("train00-40.tfrec#").all()
    assert train["image"].nunique() == 40


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif", ".JPE"])
def test_other_formats_that_the_decoder_reads(small: tuple[str, Path], suffix: str) -> None:
    name, root = small
    for path in sorted(root.rglob("*.jpg")):
        path.rename(path.with_suffix(suffix))
    edited = next(root.glob("*rain*etadata.csv"), root / "train.csv")
    column = "isic_id" if name == "milk10k" else read(edited).columns[0]
    edit(edited, str(column), read(edited)[column][0] + suffix)
    index = READERS[name].build_index(root)
    assert index.table["image"].str.endswith(suffix).all()


def test_a_download_of_the_isic_archive_is_for_the_folder_reader(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("isic_id,attribution,diagnosis_1\nISIC_1,x,Benign\n")
    for reader in (isic2019, isic2020, isic2024):
        with pytest.raises(DataError, match=r"metadata.csv, a download .*: data=folder data.root="):
            reader.build_index(tmp_path)
    (tmp_path / "metadata.csv").write_text("id,label\n1,x\n")
    with pytest.raises(DataError) as error:
        isic2019.build_index(tmp_path)
    assert "data=folder" not in str(error.value)
