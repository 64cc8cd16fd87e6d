"""A generated MILK10k archive: two views a lesion, tables, scores that agree with the pictures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.acquire.synthetic import write_milk10k
from isic.acquire.synthetic.milk10k_lesions import DIAGNOSES, MONET
from isic.images.decode import decode
from isic.index.milk10k import build_index
from isic.index.schema import sample_rows

CLASSES = "AKIEC BCC BEN_OTH BKL DF INF MAL_OTH MEL NV SCCKA VASC".split()
COLUMNS = (
    "lesion_id image_type isic_id attribution copyright_license image_manipulation age_approx sex "
    "skin_tone_class site MONET_ulceration_crust MONET_hair MONET_vasculature_vessels "
    "MONET_erythema MONET_pigmented MONET_gel_water_drop_fluid_dermoscopy_liquid "
    "MONET_skin_markings_pen_ink_purple_pen"
).split()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("milk10k") / "full"
    return write_milk10k(root, n_images=5_240, n_test=479, images=False)


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / f"MILK10k_{name}.csv", dtype=str, keep_default_na=False)


def labels(root: Path) -> pd.Series:
    truth = table(root, "Training_GroundTruth").set_index("lesion_id")
    assert list(truth.columns) == CLASSES
    assert set(truth.stack()) == {"0.0", "1.0"}
    assert (truth.astype(float).sum(axis=1) == 1).all()
    return truth.astype(float).idxmax(axis=1)


def test_layout(milk32: Path) -> None:
    assert sorted(p.name for p in milk32.iterdir()) == [
        "MILK10k_Test_Input",
        "MILK10k_Test_Metadata.csv",
        "MILK10k_Training_GroundTruth.csv",
        "MILK10k_Training_Input",
        "MILK10k_Training_Metadata.csv",
        "MILK10k_Training_Supplement.csv",
        "sample_submission.csv",
        "synthetic.json",
    ]
    for split in ("Training", "Test"):
        metadata = table(milk32, f"{split}_Metadata")
        folder = milk32 / f"MILK10k_{split}_Input"
        files = {p.relative_to(folder).as_posix() for p in folder.glob("*/*.jpg")}
        assert files == set(metadata["lesion_id"] + "/" + metadata["isic_id"] + ".jpg")


def test_columns_and_forms_of_cells(full: Path) -> None:
    train, test = table(full, "Training_Metadata"), table(full, "Test_Metadata")
    assert list(train.columns) == list(test.columns) == COLUMNS
    assert set(train["age_approx"]) == {f"{age}.0" for age in range(5, 90, 5)} | {""}
    assert set(test["age_approx"]) <= {str(age) for age in range(5, 90, 5)}
    supplement = table(full, "Training_Supplement")
    expected = ["isic_id", "diagnosis_full", "diagnosis_confirm_type"]
    assert list(supplement.columns) == [*expected, "invasion_thickness_interval"]
    assert supplement["isic_id"].is_monotonic_increasing
    sample = pd.read_csv(full / "sample_submission.csv", dtype=str)
    assert list(sample.columns) == ["lesion_id", *CLASSES]
    assert sample["lesion_id"].tolist() == test["lesion_id"].drop_duplicates().tolist()


def test_rows_go_by_lesion_the_clinical_picture_first(full: Path) -> None:
    for name in ("Training_Metadata", "Test_Metadata"):
        rows = table(full, name)
        assert rows["lesion_id"].is_monotonic_increasing
        assert rows["isic_id"].is_unique
        assert set(rows["image_type"][::2]) == {"clinical: close-up"}
        assert set(rows["image_type"][1::2]) == {"dermoscopic"}
        assert rows["lesion_id"][::2].tolist() == rows["lesion_id"][1::2].tolist()
        first, second = rows["isic_id"][::2].to_numpy(), rows["isic_id"][1::2].to_numpy()
        assert 0.4 < (first < second).mean() < 0.6  # the ids do not tell the view


def test_published_counts_of_classes(full: Path) -> None:
    published = [303, 2522, 44, 544, 52, 50, 9, 450, 746, 473, 47]
    counts = labels(full).value_counts()
    assert counts.to_dict() == dict(zip(CLASSES, published, strict=True))


def test_gaps_and_vocabularies(full: Path) -> None:
    train, test = table(full, "Training_Metadata"), table(full, "Test_Metadata")
    assert (train["age_approx"] == "").sum() == 40
    assert (train["site"] == "").sum() // 2 == pytest.approx(31, abs=20)
    assert (train.drop(columns=["age_approx", "site"]) != "").all().all()
    sites = "trunk head_neck_face lower_extremity upper_extremity hand foot genital".split()
    assert set(train["site"]) == {*sites, ""}
    assert set(train["sex"]) == {"male", "female"}
    assert set(train["skin_tone_class"]) == set("012345")
    assert "0" not in set(test["skin_tone_class"])
    hand, trunk = ([(t["site"] == s).mean() for t in (train, test)] for s in ("hand", "trunk"))
    assert hand[1] > 2 * hand[0]  # the published shift
    assert trunk[1] < trunk[0]
    altered = (train["image_manipulation"] == "altered").sum()
    assert altered == pytest.approx(335, rel=0.15)


def test_what_belongs_to_the_lesion_agrees_between_its_views(full: Path) -> None:
    groups = table(full, "Training_Metadata").groupby("lesion_id")
    same = ["age_approx", "sex", "skin_tone_class", "site"]
    assert (groups[same].nunique() == 1).all().all()
    assert (groups[list(MONET)].nunique() == 2).all().all()
    assert (groups["image_manipulation"].nunique() == 2).sum() == pytest.approx(327, rel=0.15)


def test_the_supplement_agrees_with_the_class(full: Path) -> None:
    images = table(full, "Training_Metadata").merge(table(full, "Training_Supplement"))
    images["class"] = images["lesion_id"].map(labels(full))
    assert len(images) == 10_480
    found = images.groupby("class")["diagnosis_full"].agg(set)
    assert all(found[name] <= set(DIAGNOSES[name]) for name in CLASSES)
    assert sum(map(len, found)) >= 30
    assert images["diagnosis_confirm_type"].value_counts().to_dict() == pytest.approx(
        {"histopathology": 10_032, "single contributor clinical assessment": 448}, rel=0.25
    )
    deep = images["invasion_thickness_interval"] != ""
    assert set(images.loc[deep, "diagnosis_full"]) == {"Melanoma Invasive"}
    assert deep.sum() == pytest.approx(492, rel=0.15)


def test_a_small_archive_has_every_class_twice_and_whole_samples(milk32: Path) -> None:
    index = build_index(milk32)
    samples = sample_rows(index)
    train = samples[samples["split"] == "train"]
    assert len(train) == 60
    assert train["target"].value_counts().reindex(range(11)).min() >= 2
    assert index.table["image"].notna().all()


def test_forty_lesions_are_enough_for_two_of_every_class(tmp_path: Path) -> None:
    root = write_milk10k(tmp_path, n_images=40, images=False)
    assert labels(root).value_counts().reindex(CLASSES).min() == 2


def test_the_scores_agree_with_the_pictures(tmp_path: Path) -> None:
    root = write_milk10k(tmp_path, n_images=150, n_test=1, size_range=96)
    rows = pd.read_csv(root / "MILK10k_Training_Metadata.csv")
    rows = rows[rows["image_type"] == "dermoscopic"]
    folder = root / "MILK10k_Training_Input"
    files = [folder / r.lesion_id / f"{r.isic_id}.jpg" for r in rows.itertuples()]
    pixels = np.stack([decode(f.read_bytes()) for f in files]).astype(float)
    centre = pixels[:, 36:60, 36:60].mean(axis=(1, 2))  # (N, 3)
    edge = pixels[:, :12].mean(axis=(1, 2))
    darker = (edge - centre).mean(axis=1)
    redder = (centre[:, 0] - centre[:, 1]) - (edge[:, 0] - edge[:, 1])
    purple = (pixels[..., 2] > pixels[..., 0] + 25).sum(axis=(1, 2)) > 8
    assert np.corrcoef(darker, rows["MONET_pigmented"])[0, 1] > 0.5
    assert np.corrcoef(redder, rows["MONET_erythema"])[0, 1] > 0.3
    assert np.corrcoef(purple, rows["MONET_skin_markings_pen_ink_purple_pen"])[0, 1] > 0.5
    assert ((rows[list(MONET)] > 0) & (rows[list(MONET)] < 1)).all().all()


def test_the_two_views_differ_as_lenses_do(tmp_path: Path) -> None:
    root = write_milk10k(tmp_path, n_images=30, n_test=1)
    metadata = table(root, "Training_Metadata")
    names = metadata["lesion_id"] + "/" + metadata["isic_id"] + ".jpg"
    spread = {}
    for view, rows in names.groupby(metadata["image_type"]):
        files = [root / "MILK10k_Training_Input" / name for name in rows]
        images = [decode(file.read_bytes()) for file in files]
        assert {image.shape for image in images} == {(450, 600, 3)}
        grey = [image.mean(axis=2) for image in images]
        spread[view] = np.mean([np.abs(np.diff(g)).mean() for g in grey])
    assert spread["clinical: close-up"] < 0.8 * spread["dermoscopic"]  # blurred
