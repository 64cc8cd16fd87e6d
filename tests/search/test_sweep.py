"""`sweep.py` itself: exit codes, going on after a kill, failures, refusals, several workers."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from isic.acquire.synthetic import write_isic2024
from isic.predictions import read_score
from isic.workers import share
from tests.commands import ROOT
from tests.search.sweeps import Sweeping

# Trainings that take no time: the metric is the learning rate, three epochs long.
PRETENDED = """
import json, os, pathlib, time
def pretend(config):
    number = int(config["name"].rpartition("/")[2])
    fold = pathlib.Path(config["paths"]["runs"]) / config["name"] / f"fold{config['fold']}"
    (fold / "checkpoints").mkdir(parents=True, exist_ok=True)
    value = config["optim"]["optimizer"]["lr"]
    if number in FAILS:
        raise MemoryError("no room for the batch")
    if number in HANGS and not (fold / "begun").exists():
        (fold / "begun").touch()
        time.sleep(60)
    score = {"metrics": {"pauc": {"value": value}}}
    (fold / "score.json").write_text(json.dumps(score))
    (fold / "where.json").write_text(json.dumps({"cores": sorted(os.sched_getaffinity(0))}))
server.JOBS["train"] = pretend
server.JOBS["prepare_train"] = lambda config: {"archive": ARCHIVE}
FAILS, HANGS, ARCHIVE = (), (), "a"
"""


@pytest.mark.slow
def test_a_study_of_trainings(sweeping: Sweeping) -> None:
    code, text = sweeping.run("n_trials=2", "name=real", "trainer.max_epochs=1", "fold=[0,1]")
    assert code == 0, text
    study = sweeping.study("real")
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 2
    folder = sweeping.runs / "real"
    for trial in study.trials:
        folds = [folder / trial.user_attrs["run"] / f"fold{k}" for k in (0, 1)]
        scores = [read_score(f / "score.json")["metrics"]["pauc"]["value"] for f in folds]
        assert trial.value == pytest.approx(sum(scores) / 2)
        assert list(trial.user_attrs["scores"].values()) == pytest.approx(scores)
        assert (folds[0].parent / "oof.parquet").exists(), "a trial is a run"
        assert len(trial.intermediate_values) == 2
    assert f"in trial {study.best_trial.number}: " in text
    assert (folder / "history.html").exists()
    assert not (sweeping.runs / "real" / "splits").exists(), "one split for all studies"


@pytest.mark.slow
def test_a_study_of_stacks(sweeping: Sweeping, tiny_archive: Path) -> None:
    sweeping.arguments = ["space=stack", f"data.root={tiny_archive}", "split.n_folds=2"]
    sweeping.arguments += ["logger=csv", "n_seeds=1", "n_jobs=1", "name=stacks"]
    code, text = sweeping.run("n_trials=2")
    assert code == 0, text
    study = sweeping.study("stacks")
    for trial in study.trials:
        score = sweeping.runs / "stacks" / trial.user_attrs["run"] / "score.json"
        assert trial.value == pytest.approx(read_score(score)["metrics"]["pauc"]["value"])
    study.set_user_attr("split_hash", "of other folds")
    code, text = sweeping.run("n_trials=3")
    assert code == 2, text
    assert "begun on another split: of other folds, here" in text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_killed_study_goes_on_and_a_third_time_prints_the_best(
    kind: str, sweeping: Sweeping, tmp_path: Path
) -> None:
    journal = f"journal:{tmp_path / 'shared' / 'study.log'}"
    words = ("n_trials=4", "name=killed", *([f"storage={journal}"] if kind == "journal" else []))
    command = sweeping.start(*words, prelude=PRETENDED + "HANGS = (2,)")
    begun = sweeping.runs / "killed" / "0002" / "fold0" / "begun"
    while not begun.exists():
        assert command.poll() is None, command.text
        time.sleep(0.02)
    command.signal(signal.SIGKILL)
    assert command.wait() == -9
    code, text = sweeping.run(*words, prelude=PRETENDED)
    assert code == 0, text
    assert "trial 2 lost its worker; it is run again" in text
    trials = sweeping.study("killed", journal if kind == "journal" else None).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 2 + ["FAIL"] + ["COMPLETE"] * 2
    assert trials[3].params == trials[2].params
    assert trials[3].user_attrs["run"] == "0002"
    code, again = sweeping.run(*words, prelude="server = None")
    assert code == 0
    assert "trial 4" not in again.replace("in trial 4", "")
    assert text.splitlines()[-2:] == again.splitlines()[-2:]
    assert again.count("study   killed in ") == 1


@pytest.mark.slow
def test_sigterm_ends_the_trial_and_leaves_it_to_the_next(sweeping: Sweeping) -> None:
    words = ("n_trials=1", "name=ended")
    command = sweeping.start(*words, prelude=PRETENDED + "HANGS = (0,)")
    begun = sweeping.runs / "ended" / "0000" / "fold0" / "begun"
    while not begun.exists():
        assert command.poll() is None, command.text
        time.sleep(0.02)
    command.signal(signal.SIGTERM)
    assert command.wait() == 143, command.text
    states = [t.state.name for t in sweeping.study("ended").trials]
    assert states == ["FAIL", "WAITING"]


@pytest.mark.parametrize("mode", [["-m"], []])
def test_a_password_that_is_typed_is_kept_nowhere(mode: list[str], tmp_path: Path) -> None:
    words = [*mode, "storage=postgresql://me:secret@host/db", f"paths.runs={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "sweep.py", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    for way in ("~/.pgpass", "PGPASSWORD", "${oc.env:"):
        assert way in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_failed_trials_keep_their_reason_and_do_not_stop_the_study(sweeping: Sweeping) -> None:
    code, text = sweeping.run(
        "n_trials=4", "name=some", "n_workers=2", prelude=PRETENDED + "FAILS = (0, 2)"
    )
    assert code == 0, text
    trials = sweeping.study("some").trials
    assert Counter(t.state.name for t in trials) == {"COMPLETE": 2, "FAIL": 2}
    assert trials[2].user_attrs["failure"] == "exit code 1: MemoryError: no room for the batch"
    where = [json.loads(p.read_text()) for p in sweeping.runs.glob("some/*/fold0/where.json")]
    assert {tuple(w["cores"]) for w in where} <= {share(k, 2).cores for k in range(2)}


@pytest.mark.slow
def test_a_study_whose_first_trials_all_fail_ends(sweeping: Sweeping) -> None:
    code, text = sweeping.run(
        "n_trials=9", "name=none", prelude=PRETENDED + "FAILS = set(range(9))"
    )
    assert code == 1
    assert "the first 3 trials all failed" in text
    assert "MemoryError: no room for the batch" in text
    assert len(sweeping.study("none").trials) == 3


@pytest.mark.slow
def test_another_experiment_under_the_name_is_refused(sweeping: Sweeping) -> None:
    assert sweeping.run("n_trials=1", "name=taken", prelude=PRETENDED)[0] == 0
    code, text = sweeping.run(
        *("n_trials=2", "name=taken", "metrics.monitor=val/auc", "model.dropout_samples=5"),
        prelude=PRETENDED,
    )
    assert code == 2
    assert "objective: val/pauc -> val/auc" in text
    assert "model.dropout_samples: 1 -> 5" in text
    assert "n_trials" not in text
    code, text = sweeping.run("n_trials=2", "name=taken", prelude=PRETENDED + "ARCHIVE = 'b'")
    assert code == 2
    assert "begun on another archive" in text
    assert len(sweeping.study("taken").trials) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("name=a/b", "name: expected letters"),
        ("optim.optimizer.lr=0.1", "tried by the space"),
        ("space=imgae", "no such choice; there are: .*image.*Did you mean image"),
        ("n_trails=5", "no such key in conf/sweep.yaml. Did you mean n_trials"),
    ],
)
def test_bad_words_end_with_2_before_any_folder(
    words: str, message: str, sweeping: Sweeping
) -> None:
    code, text = sweeping.run(words)
    assert code == 2, text
    assert re.search(message, text), text
    assert not list(sweeping.runs.glob("*/*.db"))


@pytest.mark.slow
def test_a_fold_that_does_not_exist(sweeping: Sweeping) -> None:
    code, text = sweeping.run("fold=[0,5]", "name=missing")
    assert code == 2, text
    assert "fold: expected 0..1 or all, got 5" in text
    assert not sweeping.study("missing").trials
    code, text = sweeping.run("fold=[1]", "name=missing", "n_trials=1", prelude=PRETENDED)
    assert code == 0, text


@pytest.mark.slow
def test_pruning_saves_a_third_of_the_epochs_and_no_score(
    sweeping: Sweeping, tmp_path: Path
) -> None:
    """The best of 20 trials is within one standard error of the best of 20 unpruned ones."""
    # enough malignant tiles, and no averaged weights, for 60 steps to learn something
    root = write_isic2024(
        tmp_path / "isic2024", n_images=161, n_test=21, size_range=32, n_patients=40, positives=64
    )
    words = ("n_trials=20", "trainer.max_epochs=12", "data.batch_size=16", f"data.root={root}")
    words += ("metrics.monitor=val/auc", "callbacks.ema_decay=null")
    commands = [sweeping.start(*words, "name=pruned")]
    commands += [sweeping.start(*words, "name=whole", "pruner=none")]
    for command in commands:
        assert command.wait(timeout=1200) == 0, command.text
    epochs, scores = {}, {}
    for name in ("pruned", "whole"):
        study = sweeping.study(name)
        epochs[name] = sum(len(t.intermediate_values) for t in study.trials)
        folder = sweeping.runs / name / study.best_trial.user_attrs["run"] / "fold0"
        scores[name] = read_score(folder / "score.json")["metrics"]["auc"]
    error = (scores["whole"]["high"] - scores["whole"]["low"]) / (2 * 1.96)
    assert epochs["whole"] == 240
    assert epochs["pruned"] <= 160
    assert scores["pruned"]["value"] >= scores["whole"]["value"] - error
