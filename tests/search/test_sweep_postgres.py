"""Three processes on one PostgreSQL study, one of them killed: the trials add up exactly."""

import re
import time
from collections import Counter

import pytest
from optuna.trial import TrialState

from tests.search.postgres import cluster
from tests.search.sweeps import Sweeping

pytestmark = pytest.mark.slow


def test_a_killed_worker_among_three_costs_nothing_but_its_trial(sweeping: Sweeping) -> None:
    pytest.importorskip("psycopg")
    with cluster() as url:
        words = (f"storage={url}", "n_trials=30", "name=three", "trainer.max_epochs=1")
        first, second, killed = (sweeping.start(*words) for _ in range(3))
        killed.wait_for("complete", timeout=300)
        while not _running(killed.text):
            time.sleep(0.01)
        killed.signal()
        assert killed.wait() == -9
        lost = _running(killed.text)
        # a third one joins in the place of the killed: the trials still add up
        third = sweeping.start(*words)
        lines = []
        for command in (first, second, third):
            assert command.wait(timeout=900) == 0, command.text
            lines.append(command.text.splitlines()[-2])
        study = sweeping.study("three", url.replace("postgresql:", "postgresql+psycopg:"))
        trials, winner = study.trials, study.best_trial
    states = Counter(t.state for t in trials)
    assert states == {TrialState.COMPLETE: 30, TrialState.FAIL: 1}
    failed = next(t for t in trials if t.state == TrialState.FAIL)
    assert f"trial {failed.number} " in lost
    again = [t for t in trials if t.system_attrs.get("failed_trial") == failed.number]
    assert [t.params for t in again] == [failed.params]
    runs = Counter(t.user_attrs["run"] for t in trials)
    assert runs == {t.user_attrs["run"]: 1 + (t in again) for t in trials if t is not failed}
    best = {re.search(r"val/pauc (\S+) in trial (\d+)", line).groups() for line in lines}
    assert best == {(f"{winner.value:.6g}", str(winner.number))}


def _running(text: str) -> str:
    """The line of the trial that the worker is at; empty between two trials."""
    lines = [line for line in text.splitlines() if re.match(r"trial \d+ ", line)]
    return lines[-1] if lines and "=" in lines[-1] else ""
