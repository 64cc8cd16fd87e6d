"""A grid of jobs that is killed in the fourth, and typed again: six runs, nothing trained twice."""

from pathlib import Path

import pytest

from isic.predictions import read_predictions
from isic.training.checkpoint import read
from tests.commands import TINY, ForkServer
from tests.killed import assert_same

GRID = ["-m", "fold=0,1,2", "optim.optimizer.lr=1e-3,1e-4"]
FOURTH = """
import os, signal
import isic.engine.fold
from isic.training.module import LesionClassifier

original, step, fits = isic.engine.fold._fit, LesionClassifier.training_step, []

def counted(*args):
    fits.append(1)
    return original(*args)

def fatal(self, batch, batch_idx):
    if len(fits) == 4 and self.current_epoch == 1 and batch_idx == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)

isic.engine.fold._fit, LesionClassifier.training_step = counted, fatal
"""
NOTHING = """
import isic.engine.fold
def build_classifier(*args):
    raise AssertionError("a finished job builds a network")
isic.engine.fold.build_classifier = build_classifier
"""


@pytest.fixture
def arguments(milk32: Path) -> list[str]:
    kept = [word for word in TINY if not word.startswith(("split.n_folds", "trainer.max_epochs"))]
    three = ["split.n_folds=3", "trainer.max_epochs=2"]
    return [*kept, *three, "data=milk10k", f"data.root={milk32}"]


def times(runs: Path) -> dict[Path, int]:
    """When each file of a fold's folder was written; its lock is none of them."""
    files = [p for p in runs.glob("milk10k-*/fold*/**/*") if p.is_file() and p.name != ".lock"]
    return {p: p.stat().st_mtime_ns for p in files}


@pytest.mark.slow
def test_a_grid_killed_in_its_fourth_job_goes_on(
    commands: ForkServer, arguments: list[str], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    env = {"ISIC_RUNS_ROOT": str(runs)}
    killed = commands.start("train.py", *arguments, *GRID, env=env, prelude=FOURTH)
    assert killed.wait(400) == -9, killed.text
    finished = [p.parent for p in runs.glob("milk10k-*/fold*/score.json")]
    assert len(finished) == 3
    (fourth,) = {p.parent for p in runs.glob("milk10k-*/fold*/config.yaml")} - set(finished)
    before = times(runs)

    code, text = commands.run("train.py", *arguments, *GRID, env=env, timeout=400)
    assert code == 0, text
    assert "resuming after epoch 1 of 2" in text
    assert len(list(runs.glob("milk10k-*/fold*/score.json"))) == 6
    assert len([line for line in text.splitlines() if " done " in line]) == 6
    after = times(runs)
    for fold in finished:
        own = [path for path in before if fold in path.parents]
        assert own
        assert {path: after[path] for path in own} == {path: before[path] for path in own}

    alone = {"ISIC_RUNS_ROOT": str(tmp_path / "alone")}
    words = ["fold=1", "optim.optimizer.lr=1e-4"]
    code, text = commands.run("train.py", *arguments, *words, env=alone)
    assert code == 0, text
    whole = tmp_path / "alone" / fourth.relative_to(runs)
    keys = ("epoch", "global_step", "state_dict", "current_model_state", "optimizer_states")
    ours, theirs = (read(f / "checkpoints/last.ckpt") for f in (fourth, whole))
    for key in keys:
        assert_same(ours[key], theirs[key], key)
    assert read_predictions(fourth / "oof.parquet").equals(read_predictions(whole / "oof.parquet"))

    code, text = commands.run("train.py", *arguments, *GRID, env=env, prelude=NOTHING)
    assert code == 0, text
    assert times(runs) == after
