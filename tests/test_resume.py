"""A run that was killed, whenever and however often, ends where an uninterrupted one ends.

Bit for bit on one CPU process: averaged and live weights, optimizer, out-of-fold table.
"""

import csv
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from isic.predictions import read_predictions, read_score
from isic.runs import PREFIX
from isic.training.checkpoint import read
from tests.commands import ROOT, ForkServer

PRELUDE = """
import os, signal
import isic.engine.fold
from isic.training.checkpoint import AtomicCheckpointIO
from isic.training.module import LesionClassifier

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def before_call(number, owner, name, do, of=""):
    original, calls = getattr(owner, name), []
    def counted(*args, **kwargs):
        if of in str(args[2:]):
            calls.append(name)
        if len(calls) == number:
            do()
        return original(*args, **kwargs)
    setattr(owner, name, counted)

def tear_the_next_file():
    os.fsync = lambda fd: (os.ftruncate(fd, 5000), die())
"""
MOMENTS = {
    "in the first epoch": "before_call(2, LesionClassifier, 'training_step', die)",
    "validated, not saved": "before_call(1, AtomicCheckpointIO, 'save_checkpoint', die)",
    "in the middle of an epoch": "before_call(7, LesionClassifier, 'training_step', die)",
    "half of last.ckpt written": (
        "before_call(2, AtomicCheckpointIO, 'save_checkpoint', tear_the_next_file, 'last.ckpt')"
    ),
    "trained, nothing predicted": "before_call(1, LesionClassifier, 'predict_step', die)",
    "half of oof.parquet written": (
        "before_call(1, isic.engine.fold, 'write_predictions', tear_the_next_file)"
    ),
    "predicted, not scored": "before_call(1, isic.engine.fold, 'write_score', die)",
}
SOON = ("validated, not saved", "half of last.ckpt written", "half of oof.parquet written")
NAIVE = {  # each measure of an exact resume taken away, as plain Lightning has it
    "no seed of each epoch": (
        "from isic.training.callbacks import EpochSeed; EpochSeed.on_train_epoch_start = "
        "lambda *args: None"
    ),
    "no generator of the loader's own": """
import isic.data.datamodule as module
class Shared(module.DataLoader):
    def __init__(self, *args, generator=None, **options):
        super().__init__(*args, **options)
module.DataLoader = Shared
""",
    "no next epoch in the checkpoint": """
from isic.data import LesionDataModule
LesionDataModule.load_state_dict = lambda *args: None
""",
}
BATCHES = """
import hashlib
from isic.training.module import LesionClassifier
original = LesionClassifier.training_step
def noted(self, batch, batch_idx):
    pixels = hashlib.sha256(batch["image"].contiguous().numpy().tobytes()).hexdigest()[:12]
    line = f"{self.current_epoch} {batch_idx} {batch['row'].tolist()} {pixels}"
    with open(%r, "a") as file:
        file.write(line + chr(10))
    return original(self, batch, batch_idx)
LesionClassifier.training_step = noted
"""


