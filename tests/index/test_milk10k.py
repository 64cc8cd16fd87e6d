"""The MILK10k reader: views by type, classes by lesion, the bundle, the real tables."""

from pathlib import Path

import pandas as pd
import pytest

from isic.errors import DataError
from isic.index.milk10k import INFO, build_index
from isic.index.milk10k_columns import CLASSES, DIAGNOSES, LEVELS, MONET
from isic.index.schema import Index, refuse_train_only, sample_rows
from tests.index.small_archives import read, write_milk10k

TRUTH = "MILK10k_Training_GroundTruth.csv"
METADATA = "MILK10k_Training_Metadata.csv"
SUPPLEMENT = "MILK10k_Training_Supplement.csv"


@pytest.fixture(scope="module")
def real(real_root: Path) -> Index:
    return build_index(real_root / "milk10k")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_milk10k(tmp_path / "milk10k")


def test_views_go_by_type_and_not_by_order(root: Path) -> None:
    index = build_index(root)
    raw = pd.concat([read(root / METADATA), read(root / METADATA.replace("Training", "Test"))])
    kind = raw.set_index("isic_id")["image_type"]
    samples = sample_rows(index)
    assert len(samples) == 16
    for view, name in (("dermoscopic", "dermoscopic"), ("clinical", "clinical: close-up")):
        ids = samples[f"image_{view}"].str.rpartition("/")[2].str.removesuffix(".jpg")
        assert kind.loc[ids].eq(name).all()
    assert samples["image"].tolist() == samples["image_dermoscopic"].tolist()
    # The order of rows is that of neither ids nor types.
    before = index.table.set_index("image_id").sort_index()
    frame = read(root / METADATA)
    frame.sample(frac=1, random_state=0).to_csv(root / METADATA, index=False)
    after = build_index(root).table.set_index("image_id").sort_index()
    pd.testing.assert_frame_equal(before, after)


def test_each_image_has_the_class_of_its_lesion(root: Path) -> None:
    table = build_index(root).table
    truth = read(root / TRUTH).set_index("lesion_id").astype(float).idxmax(axis=1)
    train = table[table["split"] == "train"]
    assert [CLASSES[t] for t in train["target"]] == truth.loc[train["lesion_id"]].tolist()
    assert table.loc[table["split"] == "test", "target"].isna().all()


def test_what_differs_between_the_images_of_a_lesion(root: Path) -> None:
    index = build_index(root)
    assert index.info.view_columns == (*MONET, "image_manipulation")
    samples = sample_rows(index)
    assert {f"{m}_{v}" for m in MONET for v in index.info.views} <= set(samples)
    assert (samples["MONET_hair_clinical"] != samples["MONET_hair_dermoscopic"]).all()


def test_sites_are_canonical_and_the_raw_ones_stay(root: Path) -> None:
    table = build_index(root).table
    raw = read(root / METADATA)["site"]
    assert table["milk10k_site"].fillna("")[: len(raw)].tolist() == raw.tolist()
    pairs = table[["milk10k_site", "site"]].dropna().drop_duplicates()
    assert dict(pairs.itertuples(index=False, name=None)) == {
        "trunk": "torso",
        "hand": "hand",
        "head_neck_face": "head/neck",
    }


def test_the_supplement_gives_the_label_away(root: Path) -> None:
    index = build_index(root)
    assert index.table["diagnosis"][:24].eq("Nevus, Reed").all()
    for column in ("diagnosis", "diagnosis_confirm_type", "invasion_thickness_interval"):
        assert index.table.loc[index.table["split"] == "test", column].isna().all()
        with pytest.raises(DataError, match=column):
            refuse_train_only([column], index.info)
    refuse_train_only([*MONET, "skin_tone_class", "age", "sex", "site"], index.info)
    (root / SUPPLEMENT).unlink()
    assert build_index(root).table["diagnosis"].isna().all()


def test_a_labelled_test_set_and_an_unknown_class(root: Path) -> None:
    truth = read(root / TRUTH)[:4].assign(lesion_id=[f"IL_{i:07d}" for i in range(90, 94)])
    truth.to_csv(root / TRUTH.replace("Training", "Test"), index=False)
    test = build_index(root).table.query("split == 'test'")
    expected = truth.set_index("lesion_id").astype(float).idxmax(axis=1)
    assert [CLASSES[t] for t in test["target"]] == expected.loc[test["lesion_id"]].tolist()
    truth[1:].to_csv(root / TRUTH.replace("Training", "Test"), index=False)
    index = build_index(root)  # a test row without a label is still to be predicted
    assert index.table.query("split == 'test'")["target"].isna().sum() == 2
    assert "1 lesions without a class" in index.notes[0]
    read(root / TRUTH).assign(WART="0.0").to_csv(root / TRUTH, index=False)
    with pytest.raises(DataError, match="'WART'"):
        build_index(root)


