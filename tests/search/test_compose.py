"""Configs of trials: what a space may name, and that a trial's config is that of `train.py`."""

import os
from collections.abc import Iterator
from typing import Any

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from isic.cli import CONF
from isic.config import SCHEMAS
from isic.errors import ConfigError
from isic.search.compose import Composer, check_space
from isic.search.space import read_space

COMPOSED: dict[Any, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def composing() -> Iterator[None]:
    for name, node in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=node)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield


def check(content: dict[str, Any], *overrides: str) -> None:
    composer = Composer("train", overrides)
    composer._composed = {} if overrides else COMPOSED  # composing is what takes time here
    check_space(read_space(content), composer)


def test_a_trial_is_what_train_py_would_compose() -> None:
    chosen = {"sampler": "negatives", "sampler.ratio": 7, "mixing": None, "model.dropout": 0.5}
    ours = Composer("train", ["model=resnet18", "trainer=cpu"]).config(chosen)
    words = ["model=resnet18", "trainer=cpu", "sampler=negatives", "sampler.ratio=7"]
    assert ours["paths"].pop("cwd") == os.getcwd()  # as a command adds it
    theirs = hydra.compose("train", [*words, "model.dropout=0.5"])
    assert ours == OmegaConf.to_container(theirs, resolve=True)


def test_one_trial_leaves_nothing_in_the_next() -> None:
    composer = Composer("train", [])
    before = composer.config({})
    assert composer.config({"optim.optimizer.lr": 0.5})["optim"]["optimizer"]["lr"] == 0.5
    assert composer.config({}) == before


def test_keys_and_groups_are_fine() -> None:
    check(
        {
            "transforms": ["light", "heavy"],
            "mixing": [None, "mixup"],
            "sampler": ["shuffle", "negatives"],
            "sampler.ratio": {"int": [1, 9], "when": {"sampler": "negatives"}},
            "optim.optimizer.lr": {"float": [0.1, 1]},
        }
    )


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        (
            {"optim.optimiser.lr": {"float": [0.1, 1]}},
            [],
            "no such key in conf/train.yaml.*mean optim.optimizer.lr",
        ),
        ({"lr": {"float": [0.1, 1]}}, [], "lr: no such key.*Did you mean optim.optimizer.lr"),
        ({"optim.optimizer": [1, 2]}, [], "optim.optimizer: no such key"),
        ({"transforms": ["light", "heavvy"]}, [], "no such choice.*Did you mean heavy"),
        ({"transforms": {"int": [1, 2]}}, [], "no such choice"),
        (
            {"sampler": ["shuffle", "negatives"], "sampler.ratio": {"int": [1, 9]}},
            [],
            "sampler.ratio: no such key.* with sampler=shuffle. Say `when`",
        ),
        (
            {"optim.optimizer.lr": {"float": [0.1, 1]}},
            ["optim.optimizer.lr=0.3"],
            "tried by the space, and 'optim.optimizer.lr=0.3' on the command line",
        ),
        ({"sampler": ["shuffle", "negatives"]}, ["sampler=negatives"], "leave one of them out"),
        (
            {"optim.optimizer.lr": {"float": [0.1, 1]}},
            ["optim.optimizer={lr: 1}"],
            "leave one of them out",
        ),
    ],
)
def test_what_some_trial_would_lack_is_said_first(
    content: dict[str, Any], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(content, *overrides)


def test_another_choice_of_a_group_is_no_conflict_with_its_keys() -> None:
    check({"optim.optimizer.lr": {"float": [0.1, 1]}}, "optim=nadam")
    check({"sampler.ratio": {"int": [1, 9]}}, "sampler=negatives")
