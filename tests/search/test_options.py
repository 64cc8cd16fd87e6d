"""What a sweep may be asked to do."""

from typing import Any

import pytest

from isic.errors import ConfigError
from isic.search.options import search_options

CONFIG: dict[str, Any] = {
    "stage": "train",
    "fold": [0, 2],
    "seed": 0,
    "paths": {"runs": "runs"},
    "metrics": {"monitor": "val/auc", "mode": "max"},
    "n_trials": 5,
    "n_workers": 1,
    "storage": None,
    "heartbeat": 15.0,
    "keep_weights": 3,
    "give_up_after": 3,
}


def test_the_folds_and_the_direction() -> None:
    search = search_options(CONFIG, name="study")
    assert (search.folds, search.direction) == ((0, 2), "maximize")
    assert search_options({**CONFIG, "fold": 3}, name="study").folds == (3,)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fold", "all", "fold: expected a number, or a list"),
        ("fold", [], "fold: expected a number, or a list"),
        ("fold", [0, 0], "fold: expected each fold once"),
        ("fold", [-1], "fold: expected a number"),
        ("n_trials", 0, "n_trials: expected 1 or more"),
        ("n_workers", 0, "n_workers: expected 1 or more"),
        ("keep_weights", -1, "keep_weights: expected 0 or more"),
        ("heartbeat", 0.0, "heartbeat: expected seconds"),
        ("metrics", {"monitor": "val/auc", "mode": "high"}, "metrics.mode: expected min or max"),
    ],
)
def test_values_that_mean_nothing(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search_options({**CONFIG, key: value}, name="study")


@pytest.mark.parametrize("name", ["a/b", "../up", "", ".hidden", "é", "a b", "x" * 101])
def test_odd_names(name: str) -> None:
    with pytest.raises(ConfigError, match="name: expected letters, digits"):
        search_options(CONFIG, name=name)


def test_a_stack_is_judged_by_a_metric_that_it_has() -> None:
    metrics = {"monitor": "val/loss", "mode": "min", "functions": {"pauc": {}, "auc": {}}}
    with pytest.raises(ConfigError, match="expected one of val/pauc, val/auc, got 'val/loss'"):
        search_options({**CONFIG, "stage": "stack", "metrics": metrics}, name="study")