def moments() -> list[Any]:
    return [pytest.param(m, marks=() if m in SOON else pytest.mark.slow, id=m) for m in MOMENTS]


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal bits, all the way down."""
    if isinstance(ours, Mapping):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), f"{where} differs"
    else:
        assert ours == theirs, f"{where}: {ours} and {theirs}"


@dataclass
class Experiment:
    """One command line with runs of its own."""

    commands: ForkServer
    arguments: list[str]
    runs: Path

    def __post_init__(self) -> None:
        self.env = {"ISIC_RUNS_ROOT": str(self.runs)}

    @property
    def fold(self) -> Path:
        return next(self.runs.glob("*/fold0"))

    def finish(self) -> str:
        """Type the command until its end; the output."""
        code, text = self.commands.run("train.py", *self.arguments, env=self.env)
        assert code == 0, text
        return text

    def start(self, prelude: str = "") -> Any:
        return self.commands.start("train.py", *self.arguments, env=self.env, prelude=prelude)

    def die(self, moment: str) -> None:
        """Type the command and be killed at a moment."""
        command = self.start(PRELUDE + MOMENTS[moment])
        assert command.wait() == -9, command.text
        self.check_checkpoints()

    def die_after(self, delay: float) -> None:
        """Type the command and kill it after a while; sooner where it was faster than that."""
        while True:
            command = self.start()
            time.sleep(delay)
            if command.poll() is None:
                break
            shutil.rmtree(self.runs)
            delay *= 0.8
        command.signal()
        assert command.wait() == -9
        self.check_checkpoints()

    def check_checkpoints(self) -> None:
        for path in self.runs.glob("*/fold0/checkpoints/[!.]*.ckpt"):
            assert read(path)["epoch"] >= 0

    def outcome(self) -> dict[str, Any]:
        last = read(self.fold / "checkpoints/last.ckpt")
        keys = ("epoch", "global_step", "state_dict", "current_model_state", "averaging_state")
        return {k: last[k] for k in (*keys, "optimizer_states", "lr_schedulers")}

    def metrics(self) -> list[list[str]]:
        return list(csv.reader((self.fold / "metrics.csv").read_text().splitlines()))

    def oof(self) -> pd.DataFrame:
        return read_predictions(self.fold / "oof.parquet")


def assert_same_end(killed: Experiment, whole: Experiment) -> None:
    assert_same(killed.outcome(), whole.outcome())
    pd.testing.assert_frame_equal(killed.oof(), whole.oof(), check_exact=True)
    assert (
        read_score(killed.fold / "score.json")["metrics"]
        == read_score(whole.fold / "score.json")["metrics"]
    )
    assert killed.metrics() == whole.metrics()
    assert not list(killed.runs.rglob(f"{PREFIX}*"))


@pytest.fixture(scope="module")
def whole(commands: ForkServer, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The uninterrupted run, and the seconds that it took."""
    experiment = Experiment(commands, tiny, tmp_path_factory.mktemp("whole"))
    experiment.finish()  # packs the images; the one below is as fast as those to be killed
    again = Experiment(commands, tiny, tmp_path_factory.mktemp("whole"))
    started = time.monotonic()
    again.finish()
    assert_same_end(again, experiment)
    return again, time.monotonic() - started


@pytest.fixture
def experiment(commands: ForkServer, tiny: list[str], tmp_path: Path) -> Experiment:
    return Experiment(commands, tiny, tmp_path / "runs")


@pytest.mark.parametrize(
    ("seed", "workers"),
    [(0, 0), (1, 0)]
    + [pytest.param(seed, 2 * (seed % 2), marks=pytest.mark.slow) for seed in range(2, 12)],
)
def test_killed_at_random(whole: Any, experiment: Experiment, seed: int, workers: int) -> None:
    uninterrupted, seconds = whole
    experiment.arguments = [*experiment.arguments, f"data.num_workers={workers}"]
    experiment.die_after(random.Random(seed).uniform(0.2, 0.9) * seconds)
    experiment.finish()
    assert_same_end(experiment, uninterrupted)


@pytest.mark.parametrize("moment", moments())
def test_killed_at_the_worst_moment(whole: Any, experiment: Experiment, moment: str) -> None:
    experiment.die(moment)
    if "half" in moment:
        assert list(experiment.runs.rglob(f"{PREFIX}*")), "nothing was being written"
    if (table := experiment.fold / "metrics.csv").exists():
        table.write_text(table.read_text() + "2,9,val/pa")  # a torn line
    experiment.finish()
    assert_same_end(experiment, whole[0])
    score = read_score(experiment.fold / "score.json")
    assert score["images_per_second"] > 0
    assert score["seconds"] >= score["train_seconds"] > 0


