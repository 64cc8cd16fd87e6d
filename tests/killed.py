"""One command line that is killed at chosen moments, and what is left of it afterwards."""

import csv
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from isic.files import PREFIX
from isic.predictions import read_predictions, read_score
from isic.training.checkpoint import read
from tests.commands import Command, ForkServer

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

    def start(self, prelude: str = "") -> Command:
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
                command.signal()
            if command.wait() == -9:  # it may have ended between the two
                break
            shutil.rmtree(self.runs)
            delay *= 0.8
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
