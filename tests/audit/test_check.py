"""Each fault planted in an archive is found and named, and the command ends as it says."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import simplejpeg

from isic.audit.check import check_archive
from isic.audit.findings import NOTE, ODD, RIGHT, WRONG
from isic.audit.report import FACTS, TEXT, Report
from isic.index import isic2020
from isic.index.folder import build_index as folder_index
from isic.index.isic2024 import build_index
from tests.commands import ForkServer

IDS = 5  # rows that a test leaves whole


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def check(root: Path, cache: Path, **options: object) -> Report:
    return check_archive(build_index(root), cache_root=cache, progress=False, **options)  # type: ignore[arg-type]


def texts(report: Report, state: str) -> str:
    return "\n".join(f"{f.subject}: {f.text}" for f in report.findings if f.state == state)


def ids_of(root: Path, split: str = "train") -> list[str]:
    return pd.read_csv(root / f"{split}-metadata.csv", dtype=str)["isic_id"].tolist()


def edit(path: Path, column: str, values: dict[int, str]) -> None:
    """Set cells of one column of a CSV by row number."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table[column] = [values.get(i, old) for i, old in enumerate(table[column])]
    table.to_csv(path, index=False)


def test_a_clean_archive(archive600: Path, cache: Path) -> None:
    report = check(archive600, cache)
    assert not report.errors
    assert texts(report, ODD).startswith("counts")
    assert texts(report, ODD).count("\n") == 0, "nothing but the counts"
    assert "620 decode to the end: JPEG 620" in texts(report, RIGHT)
    assert list(report.seconds) == ["table", "images", "copies", "shortcuts"]


def test_missing_and_truncated_images(copy600: Path, cache: Path) -> None:
    ids = ids_of(copy600)
    with h5py.File(copy600 / "train-image.hdf5", "a") as file:
        data = bytes(file[ids[1]][()])
        for key in ids[:2]:
            del file[key]
        file[ids[1]] = np.bytes_(data[:-30])
    report = check(copy600, cache)
    assert f"1 of 600 train rows have no image under {copy600}: {ids[0]}" in texts(report, WRONG)
    assert f"1 of 620 images cannot be read: {ids[1]} (truncated" in texts(report, WRONG)
    assert "data.missing_images=drop" in report.errors[0].todo
    tolerant = check(copy600, cache, missing_images="drop", on_bad_image="skip")
    assert not tolerant.errors
    assert ids[0] in texts(tolerant, ODD)
    assert ids[1] in texts(tolerant, ODD)


def test_no_image_at_all_and_none_of_test(copy600: Path, cache: Path) -> None:
    (copy600 / "test-image.hdf5").unlink()
    report = check(copy600, cache)
    assert not report.errors, "training needs none of them"
    assert "20 of 20 test rows have no image" in texts(report, ODD)
    (copy600 / "train-image.hdf5").unlink()
    report = check(copy600, cache)
    assert "none of 620 rows has an image" in texts(report, WRONG)
    assert "data.missing_images=drop" in report.errors[0].todo
    assert "kaggle competitions download" in report.errors[0].todo
    assert not check(copy600, cache, images=False).errors


def test_no_copies_among_few_images_is_said_of_these_alone(copy600: Path, cache: Path) -> None:
    with h5py.File(copy600 / "train-image.hdf5", "a") as file:
        for key in ids_of(copy600)[: 600 - IDS]:
            del file[key]
    found = texts(check(copy600, cache, missing_images="drop"), RIGHT)
    assert f"no two show the same, among {IDS + 20} images that were read" in found
    assert f"nothing is known of the {600 - IDS} others" in found


def test_marked_duplicates_are_compared_and_counted(archive2020: Path, cache: Path) -> None:
    index = isic2020.build_index(archive2020)
    n = int(index.table["duplicate_of"].notna().sum())
    report = check_archive(index, cache_root=cache, progress=False)
    facts = report.facts()["duplicates"]
    assert (facts["marked"], facts["compared"], facts["doubted"]) == (n, n, [])
    assert f"duplicates: {n} images are marked" in texts(report, RIGHT)
    for options in ({"overlap": False}, {"images": False}):
        alone = check_archive(index, cache_root=cache, progress=False, **options)  # type: ignore[arg-type]
        assert alone.facts()["duplicates"]["compared"] == 0
        assert alone.facts()["duplicates"]["marked"] == n


