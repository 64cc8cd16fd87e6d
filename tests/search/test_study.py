"""Studies: joined by name where the experiment is the same, refused where it is another."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from isic.errors import ConfigError
from isic.files import write_text
from isic.search.alive import Stamp
from isic.search.slots import lost
from isic.search.storage import Store, open_store
from isic.search.study import ARCHIVE, make_ready, open_study
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


class Cached:
    """Jobs that find the worker's own cache; `meanwhile` comes between a start and its job."""

    def __init__(self, meanwhile: Any = lambda: None) -> None:
        self.meanwhile = meanwhile

    def start(self, job: str, config: Mapping[str, Any], file: Path, log: Path) -> int:
        write_text(file, yaml.safe_dump(dict(config)))
        log.touch()
        self.meanwhile()
        read = yaml.safe_load(file.read_text())
        write_text(Path(read["prepared"]), json.dumps({ARCHIVE: read["paths"]["cache"]}))
        return 1

    def poll(self, pid: int) -> int | None:
        return 0

    def end(self, pid: int) -> None:
        """Nothing runs."""


def test_workers_that_start_at_once_prepare_what_is_theirs(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, seen = options(tmp_path), {}

    def work(host: str, meanwhile: Any = lambda: None) -> None:
        study = opened(store, FOLDS, name=host)  # of its own, or the second would be refused
        monkeypatch.setattr(Stamp, "of_this_process", classmethod(lambda cls: cls(host, 1, 1)))
        make_ready(study, {"paths": {"cache": host}, "metrics": 1}, search, Cached(meanwhile))
        seen[host] = study.user_attrs[ARCHIVE]

    work("node1", lambda: work("node2"))
    assert seen == {"node1": "node1", "node2": "node2"}
    # the table of runs reads one of them, whole
    assert yaml.safe_load((search.folder / "prepared.yaml").read_text())["metrics"] == 1
    assert {p.suffix for p in (search.folder / "prepared").iterdir()} == {".log"}


def test_a_key_that_a_later_version_adds_leaves_the_study_what_it_is(store: Store) -> None:
    known = {**FOLDS, "optim._target_": "x", "optim.lr": 0.1}
    known |= {"space.sampler": ["a", "b"], "space.sampler.ratio": {"int": [1, 2]}}
    opened(store, known).set_user_attr(ARCHIVE, "a")
    later, search, pruner = {**known, "optim.restarts": 2}, options(Path()), None
    pruner = optuna.pruners.NopPruner()

    def today(stored: Mapping[str, Any]) -> dict[str, Any]:
        assert stored["optim"] == {"_target_": "x", "lr": 0.1}
        return {"optim.restarts": 2}

    open_study(store, search, later, pruner, today)
    with pytest.raises(ConfigError, match=r"optim.restarts: None -> 3"):
        open_study(store, search, {**later, "optim.restarts": 3}, pruner, today)


def test_a_study_of_the_former_default_loss_says_how_it_goes_on(store: Store) -> None:
    opened(store, {**FOLDS, "loss.activation": "sigmoid"}).set_user_attr(ARCHIVE, "a")
    wanted = {**FOLDS, "loss.activation": "sigmoid", "loss.exclusive._target_": "x"}
    with pytest.raises(ConfigError, match="give loss=bce to go on with it"):
        opened(store, wanted)
