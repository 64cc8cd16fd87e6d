"""What a sweep may be asked to do."""

from typing import Any

import pytest

from isic.errors import ConfigError
from isic.search.options import search_options
from isic.search.team import place

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


def test_workers_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5, 6, 7})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    places = [place(i, 3, 1) for i in range(3)]
    assert sorted(core for _, cores in places for core in cores) == list(range(8))
    assert [v["CUDA_VISIBLE_DEVICES"] for v, _ in places] == ["4", "5", "6"]
    assert [v["OMP_NUM_THREADS"] for v, _ in places] == ["3", "3", "2"]
    # more workers than GPUs or cores: in turn
    assert place(3, 12, 1)[0]["CUDA_VISIBLE_DEVICES"] == "4"
    assert place(9, 12, 1)[1] == {1}
    # two GPUs a trial
    assert place(1, 2, 2)[0]["CUDA_VISIBLE_DEVICES"] == "6,4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in place(0, 1, 1)[0]
