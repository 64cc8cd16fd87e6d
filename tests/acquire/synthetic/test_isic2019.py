"""A generated ISIC 2019 archive: the published layout, counts, gaps and names."""

from pathlib import Path

import pandas as pd
import pytest

from isic.acquire.synthetic import write_isic2019
from isic.images.decode import decode
from isic.index.isic2019 import build_index
from isic.split.grouped import group_of

CLASSES = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("isic2019") / "full"
    return write_isic2019(root, n_images=25_331, n_test=8_238, images=False)


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / f"ISIC_2019_{name}.csv", dtype=str, keep_default_na=False)


def labels(truth: pd.DataFrame) -> pd.Series:
    assert list(truth.columns) == ["image", *CLASSES]
    numbers = truth[CLASSES].astype(float)
    assert (numbers.sum(axis=1) == 1).all()
    return numbers.idxmax(axis=1)


def test_layout(archive2019: Path) -> None:
    assert sorted(p.name for p in archive2019.iterdir()) == [
        "ISIC_2019_Test_GroundTruth.csv",
        "ISIC_2019_Test_Input",
        "ISIC_2019_Test_Metadata.csv",
        "ISIC_2019_Training_GroundTruth.csv",
        "ISIC_2019_Training_Input",
        "ISIC_2019_Training_Metadata.csv",
        "synthetic.json",
    ]
    for split in ("Training", "Test"):
        truth, metadata = (table(archive2019, f"{split}_{x}") for x in ("GroundTruth", "Metadata"))
        assert truth["image"].tolist() == metadata["image"].tolist()
        images = sorted(p.stem for p in (archive2019 / f"ISIC_2019_{split}_Input").glob("*.jpg"))
        assert images == truth["image"].tolist()
        assert decode(
            next((archive2019 / f"ISIC_2019_{split}_Input").iterdir()).read_bytes()
        ).shape == (
            32,
            32,
            3,
        )


def test_columns_and_forms_of_cells(full: Path) -> None:
    columns = ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]
    assert list(table(full, "Training_Metadata").columns) == columns
    assert list(table(full, "Test_Metadata").columns) == [c for c in columns if c != "lesion_id"]
    train, test = (table(full, f"{s}_GroundTruth") for s in ("Training", "Test"))
    assert set(train[CLASSES].stack()) == {"0.0", "1.0"}
    assert set(test[CLASSES].stack()) == {"0", "1"}
    assert (full / "ISIC_2019_Training_GroundTruth.csv").read_bytes().endswith(b"0.0\r\n")


def test_published_counts_of_classes(full: Path) -> None:
    train, test = (labels(table(full, f"{s}_GroundTruth")) for s in ("Training", "Test"))
    for found, published in (
        (train, [4522, 12875, 3323, 867, 2624, 239, 253, 628, 0]),
        (test, [1327, 2495, 975, 374, 660, 91, 104, 165, 2047]),
    ):
        assert found.value_counts().reindex(CLASSES, fill_value=0).tolist() == published


def test_published_rates_of_gaps(full: Path) -> None:
    columns = ["age_approx", "anatom_site_general", "sex", "lesion_id"]
    for split, published in (("Training", (437, 2631, 384, 2084)), ("Test", (326, 655, 339))):
        missing = (table(full, f"{split}_Metadata") == "").sum()
        found = [missing[column] for column in columns[: len(published)]]
        assert found == pytest.approx(published, rel=0.1), split


def test_lesions_are_of_three_sources_and_most_images_share_theirs(full: Path) -> None:
    metadata = table(full, "Training_Metadata")
    source = metadata["lesion_id"].str.extract(r"^(BCN|HAM|MSK4)_\d{7}$")[0].fillna("none")
    published = {"BCN": 12_413, "HAM": 10_015, "MSK4": 819, "none": 2_084}
    assert source.value_counts().to_dict() == published
    known = metadata[metadata["lesion_id"] != ""]
    size = known.groupby("lesion_id")["image"].transform("size")
    assert (size > 1).sum() / len(metadata) == pytest.approx(16_459 / 25_331, abs=0.02)
    assert known["lesion_id"].nunique() == pytest.approx(11_847, rel=0.02)
    assert 20 <= size.max() <= 31
    labelled = known.merge(table(full, "Training_GroundTruth").assign(y=lambda t: labels(t)))
    assert (labelled.groupby("lesion_id")["y"].nunique() == 1).all()
    msk = labelled["lesion_id"].str.startswith("MSK4")
    assert set(labelled.loc[msk, "y"]) == {"MEL", "NV", "BKL"}


def test_names_are_those_of_their_source_and_never_shared(full: Path) -> None:
    train, test = table(full, "Training_Metadata"), table(full, "Test_Metadata")
    assert train["image"].is_unique
    assert train["image"].is_monotonic_increasing
    assert train["image"].str.fullmatch(r"ISIC_\d{7}(_downsampled)?").all()
    assert test["image"].str.fullmatch(r"ISIC_\d{7}").all()
    short = train["image"].str.removesuffix("_downsampled")
    assert not set(short) & set(test["image"])
    assert (short != train["image"]).sum() == pytest.approx(2_074, rel=0.05)
    number = short.str[5:].astype(int)
    ham = train["lesion_id"].str.startswith("HAM")
    assert number[ham].between(24_306, 34_320).all()
    assert not number[~ham].between(24_306, 34_320).any()


def test_vocabularies(full: Path) -> None:
    train, test = table(full, "Training_Metadata"), table(full, "Test_Metadata")
    assert set(train["sex"]) == {"male", "female", ""}
    sites = set(train["anatom_site_general"])
    assert len(sites) == 9
    assert sites - set(test["anatom_site_general"]) == {"lateral torso"}
    ages = set(train["age_approx"]) - {""}
    assert ages == {str(age) for age in range(0, 90, 5)}


def test_a_small_archive_has_every_class_in_two_groups(archive2019: Path) -> None:
    index = build_index(archive2019)
    train = index.table[index.table["split"] == "train"]
    groups = group_of(train).groupby(train["target"].to_numpy()).nunique()
    assert sorted(groups.index) == list(range(8))
    assert groups.min() >= 2
    assert train["lesion_id"].dropna().duplicated().any()
    assert train["image_id"].str.endswith("_downsampled").any()
    test = index.table[index.table["split"] == "test"]
    assert (test["target"] == 8).any()


def test_forty_images_are_enough_for_two_lesions_of_every_class(tmp_path: Path) -> None:
    root = write_isic2019(tmp_path, n_images=40, images=False)
    metadata = table(root, "Training_Metadata")
    lesion = metadata["lesion_id"].where(metadata["lesion_id"] != "", metadata["image"])
    assert lesion.groupby(labels(table(root, "Training_GroundTruth"))).nunique().min() >= 2


def test_frames_are_those_of_the_sources(tmp_path: Path) -> None:
    root = write_isic2019(tmp_path, n_images=24, n_test=1)
    lesion = table(root, "Training_Metadata").set_index("image")["lesion_id"]
    shapes = {
        (lesion[p.stem].partition("_")[0], decode(p.read_bytes()).shape[:2])
        for p in (root / "ISIC_2019_Training_Input").iterdir()
    }
    assert ("HAM", (450, 600)) in shapes
    assert ("BCN", (1024, 1024)) in shapes


def test_a_larger_archive_than_the_original_has_ids_enough(tmp_path: Path) -> None:
    root = write_isic2019(tmp_path, n_images=25_400, n_test=9_000, images=False)
    names = pd.concat([table(root, f"{s}_Metadata")["image"] for s in ("Training", "Test")])
    assert names.is_unique
    assert len(names) == 34_400
