"""A generated archive is like the official one in form, and can be learned from, but not fully."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from isic.acquire.synthetic import default_patients, default_positives, write_isic2024
from isic.acquire.synthetic.lesion_table import HOSPITALS, UNSEEN_HOSPITAL
from isic.acquire.synthetic.lesions import sample_lesions
from isic.acquire.synthetic.tiles import draw_sides, jpeg_tiles, make_bank
from isic.errors import ConfigError
from isic.images.decode import decode
from isic.index.isic2024 import build_index
from isic.index.isic2024_columns import TEST_COLUMNS, TRAIN_COLUMNS
from isic.split.grouped import assign_folds


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "archive"
    return write_isic2024(root, n_images=300, n_test=60, seed=0)


@pytest.fixture(scope="module")
def train(archive: Path) -> pd.DataFrame:
    return pd.read_csv(archive / "train-metadata.csv", dtype={"age_approx": str})


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("synthetic") / "large"
    write_isic2024(root, n_images=30_000, n_test=10, positives=600, images=False, seed=1)
    return pd.read_csv(root / "train-metadata.csv", low_memory=False)


def test_columns_in_official_order_and_form(archive: Path) -> None:
    for name, columns in (("train", TRAIN_COLUMNS), ("test", TEST_COLUMNS)):
        text = (archive / f"{name}-metadata.csv").read_text()
        assert text.splitlines()[0] == ",".join(columns)
        assert '"ISIC_' not in text  # quoted only where a comma needs it, as in the original
        assert ',"Department of Dermatology' in text or '"Frazer Institute, The' in text


def test_sample_submission_follows_the_test_file(archive: Path) -> None:
    sample = pd.read_csv(archive / "sample_submission.csv")
    assert list(sample.columns) == ["isic_id", "target"]
    assert (sample["target"] == 0.3).all()
    test = pd.read_csv(archive / "test-metadata.csv")
    assert sample["isic_id"].tolist() == test["isic_id"].tolist()


def test_the_index_accepts_it(archive: Path) -> None:
    table = build_index(archive).table
    assert len(table) == 360
    assert (table["target"] == 1).sum() == default_positives(300) == 15
    assert assign_folds(table).nunique() == 5


def test_train_and_test_share_no_patient_and_one_hospital_is_unseen(archive: Path) -> None:
    table = build_index(archive).table
    train, test = (table[table["split"] == s] for s in ("train", "test"))
    assert not set(train["patient_id"]) & set(test["patient_id"])
    assert set(train["attribution"]) <= {name for name, _ in HOSPITALS}
    assert UNSEEN_HOSPITAL[0] in set(test["attribution"])


def test_ages_are_floats_in_steps_of_five(train: pd.DataFrame) -> None:
    ages = train["age_approx"].dropna()
    assert ages.str.fullmatch(r"\d+\.0").all()
    assert (ages.astype(float) % 5 == 0).all()
    assert (train.groupby("patient_id")["age_approx"].nunique() <= 1).all()


def test_missing_values_and_vocabularies(large: pd.DataFrame) -> None:
    share = large.isna().mean()
    assert 0 < share["age_approx"] < 0.012
    assert 0.015 < share["sex"] < 0.035
    assert 0.010 < share["anatom_site_general"] < 0.018
    assert large["tbp_lv_location"].nunique() == 21
    assert large["tbp_lv_location_simple"].nunique() == 8
    assert set(large["tbp_tile_type"]) == {"3D: XP", "3D: white"}
    assert set(large["copyright_license"]) == {"CC-0", "CC-BY", "CC-BY-NC"}
    assert large["attribution"].nunique() == 7
    assert large["image_type"].nunique() == 1
    always = [c for c in TEST_COLUMNS if c not in {"age_approx", "sex", "anatom_site_general"}]
    assert not large[always].isna().any().any()


def test_measurements_hang_together(large: pd.DataFrame) -> None:
    v = {c.removeprefix("tbp_lv_"): large[c].to_numpy() for c in large if c.startswith("tbp_lv_")}
    for tail in ("", "ext"):
        np.testing.assert_allclose(v[f"C{tail}"], np.hypot(v[f"A{tail}"], v[f"B{tail}"]), rtol=1e-4)
    for c in "LAB":
        np.testing.assert_allclose(v[f"delta{c}"], v[c] - v[f"{c}ext"], atol=1e-4)
    ratio = v["perimeterMM"] ** 2 / v["areaMM2"]
    np.testing.assert_allclose(v["area_perim_ratio"], ratio, rtol=1e-4)
    assert (v["area_perim_ratio"] > 4 * np.pi).all()
    assert (v["minorAxisMM"] <= large["clin_size_long_diam_mm"] + 0.01).all()
    assert set(v["symm_2axis_angle"]) <= set(range(0, 180, 5))
    assert ((v["nevi_confidence"] >= 0) & (v["nevi_confidence"] <= 100)).all()


def test_train_only_columns_as_published(large: pd.DataFrame) -> None:
    ill = large["target"] == 1
    assert large.loc[ill, "lesion_id"].notna().all()
    assert 0.04 < large.loc[~ill, "lesion_id"].notna().mean() < 0.07
    assert (large.loc[ill, "iddx_1"] == "Malignant").all()
    assert set(large.loc[~ill, "iddx_1"]) == {"Benign", "Indeterminate"}
    some = large[large["iddx_2"].notna()]
    levels = some[[f"iddx_{k}" for k in range(1, 6)]]
    joined = ["::".join(row.dropna()) for _, row in levels.iterrows()]
    assert joined == some["iddx_full"].tolist()
    thick = large["mel_thick_mm"].notna()
    assert large.loc[thick, "iddx_3"].eq("Melanoma Invasive").all()
    assert large["mel_mitotic_index"].notna().sum() <= thick.sum()
    assert large["iddx_5"].notna().sum() == 1


def test_patients_have_many_lesions_with_a_heavy_tail(large: pd.DataFrame) -> None:
    size = large.groupby("patient_id").size()
    assert len(size) == default_patients(30_000)
    assert size.max() > 5 * size.median() > 0
    assert size.mean() > 1.3 * size.median()


def test_images_are_square_jpegs_as_fixed_length_root_scalars(archive: Path) -> None:
    sides = []
    ids = build_index(archive).table["image_id"].iloc[:300].tolist()
    with h5py.File(archive / "train-image.hdf5") as file:
        assert sorted(file) == ids
        for key in ids:
            assert file[key].shape == ()
            assert file[key].dtype.kind == "S"
            image = decode(bytes(file[key][()]))
            assert image.shape[0] == image.shape[1]
            sides.append(image.shape[0])
    assert 61 <= min(sides) < max(sides) <= 239
    assert 120 < np.median(sides) < 142


@pytest.mark.parametrize("wrong", [{"positives": 50}, {"n_patients": 51}])
def test_impossible_arguments_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="n_images >= 2"):
        write_isic2024(tmp_path, **{"n_images": 50, **wrong})


@pytest.mark.parametrize("n", [2, 7, 60])
def test_tiny_archives_are_whole(tmp_path: Path, n: int) -> None:
    write_isic2024(tmp_path, n_images=n, n_test=3, size_range=32)
    assert len(build_index(tmp_path).table) == n + 3


def test_defaults_meet_the_published_counts() -> None:
    assert (default_positives(401_059), default_patients(401_059)) == (393, 1_042)
    assert default_positives(2_000) == 100


def held_out_auc(features: np.ndarray, target: np.ndarray) -> float:
    model = make_pipeline(
        SimpleImputer(), StandardScaler(), LogisticRegression(C=0.1, max_iter=300)
    )
    score = cross_val_predict(model, features, target, cv=3, method="decision_function")
    return float(roc_auc_score(target, score))


def test_the_table_is_learnable_but_not_perfectly_and_ducklings_are_ugly(
    large: pd.DataFrame,
) -> None:
    target = large["target"].to_numpy()
    numbers = large[[c for c in TEST_COLUMNS if large[c].dtype.kind in "fi"]]
    among_own = numbers - numbers.groupby(large["patient_id"]).transform("mean")
    plain = held_out_auc(numbers.to_numpy(), target)
    relative = held_out_auc(np.hstack([numbers, among_own]), target)
    assert 0.78 < plain < 0.92
    assert relative > plain + 0.005


def test_tiles_hold_a_signal_of_their_own() -> None:
    lesions = sample_lesions(0, n_lesions=1_500, n_patients=60, n_positives=300, hospitals=7).frame
    sides = draw_sides(0, len(lesions), size_range=48)
    tiles = jpeg_tiles(lesions, bank=make_bank(0), seed=0, sides=sides)
    pixels = np.stack([decode(t)[8:40, 8:40] for t in tiles]).astype(float)  # (N, 32, 32, 3)
    low, high = np.quantile(pixels, [0.05, 0.95], axis=(1, 2))
    features = np.hstack([low, high, pixels.std(axis=(1, 2)), pixels.mean(axis=(1, 2))])
    target = lesions["target"].to_numpy()
    alone = held_out_auc(features, target)
    assert 0.7 < alone < 0.95
    both = held_out_auc(np.hstack([features, lesions[["by_table"]]]), target)
    assert both > alone + 0.02


@pytest.mark.slow
def test_the_full_table_has_the_published_size(tmp_path: Path) -> None:
    write_isic2024(tmp_path, n_images=401_059, n_test=3, images=False)
    index = build_index(tmp_path)
    train = index.table[index.table["split"] == "train"]
    assert len(train) == 401_059
    assert int((train["target"] == 1).sum()) == 393
    assert train["patient_id"].nunique() == 1_042
    fold = assign_folds(train)
    sizes = fold.value_counts()
    assert sizes.max() - sizes.min() <= 0.02 * sizes.mean()
