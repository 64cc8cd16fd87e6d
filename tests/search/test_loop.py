"""A worker: what becomes of a trial that another worker has taken for dead meanwhile."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from isic.search.loop import Member
from isic.search.slots import lost
from isic.search.storage import open_store
from tests.search.sweeps import options
from tests.search.written import CONFIG, Written


class Buried(Written):
    """Jobs whose trial another worker buries while its second epoch is trained."""

    study: optuna.Study

    def poll(self, pid: int) -> int | None:
        if self.written == 1:
            trial = self.study.trials[-1]
            self.study.tell(trial.number, state=TrialState.FAIL)
            lost(self.study, trial)
        return super().poll(pid)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_worker_goes_on_where_its_trial_was_taken_from_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("isic.search.trial.GLANCE", 0)
    storage = f"journal:{tmp_path / 'log'}" if kind == "journal" else None
    search = options(tmp_path, storage=storage, n_trials=1, give_up_after=1)
    store = open_store(search, lost=lost)
    study = optuna.create_study(
        study_name=search.name, storage=store.storage, direction=search.direction
    )
    composer = SimpleNamespace(config=lambda chosen: CONFIG)
    this: Any = SimpleNamespace(search=search, space=[], composer=composer)
    member, jobs = Member(this, store, study), Buried(tmp_path, {0: [0.5, 0.6, 0.7]})
    member._forks, jobs.study = jobs, study  # type: ignore[assignment]
    trial = member.next_trial()
    assert trial is not None
    member.run(trial)
    assert jobs.ended == [0], "its training would write to the folder of the next one"
    assert "trial 0 was given up as dead meanwhile" in caplog.text
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]
