"""The ISIC 2019 reader: the join, labels, sources, the pre-resized layout, the real tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.errors import DataError
from isic.index.isic2019 import ATTRIBUTION, CLASSES, INFO, build_index
from isic.index.schema import Index, refuse_train_only
from tests.index.small_archives import edit, read, write_isic2019

TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"


@pytest.fixture(scope="module")
def real(real_root: Path) -> Index:
    return build_index(real_root / "isic2019")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_isic2019(tmp_path / "isic2019")


def test_tables_are_joined_by_image_and_not_by_order(root: Path) -> None:
    table = build_index(root).table.set_index("image_id")
    metadata = read(root / METADATA).set_index("image")
    for image in metadata.index:
        assert table.loc[image, "age"] == float(metadata.loc[image, "age_approx"])
        assert (table.loc[image, "lesion_id"] == metadata.loc[image, "lesion_id"]) or (
            pd.isna(table.loc[image, "lesion_id"]) and not metadata.loc[image, "lesion_id"]
        )


def test_labels_are_the_one_hot_columns(root: Path) -> None:
    table = build_index(root).table
    raw = pd.concat([read(root / TRUTH), read(root / TRUTH.replace("Training", "Test"))])
    raw = raw.set_index("image").loc[table["image_id"]]
    np.testing.assert_array_equal(table[list(CLASSES)], raw[list(CLASSES)].astype(float))
    assert table["diagnosis"].tolist() == [CLASSES[t] for t in table["target"]]
    assert table["diagnosis"].tolist()[-4:] == ["MEL", "NV", "BCC", "UNK"]


def test_names_keep_their_suffix(root: Path) -> None:
    table = build_index(root).table
    assert table["image_id"][0] == "ISIC_0000000_downsampled"
    assert table["image"][0] == "ISIC_2019_Training_Input/ISIC_0000000_downsampled.jpg"


def test_the_source_comes_from_the_lesion_and_is_no_feature(root: Path) -> None:
    table = build_index(root).table
    train = table[table["split"] == "train"]
    prefix = train["lesion_id"].str.partition("_")[0]
    known = train["lesion_id"].notna()
    assert train.loc[known, "attribution"].tolist() == prefix[known].map(ATTRIBUTION).tolist()
    assert train.loc[~known, "attribution"].isna().all()
    with pytest.raises(DataError, match="attribution"):
        refuse_train_only(["age", "attribution"], INFO)


def test_test_tables_are_optional(root: Path) -> None:
    (root / "ISIC_2019_Test_GroundTruth.csv").unlink()
    table = build_index(root).table
    assert table.loc[table["split"] == "test", ["target", *CLASSES]].isna().all().all()
    (root / "ISIC_2019_Test_Metadata.csv").unlink()
    assert build_index(root).table["split"].unique().tolist() == ["train"]


def test_a_test_row_without_a_label_is_noted(root: Path) -> None:
    path = root / "ISIC_2019_Test_GroundTruth.csv"
    read(path)[1:].to_csv(path, index=False)
    index = build_index(root)
    assert index.table.query("split == 'test'")["target"].isna().sum() == 1
    assert "ISIC_2019_Test_GroundTruth.csv: lacks 1 of the 4 ids" in index.notes[0]


def test_a_test_ground_truth_alone_gives_rows(root: Path) -> None:
    (root / "ISIC_2019_Test_Metadata.csv").unlink()
    test = build_index(root).table.query("split == 'test'")
    assert test["target"].tolist() == [8, 2, 1, 0]
    assert test["age"].isna().all()


def test_weights_of_the_scorer_are_kept(root: Path) -> None:
    path = root / "ISIC_2019_Test_GroundTruth.csv"
    read(path).assign(score_weight="0.5", validation_weight="1").to_csv(path, index=False)
    test = build_index(root).table.query("split == 'test'")
    assert test["score_weight"].tolist() == [0.5] * 4
    with pytest.raises(DataError, match="score_weight"):
        refuse_train_only(["score_weight"], INFO)


def test_a_ground_truth_without_unk_is_fine(root: Path) -> None:
    read(root / TRUTH).drop(columns="UNK").to_csv(root / TRUTH, index=False)
    table = build_index(root).table
    assert (table.loc[table["split"] == "train", "UNK"] == 0).all()


def test_rows_with_no_class_or_two_are_named(root: Path) -> None:
    edit(root / TRUTH, "MEL", "1.0", slice(2, 10))  # these are of other classes
    message = r"exactly one class.* in 8 rows: ISIC_0000002, .*ISIC_0000006 and 3 more"
    with pytest.raises(DataError, match=message):
        build_index(root)


def test_an_unknown_class_is_a_fault(root: Path) -> None:
    read(root / TRUTH).assign(WART="0.0").to_csv(root / TRUTH, index=False)
    with pytest.raises(DataError, match="'WART'"):
        build_index(root)


def test_labels_without_lesions_are_refused(root: Path) -> None:
    (root / METADATA).unlink()
    with pytest.raises(DataError, match=r"without ISIC_2019_Training_Metadata\.csv.*lesion_id"):
        build_index(root)


def test_rows_of_one_table_only(root: Path) -> None:
    frame = read(root / METADATA)
    frame[2:].to_csv(root / METADATA, index=False)
    with pytest.raises(DataError, match=f"lacks 2 of the 12 ids of {TRUTH}: ISIC_0000010_down"):
        build_index(root)
    frame.to_csv(root / METADATA, index=False)
    read(root / TRUTH)[3:].to_csv(root / TRUTH, index=False)
    index = build_index(root)
    assert (index.table["split"] == "train").sum() == 9
    assert f"{METADATA}: 3 rows that {TRUTH} does not name are left out" in index.notes[0]


def resized(root: Path, side: int = 512) -> Path:
    """The train.csv of the pre-resized sets: eleven columns, class codes as diagnosis."""
    official = read(root / METADATA).set_index("image")
    truth = read(root / TRUTH)
    diagnosis = truth[list(CLASSES)].astype(float).idxmax(axis=1)
    place = root.parent / f"jpeg-isic2019-{side}x{side}"
    (place / "train").mkdir(parents=True)
    table = {
        "image_name": truth["image"],
        "patient_id": "-1",
        "sex": official["sex"].loc[truth["image"]].to_numpy(),
        "age_approx": official["age_approx"].loc[truth["image"]].to_numpy(),
        "anatom_site_general_challenge": "anterior torso",
        "diagnosis": diagnosis,
        "benign_malignant": np.where(diagnosis == "MEL", "malignant", "benign"),
        "target": (diagnosis == "MEL").astype(int),
        "tfrecord": range(12),
        "width": side,
        "height": side,
    }
    pd.DataFrame(table).to_csv(place / "train.csv", index=False)
    for image in truth["image"]:
        (place / "train" / f"{image}.jpg").touch()
    return place


def test_the_resized_layout(root: Path) -> None:
    official = build_index(root).table.query("split == 'train'")
    place = resized(root)
    index = build_index(place)
    table = index.table
    for column in ("image_id", "target", "diagnosis", "age"):
        assert table[column].tolist() == official[column].tolist()
    assert table["image"][0] == "train/ISIC_0000000_downsampled.jpg"
    assert table["patient_id"].isna().all()  # -1 is no patient: all rows would be one group
    assert table["tfrecord"].tolist() == list(range(12))
    assert len(index.notes) == 1
    assert "knows no lesion" in index.notes[0]
    (place / METADATA).write_bytes((root / METADATA).read_bytes())
    lesions = build_index(place)
    assert lesions.notes == []
    pd.testing.assert_series_equal(lesions.table["lesion_id"], official["lesion_id"])


def test_the_table_of_another_year_is_refused(root: Path) -> None:
    place = resized(root)
    edit(place / "train.csv", "diagnosis", "nevus", 4)
    with pytest.raises(DataError, match="diagnosis must be one of MEL, NV.* got 'nevus' in 1 rows"):
        build_index(place)


def test_the_real_tables(real: Index) -> None:
    table, published = real.table, INFO.published_counts
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    assert (len(train), len(test)) == (published["train"], published["test"])
    counts = train["target"].value_counts()
    assert {c: int(counts.get(i, 0)) for i, c in enumerate(CLASSES)} == {
        c: published[c] for c in CLASSES
    }
    missing = {"age": 437, "site": 2631, "lesion_id": 2084, "sex": 384}
    assert {c: int(train[c].isna().sum()) for c in missing} == missing
    missing = {"age": 326, "site": 655, "sex": 339, "lesion_id": 8238}
    assert {c: int(test[c].isna().sum()) for c in missing} == missing
    assert train["sex"].value_counts().to_dict() == {"male": 13286, "female": 11661}
    assert train["image_id"].str.endswith("_downsampled").sum() == 2074
    for rows, values in ((train, SITES_TRAIN), (test, SITES_TEST)):
        assert rows["site"].value_counts().to_dict() == values
    assert set(train["age"].dropna()) <= set(range(0, 90, 5))
    assert not set(train["image_id"]) & set(test["image_id"])


SITES_TRAIN = {
    "anterior torso": 6915,
    "lower extremity": 4990,
    "head/neck": 4587,
    "upper extremity": 2910,
    "posterior torso": 2787,
    "palms/soles": 398,
    "oral/genital": 59,
    "lateral torso": 54,
}
SITES_TEST = {
    "anterior torso": 2478,
    "head/neck": 1896,
    "lower extremity": 1778,
    "upper extremity": 789,
    "posterior torso": 312,
    "palms/soles": 290,
    "oral/genital": 40,
}


def test_the_real_lesions(real: Index) -> None:
    train = real.table.query("split == 'train'")
    lesion = train["lesion_id"].dropna()
    assert lesion.nunique() == INFO.published_counts["lesions"]
    prefixes = lesion.str.partition("_")[0].value_counts().to_dict()
    assert prefixes == {"BCN": 12413, "HAM": 10015, "MSK4": 819}
    assert train["attribution"].isna().sum() == 2084
    sizes = lesion.value_counts()
    assert (int(sizes[sizes > 1].sum()), int(sizes.max())) == (16459, 31)
    assert train.groupby("lesion_id")["target"].nunique().max() == 1
    source = train["attribution"].str.partition(",")[0]
    few = train["diagnosis"].isin(["AK", "BCC", "SCC", "DF", "VASC"])
    assert set(source[few].dropna()) == {"BCN20000", "HAM10000"}


def test_real_images_are_found(real: Index) -> None:
    assert real.table["image"].notna().sum() == 330
    assert all((real.root / ref).is_file() for ref in real.table["image"].dropna())
