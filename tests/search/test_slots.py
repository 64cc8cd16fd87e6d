"""Slots: exact over any number of claimers, dead workers' trials go to the next one, once."""

import json
import multiprocessing
import os
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from isic.search.alive import SignsOfLife, Stamp, this_host
from isic.search.options import SearchOptions
from isic.search.slots import FAILURE, claim, lost, n_taken, put_back
from isic.search.storage import open_store
from tests.search.sweeps import options

KINDS = ("sqlite", "journal")


def search_on(kind: str, folder: Path, **changed: Any) -> SearchOptions:
    storage = f"journal:{folder / 'study.log'}" if kind == "journal" else None
    return options(folder, storage=storage, **changed)


class Worker:
    """One that claims, in this process or in its own."""

    def __init__(self, search: SearchOptions) -> None:
        self.search, self.store = search, open_store(search, lost=lost)
        self.study = optuna.create_study(
            study_name=search.name, storage=self.store.storage, load_if_exists=True
        )
        self.signs = SignsOfLife(self.store, search.heartbeat)

    def claim(self) -> optuna.Trial | None:
        return claim(self.study, self.store, self.search, self.signs)

    def states(self) -> Counter[str]:
        return Counter(t.state.name for t in self.study.get_trials(deepcopy=False))


def in_another_process(target: Any, *arguments: Any) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def claim_and_die(search: SearchOptions) -> None:
    trial = Worker(search).claim()
    assert trial is not None
    trial.suggest_float("x", 0, 1)
    os._exit(9)


def claim_all(search: SearchOptions) -> None:
    worker = Worker(search)
    while trial := worker.claim():
        worker.study.tell(trial, trial.suggest_float("x", 0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_claimers_that_race_take_every_slot_once(kind: str, tmp_path: Path) -> None:
    search = search_on(kind, tmp_path, n_trials=8)
    Worker(search).store.close()
    context = multiprocessing.get_context("fork")
    racing = [context.Process(target=claim_all, args=(search,)) for _ in range(3)]
    for process in racing:
        process.start()
    for process in racing:
        process.join()
    assert [p.exitcode for p in racing] == [0, 0, 0]
    worker = Worker(search)
    assert worker.states() == {"COMPLETE": 8}
    values = [t.params["x"] for t in worker.study.trials]
    assert len({*values}) == 8, "workers of one seed do not draw the same"


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_workers_trial_is_failed_and_run_again_once(kind: str, tmp_path: Path) -> None:
    search = search_on(kind, tmp_path, n_trials=1)
    assert in_another_process(claim_and_die, search) == 9
    worker = Worker(search)
    x = worker.study.trials[0].params["x"]
    again = worker.claim()
    assert again is not None
    assert again.suggest_float("x", 0, 1) == x
    assert again.user_attrs["run"] == "0000", "its folder, where it goes on"
    assert worker.states() == {"FAIL": 1, "RUNNING": 1}
    assert worker.claim() is None
    worker.study.tell(again, 1.0)
    assert (
        optuna.storages.RetryFailedTrialCallback.retried_trial_number(worker.study.trials[1]) == 0
    )


def test_a_trial_that_loses_two_workers_is_given_up_and_another_takes_its_slot(
    tmp_path: Path,
) -> None:
    search = search_on("journal", tmp_path, n_trials=1)
    for _ in range(2):
        assert in_another_process(claim_and_die, search) == 9
    worker = Worker(search)
    new = worker.claim()
    assert new is not None
    assert new.number == 2
    assert "failed_trial" not in worker.study.trials[2].system_attrs
    assert worker.states() == {"FAIL": 2, "RUNNING": 1}


def test_one_that_died_while_it_claimed_is_found(tmp_path: Path) -> None:
    worker = Worker(search_on("sqlite", tmp_path, n_trials=1))
    worker.study.ask()  # no stamp yet
    trial = worker.claim()
    assert trial is not None
    assert worker.states() == {"FAIL": 1, "RUNNING": 1}


class Killed(SignsOfLife):
    """Of a worker on another host that dies before it can say that it lives."""

    def at(self, trial: optuna.Trial) -> None:
        raise SystemExit(143)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [False, True], ids=["new", "put back"])
def test_one_that_died_between_its_claim_and_its_first_sign_of_life_is_found(
    kind: str, again: bool, tmp_path: Path
) -> None:
    search = search_on(kind, tmp_path, n_trials=1)
    there, here = Worker(search), Worker(search)
    there.signs.stamp = Stamp("elsewhere", 1, 1)
    if again:
        trial = there.claim()
        assert trial is not None
        put_back(there.study, there.study.tell(trial, state=TrialState.FAIL), deaths=0)
    there.signs = Killed(there.store, search.heartbeat)
    there.signs.stamp = Stamp("elsewhere", 1, 1)
    with pytest.raises(SystemExit):
        there.claim()
    assert here.claim() is not None, "it would be waited for without end"
    assert here.states() == {"FAIL": 1 + again, "RUNNING": 1}


def test_a_fault_of_its_own_takes_the_slot_and_is_not_tried_again(tmp_path: Path) -> None:
    worker = Worker(search_on("sqlite", tmp_path, n_trials=1))
    trial = worker.claim()
    assert trial is not None
    trial.set_user_attr(FAILURE, "out of memory")
    worker.study.tell(trial, state=TrialState.FAIL)
    assert worker.claim() is None
    assert n_taken(worker.study) == 1


def test_on_another_host_a_file_that_is_not_touched_tells(tmp_path: Path) -> None:
    search = search_on("journal", tmp_path, n_trials=1, heartbeat=10.0)
    worker = Worker(search)
    trial = worker.claim()
    assert trial is not None
    elsewhere = Stamp("elsewhere", 1, 1)
    trial.set_user_attr("worker", str(elsewhere))
    assert worker.store.stamps is not None
    file = worker.store.stamps / "elsewhere-1-1"
    file.touch()
    assert worker.claim() is None, "it lives"
    os.utime(file, (0, 0))
    assert worker.claim() is not None
    assert worker.states() == {"FAIL": 1, "RUNNING": 1}


def test_on_another_host_the_heartbeat_tells(tmp_path: Path) -> None:
    search = search_on("sqlite", tmp_path, n_trials=1)
    worker = Worker(search)
    trial = worker.claim()
    assert trial is not None
    trial.set_user_attr("worker", str(Stamp("elsewhere", 1, 1)))
    assert worker.claim() is None, "it lives"
    import sqlite3

    with sqlite3.connect(search.folder / "study.db") as connection:
        connection.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    again = worker.claim()
    assert again is not None
    assert worker.states() == {"FAIL": 1, "RUNNING": 1}


def test_a_stamp_is_a_process_and_not_a_number_that_came_round() -> None:
    from isic.search.alive import start_of

    ours = Stamp.of_this_process()
    assert Stamp.read(str(ours)) == ours
    assert ours.host == this_host()
    assert start_of(ours.pid) == ours.start
    assert start_of(2**22 + 1) is None
    assert json.dumps(str(ours))
