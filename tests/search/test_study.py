"""Studies: joined by name where the experiment is the same, refused where it is another."""

from pathlib import Path

import optuna
import pytest

from isic.errors import ConfigError
from isic.search.slots import lost
from isic.search.storage import Store, open_store
from isic.search.study import ARCHIVE, open_study
from tests.search.sweeps import options

FOLDS = {"folds": [0, 1], "lr": 0.1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(options(tmp_path, storage=f"journal:{tmp_path / 'log'}"), lost=lost)


def opened(store: Store, experiment: dict[str, object], **changed: object) -> optuna.Study:
    return open_study(store, options(Path(), **changed), experiment, optuna.pruners.NopPruner())


def test_the_same_experiment_joins(store: Store) -> None:
    study = opened(store, FOLDS)
    study.ask()
    assert len(opened(store, FOLDS).trials) == 1


def test_another_experiment_is_refused_once_its_data_were_ready(store: Store) -> None:
    opened(store, FOLDS).set_user_attr(ARCHIVE, "a")
    with pytest.raises(ConfigError, match=r"another experiment: folds: \[0, 1\] -> \[0\]\. Give"):
        opened(store, {**FOLDS, "folds": [0]})


def test_a_mistake_that_showed_before_any_data_may_be_mended_under_the_same_name(
    store: Store,
) -> None:
    opened(store, FOLDS)
    study = opened(store, {**FOLDS, "direction": "minimize"}, direction="minimize")
    assert study.direction.name == "MINIMIZE"
    assert study.user_attrs["experiment"]["direction"] == "minimize"
