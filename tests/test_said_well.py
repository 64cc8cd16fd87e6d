"""What goes wrong in a run is said in words, with its exit code: the functions behind the commands.

In this process: `fit_fold` is what `train.py` calls, `predict` what `predict.py` does.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from PIL import Image

from isic.cli import _message, exit_code
from isic.engine.apply import predict
from isic.engine.build import check_components
from isic.engine.fold import fit_fold
from isic.errors import IsicError
from isic.training.checkpoint import read
from isic.training.module import LesionClassifier
from tests.archives import TINY
from tests.test_configs import composed

pytestmark = pytest.mark.slow  # whole commands

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def config(archive32: Path, tmp_path: Path) -> Make:
    """A small, named run of the shared archive: the plain config that `train.py` ends up with."""

    def make(*overrides: str, root: Path = archive32) -> dict[str, Any]:
        plain = composed(
            *(f"data.root={root}", f"model.backbone={TINY}", "model.pretrained=false"),
            *("data.image_size=32", "data.batch_size=16", "split.n_folds=2", "trainer=cpu"),
            *("trainer.max_epochs=2", "trainer.limit_train_batches=3", "logger=csv"),
            *(f"paths.runs={tmp_path / 'runs'}", f"paths.cache={archive32.parent / 'cache'}"),
            *("callbacks.progress=none", *overrides),
        )
        return {**plain, "name": "run"}

    return make


def refused(config: dict[str, Any], *words: str, code: int) -> str:
    """Train; it must fail with this code and say these words."""
    with pytest.raises((IsicError, InstantiationException)) as raised:
        check_components(config)
        fit_fold(config)
    text = _message(raised.value)
    assert exit_code(raised.value) == code, text
    for word in words:
        assert word in text, text
    return text


def last(tmp_path: Path) -> Path:
    return tmp_path / "runs/run/fold0/checkpoints/last.ckpt"


# ---- while training


def test_a_loss_that_is_not_finite(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = LesionClassifier.training_step, []

    def broken(self: LesionClassifier, batch: Any, batch_idx: int) -> Any:
        loss = original(self, batch, batch_idx)
        seen.append((batch["row"].tolist(), self.trainer.datamodule))  # type: ignore[attr-defined]
        return loss * float("nan") if len(seen) == 5 else loss

    monkeypatch.setattr(LesionClassifier, "training_step", broken)
    text = refused(
        config(),
        *("the loss is nan in epoch 2 of 2, batch 2 of 3 (step 5)", "and 11 more"),
        *("optim.optimizer.lr=0.0003", "trainer.precision=", f"{last(tmp_path)} is kept"),
        code=1,
    )
    rows, data = seen[4]
    ids = data.train_rows.table["image_id"].iloc[data.positions["train"][rows]]
    assert ", ".join(ids[:5]) in text
    kept = read(last(tmp_path))
    assert kept["epoch"] == 0
    assert all(t.isfinite().all() for t in kept["current_model_state"].values())
    monkeypatch.undo()
    assert "pAUC" in fit_fold(config())  # the same command goes on from there


def test_a_learning_rate_that_is_too_high(config: Make, tmp_path: Path) -> None:
    overrides = ["optim.optimizer.lr=1e30", "trainer.gradient_clip_val=null"]
    refused(config(*overrides), "the loss is ", "optim.optimizer.lr=1e+30", code=1)
    assert not last(tmp_path).exists()


@pytest.mark.parametrize("step", ["training_step", "predict_step"])
def test_memory_that_ends(config: Make, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(self: LesionClassifier, batch: Any, batch_idx: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(LesionClassifier, step, full)
    words = ["out of memory", "20.00 GiB", "data.batch_size=16", "data.image_size=32"]
    if step == "training_step":
        words += ["trainer.accumulate_grad_batches=1", "trainer.precision=32"]
    refused(config("trainer.max_epochs=1"), *words, code=1)


# ---- models


def test_a_mistyped_backbone_before_any_data(config: Make, tmp_path: Path) -> None:
    wrong = config("model.backbone=test_resnett", root=tmp_path / "absent")
    refused(wrong, "no model 'test_resnett'", "Did you mean test_resnet", code=2)


@pytest.mark.parametrize(
    ("backbone", "side", "words"),
    [
        ("test_vit", 28, ["multiples of its 16 px patches, got 28", "16 or 32"]),
        ("swin_tiny_patch4_window7_224", 30, ["its 4 px patches, got 30", "28 or 32"]),
        ("densenet121", 16, ["cannot take 16 px", "made for 224"]),
    ],
)
def test_a_side_that_a_network_cannot_take(
    config: Make, backbone: str, side: int, words: list[str]
) -> None:
    sizes = (f"data.image_size={side}", "model.drop_path=0")
    wrong = config(f"model.backbone={backbone}", *sizes)
    refused(wrong, "data.image_size", *words, code=2)


# ---- checkpoints


def images_of(root: Path, *classes: str) -> Path:
    """A folder of noise, one folder a class."""
    rng = np.random.default_rng(len(classes))
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(6):
            noise = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{name}{i}.png")
    return root


def test_a_checkpoint_of_other_classes(config: Make, tmp_path: Path) -> None:
    mine = images_of(tmp_path / "mine", "naevus", "melanoma", "keratosis")
    theirs = images_of(tmp_path / "theirs", "naevus", "melanoma", "wart")
    trained = config("data=folder", "metrics=folder", "loss=ce", "trainer.max_epochs=1", root=mine)
    fit_fold(trained)
    plain = composed(
        *(f"ckpt={last(tmp_path)}", f"data.root={theirs}", "split=train", "trainer=cpu"),
        *(f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}"),
        root="predict",
    )
    with pytest.raises(IsicError) as raised:
        predict(OmegaConf.create(plain))
    text = str(raised.value)
    assert exit_code(raised.value) == 4, text
    assert "keratosis" in text and "wart" in text and str(last(tmp_path)) in text


# ---- views and metadata


def without(archive: Path, folder: Path, columns: list[str]) -> Path:
    """A copy of an ISIC 2024 archive that knows nothing of some columns."""
    root = Path(shutil.copytree(archive, folder))
    table = pd.read_csv(root / "train-metadata.csv", low_memory=False)
    table[columns] = np.nan
    table.to_csv(root / "train-metadata.csv", index=False)
    return root


def test_metadata_of_which_nothing_is_known(
    config: Make, archive32: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = without(archive32, tmp_path / "archive", ["age_approx", "sex"])
    wrong = config("data.metadata=[age,sex]", root=root)
    refused(wrong, "none of", "training rows has a value of age, sex", code=3)
    caplog.set_level(logging.WARNING)
    fit_fold(config("data.metadata=[age,sex,site]", "name=some", root=root))
    assert "no training row knows age, sex" in caplog.text


def test_a_view_that_the_archive_has_not(config: Make, milk32: Path) -> None:
    wrong = ("data=milk10k", "metrics=milk10k", "loss=ce", "data.views=[dermoscopic,tbp]")
    words = ("data.views: expected one or more of dermoscopic, clinical", "got dermoscopic, tbp")
    refused(config(*wrong, root=milk32), *words, code=2)


def test_a_view_of_which_no_image_is_there(config: Make, milk32: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(milk32, tmp_path / "milk10k"))
    table = pd.read_csv(root / "MILK10k_Training_Metadata.csv")
    for name in table["isic_id"][table["image_type"].str.startswith("clinical")]:
        next(root.rglob(f"{name}.jpg")).unlink()
    both = ("data=milk10k", "metrics=milk10k", "loss=ce", "data.views=[dermoscopic,clinical]")
    refused(config(*both, root=root), "60", "clinical", "data.views", code=3)