def test_how_a_folder_was_read_is_a_note(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "mine"
    for i, name in enumerate(("a", "b", "a", "b")):
        (root / name).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        (root / name / f"x{i}.jpg").write_bytes(simplejpeg.encode_jpeg(noise))
    report = check_archive(folder_index(root), cache_root=cache, progress=False)
    assert "b is the positive class" in texts(report, NOTE)
    assert "reader" not in texts(report, ODD)
    assert "nothing can be said of what two folds share" in texts(report, ODD)


def test_a_torn_store_is_wrong_and_the_rest_is_still_checked(copy600: Path, cache: Path) -> None:
    (copy600 / "train-image.hdf5").write_bytes(b"HDF")
    report = check(copy600, cache)
    assert "whole HDF5 file" in texts(report, WRONG)
    assert "shortcuts" in report.parts


def test_a_patient_of_both_sides(copy600: Path, cache: Path) -> None:
    patient = pd.read_csv(copy600 / "train-metadata.csv", dtype=str)["patient_id"][0]
    edit(copy600 / "test-metadata.csv", "patient_id", {3: patient})
    report = check(copy600, cache)
    assert f"1 patients are in train and in test: {patient}" in texts(report, ODD)


def test_one_picture_under_two_patients_and_on_both_sides(copy600: Path, cache: Path) -> None:
    table = pd.read_csv(copy600 / "train-metadata.csv", dtype=str)
    sick = table[table["target"] == "1"].iloc[0]
    sound = table[(table["target"] == "0") & (table["patient_id"] != sick["patient_id"])].iloc[:2]
    a, b, c = sick["isic_id"], *sound["isic_id"]
    test = ids_of(copy600, "test")[5]
    with h5py.File(copy600 / "train-image.hdf5", "a") as file:
        picture, other = bytes(file[a][()]), bytes(file[c][()])
        del file[b]
        file[b] = np.bytes_(picture)
    with h5py.File(copy600 / "test-image.hdf5", "a") as file:
        del file[test]
        file[test] = np.bytes_(other)
    report = check(copy600, cache)
    found = texts(report, ODD)
    assert f"1 pairs show the same under different labels: {min(a, b)} = {max(a, b)}" in found
    assert f"1 pairs show the same under two patients or lesions: {min(a, b)}" in found
    assert f"1 pairs show the same in train and test: {min(c, test)} = {max(c, test)}" in found
    assert report.parts["copies"].facts["pairs"] == {"bytes": 2}
    assert "copies" not in check(copy600, cache, overlap=False).parts


def test_a_cache_that_cannot_be_written_costs_the_search_for_copies_alone(
    archive32: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    report = check(archive32, tmp_path / "file" / "cache")
    assert "copies: not looked for" in texts(report, ODD)
    assert not report.errors


def test_shortcuts_through_files(copy600: Path, cache: Path) -> None:
    import cv2

    table = pd.read_csv(copy600 / "train-metadata.csv", dtype=str)
    sick = np.flatnonzero(table["target"] == "1")
    with h5py.File(copy600 / "train-image.hdf5", "a") as file:
        for image_id in table["isic_id"][sick]:
            pixels = cv2.resize(simplejpeg.decode_jpeg(bytes(file[image_id][()])), (40, 40))
            del file[image_id]
            file[image_id] = np.bytes_(simplejpeg.encode_jpeg(pixels, quality=85))
    edit(
        copy600 / "train-metadata.csv",
        "attribution",
        {i: "" for i in range(600) if i not in set(sick) and i % 6},
    )
    found = texts(check(copy600, cache), ODD)
    assert "image width (malignant 1.00)" in found
    assert "attribution being known (malignant 0.9" in found


# ---- the command


def run(commands: ForkServer, root: Path, tmp_path: Path, *words: str) -> tuple[int, str]:
    env = {"ISIC_RUNS_ROOT": str(tmp_path / "runs"), "ISIC_CACHE_ROOT": str(tmp_path / "cache")}
    return commands.run("isic", "check", "data=isic2024", f"data.root={root}", *words, env=env)


def test_the_command_writes_the_report_and_ends_with_0(
    commands: ForkServer, archive600: Path, tmp_path: Path
) -> None:
    code, text = run(commands, archive600, tmp_path)
    assert code == 0, text
    assert "Traceback" not in text
    assert "licence: per image: CC-0" in text
    assert "doi.org/10.34970" in text
    (folder,) = (tmp_path / "runs" / "checks").iterdir()
    assert str(folder) in text
    facts = json.loads((folder / FACTS).read_text())
    assert facts["images"]["status"] == {"ok": 620}
    assert facts["states"]["wrong"] == 0
    assert (folder / TEXT).exists()


def test_a_broken_archive_ends_with_3_and_says_where_to_read_on(
    commands: ForkServer, copy600: Path, tmp_path: Path
) -> None:
    ids = ids_of(copy600)
    with h5py.File(copy600 / "train-image.hdf5", "a") as file:
        del file[ids[7]]
    output = tmp_path / "out"
    code, text = run(commands, copy600, tmp_path, f"output={output}")
    assert code == 3, text
    assert "Traceback" not in text
    error = text[text.index("error: ") :]
    assert ids[7] in error
    assert "data.missing_images=drop" in error
    assert str(output / TEXT) in text
    assert json.loads((output / FACTS).read_text())["images"]["missing"] == [ids[7]]
    assert run(commands, copy600, tmp_path, "data.missing_images=drop")[0] == 0
    assert run(commands, copy600, tmp_path, "images=false")[0] == 0


def test_ids_twice_end_with_3(commands: ForkServer, copy600: Path, tmp_path: Path) -> None:
    ids = ids_of(copy600)
    edit(copy600 / "train-metadata.csv", "isic_id", {4: ids[9]})
    code, text = run(commands, copy600, tmp_path)
    assert code == 3, text
    assert ids[9] in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("archive", ["isic2019", "isic2020", "isic2024", "milk10k"])
def test_the_real_samples_are_checked(
    commands: ForkServer, real_root: Path, tmp_path: Path, archive: str
) -> None:
    output = tmp_path / "out"
    words = [
        f"data={archive}",
        f"data.root={real_root / archive}",
        f"output={output}",
        "overlap=false",
    ]
    env = {"ISIC_CACHE_ROOT": str(tmp_path / "cache")}
    code, text = commands.run("isic", "check", *words, env=env)
    assert "Traceback" not in text
    assert code == (0 if archive in ("isic2024", "milk10k") else 3), text
    facts = json.loads((output / FACTS).read_text())
    assert "unreadable" not in facts["images"]["status"]
    # What is named is medicine: nothing that says how the data came together.
    assert "how the data came together tells" not in text
    if archive == "isic2024":
        assert "no patient or lesion is in" not in text
        assert "odd    leaks       no patient or lesion of a train row is known" in text
