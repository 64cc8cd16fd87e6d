"""One bad cell is missing where nobody looks, and refused where its column is used."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from isic.data import ISIC2024DataModule
from isic.errors import DataError
from isic.features.metadata import Metadata
from isic.index import isic2024, milk10k
from isic.index.cache import cached_index
from isic.index.schema import Index
from isic.index.unread_cells import refuse_unread, together
from isic.stack.feature_inputs import needed_columns

Edit = Callable[..., Path]


@pytest.fixture
def edited(archive32: Path, tmp_path: Path) -> Edit:
    """A copy of the archive with one cell of a table changed."""

    def edit(file: str, column: str, value: str, row: int = 0) -> Path:
        root = tmp_path / "isic2024"
        if not root.exists():
            shutil.copytree(archive32, root)
        table = pd.read_csv(root / file, dtype=str, keep_default_na=False)
        table.loc[row, column] = value
        table.to_csv(root / file, index=False)
        return root

    return edit


@pytest.mark.parametrize("file", ["test-metadata.csv", "train-metadata.csv"])
def test_a_cell_that_is_no_number_is_missing_and_noted(edited: Edit, file: str) -> None:
    root = edited(file, "tbp_lv_A", "wide")
    index = isic2024.build_index(root)
    (note,) = (n for n in index.notes if "tbp_lv_A" in n)
    assert f"{file}: tbp_lv_A must be a number, got 'wide' in 1 rows: ISIC_" in note
    assert "taken as missing, refused where the column is used" in note
    assert index.table["tbp_lv_A"].isna().sum() == 1
    assert list(index.unread) == ["tbp_lv_A"]


def test_cells_of_both_tables_are_told_together(edited: Edit) -> None:
    edited("test-metadata.csv", "age_approx", "old")
    root = edited("train-metadata.csv", "age_approx", "200")
    told = isic2024.build_index(root).unread["age"]
    assert "test-metadata.csv: age_approx must be a number, got 'old'" in told
    assert "age must be 0..120 years, got 200" in told
    assert together({"a": "x"}, {"a": "y", "b": "z"}) == {"a": "x; y", "b": "z"}


def test_the_cache_remembers_them(edited: Edit, tmp_path: Path) -> None:
    root = edited("test-metadata.csv", "tbp_lv_A", "wide")
    made = [
        cached_index(isic2024.build_index, root, cache_root=tmp_path / "cache") for _ in range(2)
    ]
    assert made[0].unread == made[1].unread and "tbp_lv_A" in made[1].unread
    assert len(list((tmp_path / "cache").glob("*-index-*.parquet"))) == 1


def test_only_metadata_that_a_model_sees_are_refused(edited: Edit, tmp_path: Path) -> None:
    root = edited("test-metadata.csv", "tbp_lv_A", "wide")
    places = {"runs_root": tmp_path / "runs", "cache_root": tmp_path / "cache"}
    ISIC2024DataModule(root, metadata=["age", "tbp_lv_B"], **places).check_metadata()
    for names in (["tbp_lv_A"], ["age", "tbp_lv_A*"]):
        data = ISIC2024DataModule(root, metadata=names, **places)
        with pytest.raises(DataError, match=r"data.metadata: test-metadata.csv: tbp_lv_A must be"):
            data.check_metadata()
    auxiliary = ISIC2024DataModule(root, auxiliary=["tbp_lv_A"], **places)
    with pytest.raises(DataError, match=r"auxiliary.columns: test-metadata.csv: tbp_lv_A must be"):
        _ = auxiliary.heads


def test_only_features_of_a_stack_are_refused(edited: Edit) -> None:
    index = isic2024.build_index(edited("test-metadata.csv", "tbp_lv_A", "wide"))
    for columns, used in ((["age", "tbp_lv_B"], False), (["tbp_lv_A"], True)):
        needed = needed_columns({"metadata": Metadata(columns=columns)}, index.table)
        if not used:
            refuse_unread(index, needed, key="features")
            continue
        with pytest.raises(DataError, match="features: test-metadata.csv: tbp_lv_A must be"):
            refuse_unread(index, needed, key="features")


def test_a_code_of_one_view_is_refused_by_the_views_column(milk32: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(milk32, tmp_path / "milk"))
    file = root / "MILK10k_Training_Metadata.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.loc[0, "skin_tone_class"] = "9"
    table.to_csv(file, index=False)
    index: Index = milk10k.build_index(root)
    assert "skin_tone_class must be one of 0, 1, 2, 3, 4, 5, got 9 in 1 rows" in str(index.unread)
    refuse_unread(index, ["age", "sex"], key="data.metadata")
    for column in ("skin_tone_class", "skin_tone_class_dermoscopic"):
        with pytest.raises(DataError, match="got 9 in 1 rows"):
            refuse_unread(index, [column], key="data.metadata")
