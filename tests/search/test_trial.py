"""One trial on jobs that only write what a training would: mean, spread, pruning, reasons."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from isic.errors import IsicError
from isic.search.forks import reason
from isic.search.trial import Curve, Failed, run_trial, trial_config
from tests.search.sweeps import options
from tests.search.written import CONFIG, Written


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isic.search.trial.GLANCE", 0)
    monkeypatch.setattr("isic.search.storage.AGAIN", 0)


def asked(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.set_user_attr("run", f"{trial.number:04d}")
    return trial


def test_the_objective_is_the_mean_over_folds_with_its_spread(tmp_path: Path) -> None:
    trial = asked(optuna.create_study(direction="maximize"))
    jobs = Written(tmp_path, {0: [0.5, 0.6, 0.7], 2: [0.7, 0.8, 0.9]})
    assert run_trial(trial, CONFIG, options(tmp_path, folds=(0, 2)), jobs) == pytest.approx(0.8)
    assert trial.user_attrs["scores"] == {"0": 0.7, "2": 0.9}
    assert trial.user_attrs["spread"] == pytest.approx(math.sqrt(0.02))
    # the second fold counts on from the first, at the mean of both
    reported = trial.study.trials[0].intermediate_values
    assert reported == pytest.approx({0: 0.5, 1: 0.6, 2: 0.7, 3: 0.7, 4: 0.75, 5: 0.8})


def test_a_bad_trial_is_pruned_and_its_processes_are_ended(tmp_path: Path) -> None:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    good = asked(study)
    study.tell(good, run_trial(good, CONFIG, options(tmp_path), Written(tmp_path, {0: [0.8] * 3})))
    jobs = Written(tmp_path, {0: [0.5, 0.3, 0.3]})
    with pytest.raises(optuna.TrialPruned, match="after epoch 1 of fold 0"):
        run_trial(asked(study), CONFIG, options(tmp_path), jobs)
    assert jobs.ended == [0]


def test_a_trial_at_its_last_epoch_is_not_pruned(tmp_path: Path) -> None:
    pruner = optuna.pruners.ThresholdPruner(lower=0.5, n_warmup_steps=2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    jobs = Written(tmp_path, {0: [0.9, 0.9, 0.1]})
    assert run_trial(asked(study), CONFIG, options(tmp_path), jobs) == pytest.approx(0.1)


@pytest.mark.parametrize("error", [StorageInternalError("commit"), OSError(28, "No space left")])
@pytest.mark.parametrize("call", ["set_trial_intermediate_value", "get_all_trials"])
def test_a_storage_that_is_away_for_a_while_loses_no_epoch(
    call: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    trial, jobs = asked(study), Written(tmp_path, {0: [0.5, 0.6, 0.7]})
    failing, real = iter([True, True, False, True]), getattr(trial.storage, call)

    def away(*words: Any, **options: Any) -> Any:
        if next(failing, False):
            raise error
        return real(*words, **options)

    monkeypatch.setattr(trial.storage, call, away)
    assert run_trial(trial, CONFIG, options(tmp_path), jobs) == pytest.approx(0.7)
    assert study.trials[0].intermediate_values == pytest.approx({0: 0.5, 1: 0.6, 2: 0.7})


def test_a_storage_that_stays_away_ends_the_worker_and_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, jobs = asked(optuna.create_study()), Written(tmp_path, {0: [0.5, 0.6]})

    def away(*words: Any) -> None:
        raise StorageInternalError("commit")

    monkeypatch.setattr(trial.storage, "set_trial_intermediate_value", away)
    search = options(tmp_path, heartbeat=0.1)
    with pytest.raises(IsicError, match=r"does not answer for 0.4 s .*commit.*the same command"):
        run_trial(trial, CONFIG, search, jobs)
    assert jobs.ended == [0]


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        (1, "epoch 1/3\nerror: the loss is NaN at step 7\n", "exit code 1: the loss is NaN"),
        (1, "Traceback\nerror: OutOfMemoryError: CUDA\n", "exit code 1: OutOfMemoryError: CUDA"),
        (-9, "epoch 1/3\n", "killed by SIGKILL: out of memory"),
        (-11, "Segmentation fault\n", "killed by SIGSEGV: Segmentation fault"),
        (7, "", "exit code 7: see .*fold0.log"),
    ],
)
def test_a_failure_says_why(code: int, text: str, message: str, tmp_path: Path) -> None:
    jobs = Written(tmp_path, {0: [0.5]}, code, text)
    with pytest.raises(Failed, match=message):
        run_trial(asked(optuna.create_study()), CONFIG, options(tmp_path), jobs)


def test_a_score_that_is_no_number_fails_the_trial(tmp_path: Path) -> None:
    jobs = Written(tmp_path, {0: [0.5, math.nan]})
    with pytest.raises(Failed, match="val/auc is no number: nan"):
        run_trial(asked(optuna.create_study()), CONFIG, options(tmp_path), jobs)


def test_an_earlier_attempts_words_are_not_this_ones(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("error: of the first attempt\n")
    begun = log.stat().st_size
    log.write_text(log.read_text() + "error: of the second\n")
    assert reason(1, log, begun) == "exit code 1: of the second"


def test_half_a_line_is_no_epoch_yet(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    curve = Curve(file, "val/auc")
    assert list(curve.fresh()) == []
    file.write_text("epoch,step,name,value\n0,5,val/auc,0.5\n0,5,train/loss,1\n1,9,val/auc,0.")
    assert list(curve.fresh()) == [(0, 0.5)]
    file.write_text(file.read_text() + "75\n")
    assert list(curve.fresh()) == [(1, 0.75)]
    assert list(curve.fresh()) == []


def test_a_run_bears_study_and_number(tmp_path: Path) -> None:
    trial = asked(optuna.create_study())
    wandb = {"mode": "offline", "tags": ["mine"]}
    config = {**CONFIG, "logger": {"wandb": wandb}}
    ours = trial_config(config, options(tmp_path), trial, fold=1)
    assert ours["name"] == "study/0000"
    assert ours["fold"] == 1
    told = {"group": "study", "job_type": "sweep", "tags": ["mine", "study", "trial 0"]}
    assert ours["logger"]["wandb"] == {"mode": "offline", **told}
    assert config["logger"]["wandb"] == wandb
