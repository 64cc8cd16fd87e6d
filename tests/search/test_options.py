"""What a sweep may be asked to do."""

from contextlib import nullcontext
from typing import Any

import pytest

from isic.errors import ConfigError
from isic.search.options import check_password, search_options

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
    with pytest.raises(ConfigError, match="name: expected letters a to z, digits"):
        search_options(CONFIG, name=name)


def test_a_stack_is_judged_by_a_metric_that_it_has() -> None:
    metrics = {"monitor": "val/loss", "mode": "min", "functions": {"pauc": {}, "auc": {}}}
    with pytest.raises(ConfigError, match="expected one of val/pauc, val/auc, got 'val/loss'"):
        search_options({**CONFIG, "stage": "stack", "metrics": metrics}, name="study")


@pytest.mark.parametrize(
    ("storage", "typed"),
    [
        ("postgresql://me:secret@host/db", True),
        ("postgresql+psycopg://me:a/b@c@host:5432/db", True),
        ("'postgresql://me:secret@host/db'", True),
        ("postgresql://host/db?user=me&password=secret", True),
        ("postgresql://me@host:5432/db", False),
        ("postgresql://me:${oc.env:PW}@host/db", False),
        ("sqlite:///home/a:b@c/study.db", False),
        ("journal:/shared/a:b@c.log", False),
        (None, False),
    ],
)
def test_a_password_belongs_in_no_address(storage: str | None, typed: bool) -> None:
    with pytest.raises(ConfigError, match="pgpass") if typed else nullcontext():
        check_password(storage)
