"""A run that was killed, whenever and however often, ends where an uninterrupted one ends.

Bit for bit on one CPU process: averaged and live weights, optimizer, out-of-fold table.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from isic.files import PREFIX
from isic.predictions import read_score
from isic.training.checkpoint import read
from tests.commands import ROOT, ForkServer
from tests.killed import MOMENTS, PRELUDE, Experiment, assert_same, assert_same_end

NAIVE = {  # each measure of an exact resume taken away, as plain Lightning has it
    "no seed of each epoch": (
        "from isic.training.callbacks import EpochSeed; EpochSeed.on_train_epoch_start = "
        "lambda *args: None"
    ),
    "no generator of the loader's own": """
import isic.data.loader as module
class Shared(module.BatchLoader):
    def __init__(self, *args, generator=None, **options):
        super().__init__(*args, **options)
module.BatchLoader = Shared
""",
    "no next epoch in the checkpoint": """
from isic.data import LesionDataModule
from isic.data.loader import BatchLoader, DataLoader
LesionDataModule.load_state_dict = lambda *args: None
# Ours draws no batch before it is asked for one, which alone would do.
BatchLoader.__iter__ = DataLoader.__iter__
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
    [(0, 0)]
    + [
        pytest.param(seed, 2 * (seed % 2) if seed > 1 else 0, marks=pytest.mark.slow)
        for seed in range(1, 12)
    ],
)
def test_killed_at_random(whole: Any, experiment: Experiment, seed: int, workers: int) -> None:
    uninterrupted, seconds = whole
    experiment.arguments = [*experiment.arguments, f"data.num_workers={workers}"]
    experiment.die_after(random.Random(seed).uniform(0.2, 0.9) * seconds)
    experiment.finish()
    assert_same_end(experiment, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
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
@pytest.mark.parametrize(
    "choice", ["mixing=mixup_cutmix", "sampler=class_balanced", "finetune=gradual"]
)
def test_killed_with_other_random_draws(
    commands: ForkServer, tiny: list[str], tmp_path: Path, choice: str
) -> None:
    arguments = [a for a in tiny if not a.startswith("sampler")] + [choice]
    whole = Experiment(commands, arguments, tmp_path / "whole")
    whole.finish()
    killed = Experiment(commands, arguments, tmp_path / "killed")
    killed.die("in the middle of an epoch")
    killed.finish()
    assert_same_end(killed, whole)


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "workers"),
    [
        ("no seed of each epoch", 0),
        ("no generator of the loader's own", 0),
        ("no next epoch in the checkpoint", 2),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "smaller", "said"),
    [
        (
            "half of last.ckpt written",
            ["data.batch_size=4", "trainer.accumulate_grad_batches=2"],
            "batches of 4 x 2 in place of 8 x 1: the same experiment",
        ),
        (
            "trained, nothing predicted",
            ["data.batch_size=3"],
            "is trained, in batches of 8, and only the prediction is left",
        ),
    ],
)
def test_out_of_memory_goes_on_in_smaller_batches(
    commands: ForkServer,
    tiny: list[str],
    tmp_path: Path,
    moment: str,
    smaller: list[str],
    said: str,
) -> None:
    """Nameless, and found again. An epoch is 8 steps and 6 images: one step more in halves."""
    arguments = [a for a in tiny if not a.startswith("sampler")] + ["data.samples_per_epoch=70"]
    experiment = Experiment(commands, arguments, tmp_path / "runs")
    experiment.die(moment)
    before = read(experiment.fold / "checkpoints/last.ckpt")
    experiment.arguments = [*arguments, *smaller]
    assert said in experiment.finish()
    assert len(list((tmp_path / "runs").glob("isic2024-*"))) == 1
    after = read(experiment.fold / "checkpoints/last.ckpt")
    assert (before["epoch"] + 1, after["epoch"] + 1) == (1 if len(smaller) > 1 else 3, 3)
    for done in (before, after):
        assert done["global_step"] == 8 * (done["epoch"] + 1)
        assert done["lr_schedulers"][0]["last_epoch"] == done["global_step"]
    assert after["lr_schedulers"][0]["_last_lr"][0] == pytest.approx(3e-4 * 0.01, rel=0.01)
    again = experiment.finish()
    assert "finished on" in again