def test_the_header_of_sample_files_is_understood(root: Path) -> None:
    before = build_index(root).table
    read(root / TRUTH).rename(columns={"lesion_id": "lesion"}).to_csv(root / TRUTH, index=False)
    pd.testing.assert_frame_equal(before, build_index(root).table)


def test_a_lesion_with_one_image_is_noted(root: Path) -> None:
    frame = read(root / METADATA)
    frame[frame["isic_id"] != frame["isic_id"][1]].to_csv(root / METADATA, index=False)
    index = build_index(root)
    assert index.notes[-1] == "1 lesions have no dermoscopic image: IL_0000000"
    sample = sample_rows(index).set_index("lesion_id").loc["IL_0000000"]
    assert pd.isna(sample["image_dermoscopic"])
    assert sample["image"] == sample["image_clinical"]
    assert sample["view"] == "clinical"


def test_two_images_of_a_type_are_a_fault(root: Path) -> None:
    frame = read(root / METADATA)
    extra = frame[:2].assign(isic_id=["ISIC_5", "ISIC_6"])
    pd.concat([frame, extra[1:]]).to_csv(root / METADATA, index=False)
    with pytest.raises(DataError, match="1 lesions have two images of one type: IL_0000000"):
        build_index(root)


def test_an_unknown_image_type_is_a_fault(root: Path) -> None:
    frame = read(root / METADATA)
    frame.loc[3, "image_type"] = "TBP tile"
    frame.to_csv(root / METADATA, index=False)
    with pytest.raises(DataError, match="image_type must be one of .* got 'TBP tile' in 1 rows"):
        build_index(root)


def test_lesions_of_one_table_only_are_left_out_and_noted(root: Path) -> None:
    frame = read(root / TRUTH)
    frame[1:].to_csv(root / TRUTH, index=False)
    index = build_index(root)
    assert (index.table["split"] == "train").sum() == 22
    assert index.notes[0] == f"{METADATA}: 1 lesions without a class in {TRUTH}: IL_0000011"
    frame.to_csv(root / TRUTH, index=False)
    read(root / METADATA)[4:].to_csv(root / METADATA, index=False)
    index = build_index(root)
    assert (index.table["split"] == "train").sum() == 20
    assert index.notes[0].startswith(f"{TRUTH}: 2 lesions without an image in {METADATA}: IL_")
    read(root / SUPPLEMENT)[3:].to_csv(root / SUPPLEMENT, index=False)
    index = build_index(root)
    assert f"{SUPPLEMENT}: lacks 3 of the 20 ids" in "".join(index.notes)


def test_a_file_in_another_lesions_folder_is_a_fault(root: Path) -> None:
    images = root / "MILK10k_Training_Input"
    moved = next((images / "IL_0000001").iterdir())
    moved.rename(images / "IL_0000002" / moved.name)
    with pytest.raises(DataError, match=f"1 images lie in the folder of another.*: {moved.stem}"):
        build_index(root)


