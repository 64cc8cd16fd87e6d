"""Journals: a killed holder, a torn record and a full disk stop no other worker."""

import multiprocessing
import os
import resource
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage

from isic.errors import ConfigError
from isic.search.journal import Journal, LockFile
from isic.search.slots import lost
from isic.search.storage import open_store
from tests.search.sweeps import options


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isic.search.journal.PATIENCE", 0.5)


def in_others(target: Any, *arguments: Any, n: int = 1) -> list[int | None]:
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=target, args=arguments) for _ in range(n)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def hold_and_die(folder: Path) -> None:
    """As a worker that is killed while it claims."""
    store = open_store(options(folder, storage=f"journal:{folder / 'log'}"), lost=lost)
    with store.lock():
        os._exit(9)


def test_a_killed_holder_is_waited_for_without_effort(tmp_path: Path) -> None:
    assert in_others(hold_and_die, tmp_path) == [9]
    store = open_store(options(tmp_path, storage=f"journal:{tmp_path / 'log'}"), lost=lost)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.monotonic()
    with store.lock():
        assert 0.4 < time.monotonic() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.3
    assert not list(tmp_path.glob("*.lock*"))


def count(folder: Path) -> None:
    """Two at once would lose a step."""
    for _ in range(10):
        with LockFile(folder / "lock"):
            number = int((folder / "number").read_text())
            time.sleep(0.002)
            (folder / "number").write_text(str(number + 1))


@pytest.mark.parametrize("left", ["file", "link"])
def test_waiters_that_find_a_dead_holder_do_not_enter_together(tmp_path: Path, left: str) -> None:
    lock = tmp_path / "lock"
    lock.touch() if left == "file" else lock.symlink_to(tmp_path / "nothing")
    (tmp_path / "number").write_text("0")
    assert in_others(count, tmp_path, n=6) == [0] * 6
    assert (tmp_path / "number").read_text() == "60"
    assert {p.name for p in tmp_path.iterdir()} == {"number"}


def test_one_that_was_silent_for_too_long_leaves_the_next_ones_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow, other = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    slow.acquire()
    other.acquire()
    slow.release()
    assert "held it for too long" in caplog.text
    assert (tmp_path / "lock").exists()
    other.release()
    assert not list(tmp_path.iterdir())


def test_one_that_was_taken_while_it_was_broken_is_put_back(tmp_path: Path) -> None:
    holder, waiter = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    holder.acquire()
    waiter._break((b"of a dead one", 0))
    assert not waiter._created()
    holder.release()
    assert not list(tmp_path.iterdir())


def study(path: Path) -> optuna.Study:
    storage = JournalStorage(Journal(path))
    return optuna.create_study(study_name="a", storage=storage, load_if_exists=True)


@pytest.mark.parametrize("torn", [b'{"op_code":8,"worker_id":"x","tri', b"\0" * 70_000])
def test_half_a_record_is_cut_by_the_next_one(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log"
    ours = study(path)
    ours.tell(ours.ask(), 1)
    with path.open("ab") as file:
        file.write(torn)
    theirs = study(path)
    theirs.tell(theirs.ask(), 2)
    ours.tell(ours.ask(), 3)
    assert [t.value for t in study(path).trials] == [1, 2, 3]


def test_a_disk_that_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = study(tmp_path / "log")
    trial = ours.ask()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            trial.report(0.5, 0)
    assert not list(tmp_path.glob("*.lock"))
    trial.report(0.6, 1)
    ours.tell(trial, 1)
    assert study(tmp_path / "log").trials[0].value == 1


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("mine")
    with pytest.raises(ConfigError, match=r"no journal of Optuna: expected .*op_code"):
        open_store(options(tmp_path, storage=f"journal:{tmp_path / 'log'}"), lost=lost)
    assert (tmp_path / "log").read_text() == "mine"
