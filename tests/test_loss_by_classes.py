"""`loss=auto`: the loss of an archive's classes, or of the run as it began before there was one."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from isic.composition import Composition, _plain
from isic.config.loss import chosen_loss, options
from isic.engine.settle import say_loss, settle
from isic.index.isic2020 import INFO as BINARY
from isic.index.milk10k import INFO as ELEVEN
from isic.index.schema import DatasetInfo
from isic.predictions import probabilities, read_predictions
from isic.runs import RunFolder
from isic.training.losses import ByClasses, default_objective
from isic.training.module import LesionClassifier
from tests.commands import TINY, ForkServer


def loss(*words: str) -> dict[str, Any]:
    node: dict[str, Any] = _plain("train", list(words))["loss"]
    return node


def test_what_is_chosen_is_what_one_would_choose_by_name() -> None:
    assert chosen_loss(loss(), BINARY) == loss("loss=bce")
    assert chosen_loss(loss(), ELEVEN) == loss("loss=ce")
    assert chosen_loss(loss("loss=focal"), ELEVEN) == loss("loss=focal")
    smoothed = chosen_loss(loss("loss.loss.label_smoothing=0.1"), ELEVEN)
    assert smoothed == loss("loss=ce", "loss.loss.label_smoothing=0.1")
    balanced = chosen_loss(loss("loss.exclusive.loss.balance=sqrt"), ELEVEN)
    assert balanced == loss("loss=ce", "loss.loss.balance=sqrt")
    # only one of the two has weights of positives
    words = ["loss.loss.pos_weight=balanced", "loss.loss.clip=20"]
    assert chosen_loss(loss(*words), ELEVEN) == loss("loss=bce", *words)
    assert isinstance(instantiate(loss()), ByClasses)
    for node in options(loss()).values():
        assert instantiate(node).activation in ("sigmoid", "softmax")


@pytest.mark.parametrize("n", [2, 3, 11])
def test_without_a_config_probabilities_sum_to_one_as_well(n: int) -> None:
    objective = default_objective(n)
    assert LesionClassifier(torch.nn.Identity(), classes=list("abcdefghijk"[:n])).objective.loss
    assert objective.n_logits(n) == (1 if n == 2 else n)
    assert objective.activation == ("sigmoid" if n == 2 else "softmax")


def settled(info: DatasetInfo, runs: Path, *words: str) -> tuple[dict[str, Any], str]:
    config = _plain("train", ["data=milk10k", *words])
    today = Composition("train", {"loss": "auto", "data": "milk10k"})
    settle(config, {"archive": "aa"}, info, stored=runs.glob("*/fold*/config.yaml"), today=today)
    return config, today.choices["loss"]


def test_a_run_goes_on_with_the_loss_it_began_with(tmp_path: Path) -> None:
    assert settled(ELEVEN, tmp_path)[1] == "ce"
    assert settled(BINARY, tmp_path)[1] == "bce"
    former = _plain("train", ["data=milk10k", "loss=bce"])
    RunFolder(tmp_path / "r" / "fold0").claim(former, {"archive": "aa"})
    config, option = settled(ELEVEN, tmp_path)
    assert (config["loss"], option) == (former["loss"], "bce")
    assert settled(ELEVEN, tmp_path, "seed=3")[1] == "ce"  # another experiment
    assert settled(ELEVEN, tmp_path, "loss=ce")[0]["loss"]["activation"] == "softmax"


def test_what_does_not_sum_to_one_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    say_loss(loss("loss=ce"), ELEVEN)
    say_loss(loss("loss=bce"), BINARY)
    assert "WARNING" not in caplog.text
    assert "loss    CrossEntropy, softmax over 11 classes" in caplog.text
    say_loss(loss("loss=bce"), ELEVEN)
    assert "sigmoid for each of 11 classes: probabilities of an image do not sum" in caplog.text


@pytest.mark.slow
def test_a_training_of_exclusive_classes(
    commands: ForkServer, milk32: Path, tmp_path: Path
) -> None:
    env = {"ISIC_RUNS_ROOT": str(tmp_path)}
    given = ["data=milk10k", f"data.root={milk32}", *TINY, "trainer.max_epochs=1", "name=m"]
    code, text = commands.run("train.py", *given, env=env)
    assert code == 0, text
    assert "loss    CrossEntropy, softmax over 11 classes" in text
    frame = read_predictions(tmp_path / "m" / "fold0" / "oof.parquet")
    np.testing.assert_allclose(probabilities(frame).sum(axis=1), 1, rtol=1e-6)
    assert json.loads((tmp_path / "m" / "fold0" / "score.json").read_text())["n"] == len(frame)
    code, text = commands.run("train.py", *given, "loss=ce", env=env)
    assert "finished on" in text, text