def bundle(root: Path, *, diagnosis: list[str]) -> Path:
    """The archive's download: flat images and one metadata.csv, rows by id."""
    rows = read(root / METADATA)
    place = root.parent / "bundle"
    place.mkdir()
    kept = "isic_id attribution copyright_license age_approx image_manipulation image_type".split()
    table = rows[[*kept, "lesion_id", "sex"]].copy()
    table["anatom_site_general"] = ["upper extremity", ""] * 12
    table["anatom_site_special"] = ""
    table["concomitant_biopsy"] = "True"
    table["diagnosis_confirm_type"] = "histopathology"
    table["melanocytic"] = ""
    named = [diagnosis[i // 2 % len(diagnosis)] for i in range(24)]
    table["diagnosis_1"], table["diagnosis_2"] = "Benign", "Benign melanocytic proliferations"
    deep = [n.startswith("Nevus, ") for n in named]
    table["diagnosis_3"] = ["Nevus" if d else n for d, n in zip(deep, named, strict=True)]
    table["diagnosis_4"] = [n if d else "" for d, n in zip(deep, named, strict=True)]
    table.sort_values("isic_id").to_csv(place / "metadata.csv", index=False)
    for image in table["isic_id"]:
        (place / f"{image}.jpg").touch()
    return place


def test_the_archive_bundle(root: Path) -> None:
    named = ["Nevus, Reed", "Basal cell carcinoma", "Porokeratosis"]
    place = bundle(root, diagnosis=named)
    index = build_index(place)
    table = index.table
    assert index.notes == []
    assert [CLASSES[t] for t in table["target"]] == [DIAGNOSES[d] for d in table["diagnosis"]]
    assert set(table["diagnosis"]) == set(named)
    assert table["image"].tolist() == [f"{i}.jpg" for i in table["image_id"]]
    assert set(table["site"].dropna()) == {"upper extremity"}
    for column in (*LEVELS[:4], "melanocytic", "concomitant_biopsy", "diagnosis_confirm_type"):
        assert column in table
        with pytest.raises(DataError, match=column):
            refuse_train_only([column], index.info)
    (place / TRUTH).write_bytes((root / TRUTH).read_bytes())
    official = build_index(root).table.query("split == 'train'").set_index("image_id")["target"]
    labelled = build_index(place).table.set_index("image_id")["target"]
    assert labelled.to_dict() == official.to_dict()


def test_the_bundle_of_another_year(root: Path) -> None:
    place = bundle(root, diagnosis=["Nevus, Reed"])
    frame = read(place / "metadata.csv")
    frame = frame.drop(columns=["anatom_site_general", "anatom_site_special", "melanocytic"])
    sites = {"anatom_site_1": "Trunk", "anatom_site_2": "Anterior trunk", "anatom_site_3": ""}
    frame.assign(**sites, pixels_x="600").to_csv(place / "metadata.csv", index=False)
    index = build_index(place)
    assert index.table["site"].eq("anterior torso").all()
    assert "'pixels_x'" in index.notes[0]


def test_a_diagnosis_of_no_class_is_a_fault(root: Path) -> None:
    with pytest.raises(DataError, match="got 'Wart' in 24 rows"):
        build_index(bundle(root, diagnosis=["Wart"]))


def test_every_class_has_a_diagnosis() -> None:
    assert set(DIAGNOSES.values()) == set(CLASSES)
    assert len(DIAGNOSES) == 48  # as many as the full Supplement has values


def test_the_real_training_lesions(real: Index) -> None:
    train = real.table.query("split == 'train'")
    lesions = sample_rows(real).query("split == 'train'")
    assert (len(train), len(lesions)) == (8286, 4143)
    counts = {c: int((lesions["target"] == i).sum()) for i, c in enumerate(CLASSES)}
    published = {c: n // 2 for c, n in INFO.published_counts.items() if c in CLASSES}
    assert {c: published[c] - n for c, n in counts.items()} == {
        "AKIEC": 56,
        "BCC": 535,
        "BEN_OTH": 11,
        "BKL": 125,
        "DF": 12,
        "INF": 14,
        "MAL_OTH": 1,
        "MEL": 88,
        "NV": 151,
        "SCCKA": 95,
        "VASC": 9,
    }
    assert sum(published.values()) == INFO.published_counts["lesions"] == 5240
    assert train["image"].notna().all()
    assert train["view"].value_counts().to_dict() == {"clinical": 4143, "dermoscopic": 4143}
    assert [DIAGNOSES[d] for d in train["diagnosis"]] == [CLASSES[t] for t in train["target"]]


def test_the_real_test_lesions(real: Index) -> None:
    test = real.table.query("split == 'test'")
    samples = sample_rows(real).query("split == 'test'")
    assert (len(test), len(samples)) == (958, 479)
    assert samples["site"].isna().sum() == 6
    assert test["age"].notna().all()
    assert set(test["skin_tone_class"]) == {1, 2, 3, 4, 5}
    assert samples["site"].value_counts(normalize=True)["hand"] == pytest.approx(0.046, abs=1e-3)
    assert test["MONET_ulceration_crust"].mean() == pytest.approx(0.427, abs=5e-4)
    assert not set(test["lesion_id"]) & set(real.table.query("split == 'train'")["lesion_id"])
    assert test["target"].isna().all()