@pytest.mark.slow
def test_killed_and_resumed_by_real_commands(whole: Any, experiment: Experiment) -> None:
    """Not forks of one process: another hash seed, other addresses."""
    command = [sys.executable, "train.py", *experiment.arguments]
    env = {**os.environ, **experiment.env}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    while not list(experiment.runs.glob("*/fold0/checkpoints/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
    assert_same_end(experiment, whole[0])


def test_killed_again_while_resuming(whole: Any, experiment: Experiment) -> None:
    experiment.die("in the middle of an epoch")
    before = read(experiment.fold / "checkpoints/last.ckpt")["epoch"]
    experiment.die("in the middle of an epoch")
    assert read(experiment.fold / "checkpoints/last.ckpt")["epoch"] > before
    text = experiment.finish()
    assert "resuming after epoch 2 of 3" in text
    assert_same_end(experiment, whole[0])


def test_a_finished_run_prints_its_score_and_trains_nothing(whole: Any) -> None:
    experiment = whole[0]
    before = {p: p.stat().st_mtime_ns for p in experiment.fold.rglob("*") if p.is_file()}
    text = experiment.finish()
    assert "pAUC" in text
    assert "epoch" not in text
    after = {p: p.stat().st_mtime_ns for p in experiment.fold.rglob("*") if p.is_file()}
    assert {p.name for p in before | after if before.get(p) != after.get(p)} <= {".lock"}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_epoch_sees_the_same_rows_and_pixels(
    experiment: Experiment, tmp_path: Path, commands: ForkServer, workers: int
) -> None:
    experiment.arguments = [*experiment.arguments, f"data.num_workers={workers}"]
    whole = Experiment(commands, experiment.arguments, tmp_path / "whole")
    prelude = BATCHES % str(tmp_path / "whole.txt")
    assert whole.start(prelude).wait() == 0
    prelude = BATCHES % str(tmp_path / "killed.txt")
    death = PRELUDE + MOMENTS["in the middle of an epoch"]
    assert experiment.start(prelude + death).wait() == -9
    finished = read(experiment.fold / "checkpoints/last.ckpt")["epoch"] + 1
    assert experiment.start(prelude).wait() == 0
    theirs = (tmp_path / "whole.txt").read_text().splitlines()
    ours = (tmp_path / "killed.txt").read_text().splitlines()
    cut = next(i for i, line in enumerate(ours) if line.startswith(f"{finished} "))
    resumed = [i for i, line in enumerate(ours) if line.startswith(f"{finished} 0 ")][-1]
    assert resumed > cut, "the run was not resumed in the middle of an epoch"
    assert ours[:cut] + ours[resumed:] == theirs
    assert len({line.split(" ", 2)[2] for line in theirs}) == len(theirs), "an epoch came twice"


@pytest.mark.parametrize(
    ("missing", "workers"),
    [
        ("no seed of each epoch", 0),
        pytest.param("no generator of the loader's own", 0, marks=pytest.mark.slow),
        pytest.param("no next epoch in the checkpoint", 2, marks=pytest.mark.slow),
    ],
)
def test_naive_resume_is_not_exact(
    experiment: Experiment, commands: ForkServer, tmp_path: Path, missing: str, workers: int
) -> None:
    experiment.arguments = [*experiment.arguments, f"data.num_workers={workers}"]
    whole = Experiment(commands, experiment.arguments, tmp_path / "whole")
    assert whole.start(NAIVE[missing]).wait() == 0
    death = PRELUDE + MOMENTS["in the middle of an epoch"]
    assert experiment.start(NAIVE[missing] + death).wait() == -9
    assert experiment.start(NAIVE[missing]).wait() == 0
    with pytest.raises(AssertionError, match="differs"):
        assert_same(experiment.outcome(), whole.outcome())


def test_next_epoch_of_each_checkpoint(whole: Any) -> None:
    last = read(whole[0].fold / "checkpoints/last.ckpt")
    assert last["LesionDataModule"] == {"next_epoch": 3}
    best = read(whole[0].fold / "checkpoints/best.ckpt")
    assert best["LesionDataModule"] == {"next_epoch": best["epoch"] + 1}


@pytest.mark.slow
def test_overwrite_starts_anew(experiment: Experiment) -> None:
    experiment.die("trained, nothing predicted")
    experiment.arguments = [*experiment.arguments, "overwrite=true"]
    text = experiment.finish()
    assert "resuming" not in text
    assert "epoch 1/3" in text
