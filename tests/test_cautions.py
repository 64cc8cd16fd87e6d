"""What a score is to be read with: shortcuts among the metadata, pseudo-labels."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from isic.acquire.synthetic import write_isic2024
from isic.audit.shortcuts import known_shortcuts
from isic.engine.cautions import cautions, seen_by_weights
from isic.index.isic2024 import build_index
from isic.index.schema import Index, index_hash
from isic.predictions import score_line


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """200 rows, 60 malignant; `hair` knows the class, but for one row in ten."""
    root = tmp_path_factory.mktemp("cautions") / "isic2024"
    write_isic2024(root, n_images=200, n_patients=100, positives=60, images=False)
    index = build_index(root)
    sick = (index.table["target"] == 1).fillna(False).to_numpy(bool)
    odd = np.random.default_rng(0).random(len(sick)) < 0.1
    index.table["hair"] = np.where(sick ^ odd, "dark", "fair")
    return index


def data(index: Index, columns: tuple[str, ...]) -> SimpleNamespace:
    """What `cautions` asks of a data module."""
    return SimpleNamespace(index=index, encoder=SimpleNamespace(columns=columns), cautions=[])


def test_a_shortcut_that_the_network_sees_is_said(index: Index) -> None:
    (said,) = cautions(data(index, ("age", "hair", "sex")))
    assert "tell a class alone (AUC > 0.80): hair (malignant 0." in said
    assert "age" not in said


def test_a_shortcut_that_it_does_not_see_is_not(index: Index) -> None:
    assert cautions(data(index, ("age", "sex"))) == []
    assert cautions(SimpleNamespace(index=index, encoder=None, cautions=[])) == []


def test_two_columns_that_tell_together_are_said(index: Index) -> None:
    sick = (index.table["target"] == 1).fillna(False).to_numpy(bool)
    left = np.random.default_rng(0).integers(0, 2, len(sick))
    table = index.table.assign(left=left, right=left ^ sick)
    (said,) = cautions(data(Index(table, index.info, index.root), ("age", "left", "right")))
    assert "two columns that tell a class together (AUC): left with right (malignant 1.00)" in said


def test_too_few_groups_tell_nothing(index: Index) -> None:
    few = index.table[:30]
    assert known_shortcuts(index, few, ["hair"]) == []
    assert known_shortcuts(index, few[:0], ["hair"]) == []


def test_pseudo_labels_are_counted_with_their_runs(index: Index) -> None:
    table = index.table.assign(pseudo=pd.Series(pd.NA, index=index.table.index, dtype="string"))
    table.loc[:2, "pseudo"] = ["b", "a", "b"]
    marked = Index(table, index.info, index.root)
    (said,) = cautions(SimpleNamespace(index=marked, encoder=None, cautions=[]))
    assert said.startswith("3 pseudo-labelled images of a, b were trained on")


def test_weights_that_saw_the_scored_rows_are_said(index: Index, tmp_path: Path) -> None:
    record = {"network": {}, "network_class": "", "classes": [], "activation": "sigmoid"}
    record |= {"split_hash": "s", "config": {"fold": 0}}
    for name, table in (("same", index.table), ("other", index.table[1:])):
        record["index_hash"] = index_hash(table)
        torch.save({"isic": record}, tmp_path / f"{name}.ckpt")

    def said(name: object, fold: object, split: str = "s") -> int:
        seen = SimpleNamespace(index=index, fold=fold, split=SimpleNamespace(hash=split))
        return len(seen_by_weights(name, seen))

    torch.save({"state_dict": {}}, tmp_path / "strange.ckpt")
    assert said(str(tmp_path / "strange.ckpt"), 1) == 0
    same = str(tmp_path / "same.ckpt")
    assert [said(same, 0), said(same, 1), said(same, 0, "t"), said(same, "all")] == [0, 1, 1, 0]
    assert [said(str(tmp_path / "other.ckpt"), 1), said(True, 1), said("w.pth", 1)] == [0, 0, 0]


def test_the_score_line_says_them() -> None:
    made = {"metrics": {}, "n": 3, "interval_over": "image", "warnings": ["one", "two"]}
    assert score_line(made).endswith("n=3); WARNING: one; WARNING: two")
