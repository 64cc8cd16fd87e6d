"""One rule for columns that test rows do not know: `data.metadata` and `features` alike."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.acquire.synthetic import write_isic2024
from isic.data import ISIC2024DataModule
from isic.errors import DataError
from isic.index.in_test import differences, refuse_unseen_in_test, texts_among
from tests.stack.test_command import stacked


def rows(n: int = 40) -> pd.DataFrame:
    """Train and test rows, half and half."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "split": np.repeat(["train", "test"], n // 2),
            "age": rng.integers(20, 80, n).astype(float),
            "sex": rng.choice(["male", "female"], n),
            "site": rng.choice(["arm", "leg", None], n),
        }
    )


def refuse(table: pd.DataFrame, *columns: str) -> None:
    texts = texts_among(table, columns)
    refuse_unseen_in_test(table, columns, texts=texts, key="data.metadata")


def test_columns_that_both_know_pass() -> None:
    refuse(rows(), "age", "sex", "site")
    assert differences(rows(), ["age", "sex"], texts=["sex"], key="features") == []
    only_train = rows()[lambda t: t["split"] == "train"]
    refuse(only_train, "age", "sex")
    assert differences(only_train, ["age"], texts=[], key="features") == []


def test_a_column_without_a_test_value_is_refused() -> None:
    table, test = rows(), rows()["split"] == "test"
    table.loc[test, "age"] = np.nan
    said = r"no test row has a value in age, which data\.metadata is made of: .*metadata=\[\.\.\.\]"
    with pytest.raises(DataError, match=said):
        refuse(table, "age", "sex")
    table["age"] = np.nan  # unknown throughout: nothing is learnt from it
    refuse(table, "age", "sex")


def test_test_values_in_another_spelling_are_refused_and_a_few_are_told() -> None:
    table, test = rows(), rows()["split"] == "test"
    table.loc[test, "sex"] = table.loc[test, "sex"].str[0].str.upper()
    said = "value in sex that a train row has: test rows have F, M, train rows female, male"
    with pytest.raises(DataError, match=said):
        refuse(table, "age", "sex")
    some = rows()
    some.loc[some.index[test][:3], "sex"] = "x"
    refuse(some, "sex")
    (told,) = differences(some, ["sex"], texts=["sex"], key="features")
    assert "features: train and test rows differ: 3 of 20 test values of sex occur in no" in told
    few = table[~test | (np.arange(len(table)) > 35)]  # four rows may be strange by chance
    refuse(few, "sex")
    assert differences(few, ["sex"], texts=["sex"], key="features")


def test_a_column_that_test_rows_hardly_know_is_told() -> None:
    table, test = rows(), rows()["split"] == "test"
    table.loc[table.index[test][1:], "age"] = np.nan
    refuse(table, "age")
    (told,) = differences(table, ["age"], texts=[], key="data.metadata")
    assert "age is known of 100% and 5% of them" in told


def test_a_training_and_a_stack_refuse_in_the_same_words(tmp_path: Path) -> None:
    root = write_isic2024(tmp_path / "isic2024", n_images=120, positives=30, n_test=20, seed=1)
    for name, known in (("train", True), ("test", False)):
        table = pd.read_csv(path := root / f"{name}-metadata.csv", dtype=str, keep_default_na=False)
        sick = table.get("target", pd.Series("", index=table.index)) == "1"
        table["tbp_tile_type"] = np.where(sick, "3D: white", "3D: XP") if known else ""
        table.to_csv(path, index=False)
    data = ISIC2024DataModule(
        root, metadata=["age", "tbp_tile_type"], fold=0, num_workers=0,
        runs_root=tmp_path / "runs", cache_root=tmp_path / "cache",
    )  # fmt: skip
    said = []
    with pytest.raises(DataError) as refused:
        data.setup("fit")
    said.append(str(refused.value))
    with pytest.raises(DataError) as refused:
        stacked(
            tmp_path, root, "features=[metadata]", "features.metadata.columns=[age,tbp_tile_type]"
        )
    said.append(str(refused.value).replace("features", "data.metadata"))
    assert said[0] == said[1]
    assert said[0].startswith(
        "no test row has a value in tbp_tile_type, which data.metadata is made of"
    )
