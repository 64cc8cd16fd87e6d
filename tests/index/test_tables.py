"""What all readers promise of words for nothing, faults said once, and advice that works."""

import importlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate

from isic.errors import DataError
from isic.index.schema import Index
from isic.index.tables import not_of
from tests.index.small_archives import LABELS, TRAIN_TABLE, WRITERS, edit, read, touch
from tests.test_configs import composed

WORDS = ("nan", "NaN", "None", "N/A", "NULL", "null", "unknown", "-", "NA", "", " ")


def build(name: str, root: Path) -> Index:
    index: Index = importlib.import_module(f"isic.index.{name}").build_index(root)
    return index


@pytest.fixture(params=tuple(WRITERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    return WRITERS[name](tmp_path / name)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_for_nothing_is_no_sex_and_no_site(name: str, root: Path, word: str) -> None:
    path = root / TRAIN_TABLE[name][0]
    for column in [str(c) for c in read(path) if c == "sex" or "site" in str(c)]:
        edit(path, column, word, slice(None))
    index = build(name, root)
    train = index.table.query("split == 'train'")
    assert train[["sex", "site"]].isna().all().all()
    assert not any("no archive has published" in note for note in index.notes)


@pytest.mark.parametrize("word", [*WORDS, "-1", "-1.0"])
@pytest.mark.parametrize(
    ("name", "table", "column"),
    [
        ("isic2019", "ISIC_2019_Training_Metadata.csv", "lesion_id"),
        ("isic2020", "train.csv", "patient_id"),
    ],
)
def test_a_word_for_nothing_is_no_patient_and_no_lesion(
    name: str, table: str, column: str, word: str, root: Path
) -> None:
    path = root / table
    edit(path, column, word, slice(1, None))
    train = build(name, root).table.query("split == 'train'")
    assert train[column].notna().sum() == 1


def test_images_of_no_lesion_are_no_lesion_of_milk10k(tmp_path: Path) -> None:
    root = WRITERS["milk10k"](tmp_path)
    edit(root / "MILK10k_Training_Metadata.csv", "lesion_id", "nan", slice(0, 4))
    edit(root / "MILK10k_Training_GroundTruth.csv", "lesion_id", "nan", -1)
    with pytest.raises(DataError, match="4 images have no lesion_id"):
        build("milk10k", root)


@pytest.mark.parametrize("word", ["nan", "None", "-"])
def test_an_id_that_is_a_word_for_nothing_is_no_id(name: str, root: Path, word: str) -> None:
    edit(root / TRAIN_TABLE[name][0], TRAIN_TABLE[name][1], word)
    with pytest.raises(DataError, match="lacks|have no"):
        build(name, root)


def test_unknown_is_a_diagnosis(tmp_path: Path) -> None:
    root = WRITERS["isic2020"](tmp_path)
    raw = read(root / "train.csv")["diagnosis"]
    train = build("isic2020", root).table.query("split == 'train'")
    assert train["diagnosis"].tolist() == raw.tolist()
    assert "unknown" in raw.tolist()


def test_duplicate_ids_are_said_once(name: str, root: Path) -> None:
    table, column = TRAIN_TABLE[name]
    frame = read(root / table)
    pd.concat([frame, frame[:7]]).to_csv(root / table, index=False)
    with pytest.raises(DataError) as error:
        build(name, root)
    assert len(re.findall(r"\d+ duplicate ", str(error.value))) == 1
    assert f"{table}: 7 duplicate {column}" in str(error.value)


@pytest.mark.parametrize("choice", ["isic2019", "isic2020", "isic2020_diagnosis", "milk10k"])
def test_the_advice_on_two_places_of_an_image_works(choice: str, tmp_path: Path) -> None:
    root = WRITERS[choice.partition("_")[0]](tmp_path / choice)
    images = sorted(root.rglob("*.jpg"))
    for folder in ("small", "smaller"):
        touch(root / folder / "train", [p.name for p in images[4:]])
        touch(root / folder / "test", [p.name for p in images[:4]])
    for path in images:
        path.unlink()

    def configured(*overrides: str) -> Index:
        node = composed(f"data={choice}", *overrides)["data"]["index"]
        index: Index = instantiate(node)(root)
        return index

    with pytest.raises(DataError) as error:
        configured()
    advice = [w.rstrip(",") for w in str(error.value).split() if w.startswith("data.index.images=")]
    one, several = advice
    for override in (
        one.replace("FOLDER", "small"),
        several.replace("FOLDER,FOLDER", "small/train,small/test"),
    ):
        found = configured(override).table["image"]
        assert found.str.startswith("small/").all()


def test_cells_are_shown_as_they_were_written() -> None:
    ids = pd.Series(["a", "b", "c", "d"])
    values = pd.Series([9.0, 0.5, np.nan, 1.0], name="tone")
    message = not_of(values, range(6), ids, what="t.csv")[0]
    assert "got 9, 0.5, empty in 3 rows: a, b, c" in message
    values = pd.Series(["x", None, "1", "1"], name="tone", dtype="str")
    assert "got 'x', empty in 2 rows" in not_of(values, ["1"], ids, what="t.csv")[0]


def test_a_table_with_other_separators_says_what_to_do(name: str, root: Path) -> None:
    path = root / LABELS[name][0]
    read(path).to_csv(path, index=False, sep=";")
    with pytest.raises(DataError, match="separated by ';', expected ','; save it as comma-sep"):
        build(name, root)
