"""Predicted rows without what a model was trained with, or of another size: said once."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from isic.engine.unlike_training import say_unlike_training, typical_sides
from isic.index.isic2024 import INFO
from isic.index.milk10k import INFO as LESIONS
from isic.index.schema import Index
from isic.streams import warn_once
from tests.commands import TINY, ForkServer


@pytest.fixture(autouse=True)
def unsaid(caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    caplog.set_level(logging.WARNING)


def images(folder: Path, *sides: int, prefix: str = "i") -> list[str]:
    names = [f"{prefix}{k}.png" for k in range(len(sides))]
    for name, side in zip(names, sides, strict=True):
        Image.fromarray(np.zeros((side, 2 * side, 3), np.uint8)).save(folder / name)
    return names


def data_of(root: Path, rows: pd.DataFrame, info: Any = INFO, *, views=(), columns=()) -> Any:
    encoder = SimpleNamespace(columns=list(columns)) if columns else None
    return SimpleNamespace(index=Index(rows, info, root), views=list(views), encoder=encoder)


@pytest.mark.parametrize(
    ("side", "trained", "said"),
    [(64, 16, True), (16, 64, True), (64, 17, False), (16, 63, False), (64, None, False)],
)
def test_images_of_another_size(tmp_path, caplog, side, trained, said) -> None:
    rows = pd.DataFrame({"image": [*images(tmp_path, side, side, 900), "absent.png", None]})
    data = data_of(tmp_path, rows)
    assert typical_sides(data.index, rows, ()) == {"": side}
    record = {"image_sides": {"": trained}} if trained else {}
    for _ in range(2):  # folds
        say_unlike_training(data, rows, record)
    text = f"the images are {side} px along the shorter side (median), those of the training"
    assert caplog.text.count(text) == int(said)


def test_a_store_that_another_program_has_locked_is_no_fault(tmp_path, caplog) -> None:
    """The pack is there: neither a training nor a prediction needs the store."""
    (tmp_path / "a.hdf5").write_bytes(b"no store")
    rows = pd.DataFrame({"image": ["a.hdf5#i", "a.hdf5#j"]})
    caplog.set_level(logging.INFO)
    assert typical_sides(data_of(tmp_path, rows).index, rows, ()) == {}
    assert "sizes of original images are not compared" in caplog.text


def test_views_alike(tmp_path, caplog) -> None:
    rows = pd.DataFrame(
        {
            "image_dermoscopic": images(tmp_path, 32, 32, prefix="d"),
            "image_clinical": images(tmp_path, 200, 200, prefix="c"),
        }
    )
    data = data_of(tmp_path, rows, LESIONS, views=["dermoscopic", "clinical"])
    record = {"image_sides": {"dermoscopic": 30.0, "clinical": 32.0}}
    say_unlike_training(data, rows, record)
    assert "the clinical images are 200 px" in caplog.text
    assert "dermoscopic" not in caplog.text


def test_metadata_that_no_row_has(tmp_path, caplog) -> None:
    rows = pd.DataFrame({"image": images(tmp_path, 8), "age": [pd.NA], "sex": ["male"]})
    data = data_of(tmp_path, rows, columns=["age", "sex", "site"])
    say_unlike_training(data, rows, {"image_sides": "no mapping"})
    assert "none of 1 rows has a value of age, site, which the model was trained" in caplog.text


@pytest.mark.slow
def test_a_folder_of_other_images(commands: ForkServer, tiny_archive: Path, tmp_path) -> None:
    env = {"ISIC_RUNS_ROOT": str(tmp_path / "runs")}
    given = [*TINY, f"data.root={tiny_archive}", "trainer.max_epochs=1", "name=m"]
    code, text = commands.run("train.py", *given, "data.metadata=[age,sex]", env=env)
    assert code == 0, text
    (tmp_path / "x").mkdir()
    for name in images(tmp_path / "x", 128, 128):
        (tmp_path / "x" / name).rename(tmp_path / "x" / f"Müller {name}")
    words = [f"images={tmp_path / 'x'}", f"output={tmp_path / 'o'}", "ckpt=m/fold0"]
    code, text = commands.run("predict.py", *words, env=env)
    assert code == 0, text
    assert "none of 2 rows has a value of age, sex, which the model was trained with" in text
    assert "the images are 128 px along the shorter side (median), those of the training 32" in text
    frame = pd.read_parquet(tmp_path / "o" / "predictions.parquet")
    assert sorted(frame["image"]) == ["Müller i0.png", "Müller i1.png"]
