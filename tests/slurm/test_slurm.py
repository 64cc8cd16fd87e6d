"""Five folds as an array on a real SLURM, killed and requeued in the middle; two ranks of a job.

`make test-slurm` installs what is missing and runs these; without ISIC_SLURM they are skipped.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from isic.predictions import read_predictions, read_score
from tests.commands import ROOT, ForkServer
from tests.slurm.cluster import ask, cluster, wait_until

EPOCHS = 100  # longer than the seconds that SLURM waits before it kills
LONG = 400.0  # seconds: machines are busy
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif("ISIC_SLURM" not in os.environ, reason="make test-slurm"),
]


@dataclass
class Multirun:
    """A `train.py -m` that hands its jobs to SLURM, and what it said."""

    arguments: list[str]
    runs: Path
    env: dict[str, str]

    def start(self) -> None:
        words = ["-m", *self.arguments, "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"]
        self.output = self.runs.with_suffix(".txt")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "train.py", *words],
                cwd=ROOT,
                env={**os.environ, **self.env, "ISIC_RUNS_ROOT": str(self.runs)},
                stdout=output,
                stderr=output,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def log(self, job: str) -> str:
        """Output of one job of the array, over all its starts."""
        files = list(self.runs.glob(f".slurm/*_{job}_0_log.out"))
        return files[0].read_text() if files else ""

    def wait(self) -> int:
        try:
            return self.process.wait(LONG)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as env:
        yield env


@pytest.fixture(scope="module")
def arguments(tiny: list[str]) -> list[str]:
    changed = ("split.n_folds", "trainer.max_epochs", "logger")
    kept = [word for word in tiny if not word.startswith(changed)]
    return [*kept, f"trainer.max_epochs={EPOCHS}", "logger=wandb", "logger.wandb.mode=offline"]


@pytest.fixture(scope="module")
def local(
    commands: ForkServer, arguments: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same five folds without a cluster."""
    runs = tmp_path_factory.mktemp("local")
    words = [word for word in arguments if not word.startswith("logger")]
    words += ["logger=csv", "-m", "fold=0,1,2,3,4"]
    code, text = commands.run("train.py", *words, env={"ISIC_RUNS_ROOT": str(runs)}, timeout=LONG)
    assert code == 0, text
    return next(runs.glob("isic2024*"))


@pytest.fixture(scope="module")
def array(
    slurm: dict[str, str],
    arguments: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Multirun:
    """Five folds as an array: the first is requeued by the controller, the second by its signal."""
    runs = tmp_path_factory.mktemp("array") / "runs"
    multirun = Multirun([*arguments, "fold=0,1,2,3,4"], runs, slurm)
    multirun.start()
    try:
        requeue(multirun, "0", "scontrol", "requeue", "{id}")
        requeue(
            multirun, "1", "scancel", "--signal=USR2", "{id}.0"
        )  # srun's step, as before a limit
    except BaseException:
        multirun.process.kill()
        raise
    multirun.wait()
    return multirun


def requeue(multirun: Multirun, job: str, *command: str) -> None:
    """Let SLURM put a job of the array back into its queue, in the middle of its training."""
    wait_until(lambda: "epoch 2/" in multirun.log(job), LONG)
    assert f"epoch {EPOCHS}/" not in multirun.log(job), "too fast to be killed in the middle"
    (log,) = multirun.runs.glob(f".slurm/*_{job}_0_log.out")
    words = [word.format(id=log.name.removesuffix("_0_log.out")) for word in command]
    subprocess.run(words, env={**os.environ, **multirun.env}, check=True)


def test_an_array_of_five_folds_ends_well(array: Multirun) -> None:
    assert array.process.returncode == 0, array.text
    table = [line.split() for line in array.text.splitlines() if " done " in line]
    assert [row[0] for row in table] == [f"fold={k}" for k in range(5)]
    for number, row in enumerate(table):
        assert Path(row[-1]).name.endswith(f"_{number}_0_log.out")
        assert Path(row[-1]).exists()


@pytest.mark.parametrize("job", ["0", "1"])
def test_a_requeued_job_goes_on_after_its_last_epoch(array: Multirun, job: str) -> None:
    log = array.log(job)
    resumed = re.search(r"resuming after epoch (\d+) of", log)
    assert resumed, log
    before, after = log[: resumed.start()], log[resumed.start() :]
    finished = [int(k) for k in re.findall(r"epoch (\d+)/", before)]
    assert max(finished) - 1 <= int(resumed[1]) <= max(finished) + 1  # the line and the file
    assert [int(k) for k in re.findall(r"epoch (\d+)/", after)] == list(
        range(int(resumed[1]) + 1, EPOCHS + 1)
    )


def test_a_requeued_job_is_the_same_wandb_run(array: Multirun) -> None:
    fold = next(array.runs.glob("isic2024*/fold0"))
    kept = list((fold / "wandb").glob("offline-run-*"))
    assert len(kept) == 2
    assert {p.name.rpartition("-")[2] for p in kept} == {(fold / "wandb-id.txt").read_text()}


def test_scores_are_those_of_a_local_run(array: Multirun, local: Path) -> None:
    ours = next(array.runs.glob("isic2024*"))
    assert ours.name == local.name
    pd.testing.assert_frame_equal(
        read_predictions(ours / "oof.parquet"),
        read_predictions(local / "oof.parquet"),
        check_exact=True,
    )
    assert read_score(ours / "score.json")["metrics"] == read_score(local / "score.json")["metrics"]


def test_two_ranks_of_one_job_and_a_job_that_fails(
    slurm: dict[str, str], arguments: list[str], tmp_path: Path
) -> None:
    words = [*arguments, "trainer=ddp_cpu", "trainer.max_epochs=2", "fold=0", "seed=0,-1"]
    multirun = Multirun(words, tmp_path / "runs", slurm)
    multirun.start()
    assert multirun.wait() == 1, multirun.text
    assert re.search(r"seed=0 +done ", multirun.text), multirun.text
    assert re.search(r"seed=-1 +failed \(2\) +seed: expected 0 to", multirun.text), multirun.text
    assert "2 x CPU" in multirun.log("0")
    run = next(multirun.runs.glob("isic2024*"))
    assert not list(run.rglob("frozen.yaml")), "torchrun was started under srun"
    frame = read_predictions(run / "fold0/oof.parquet")
    assert frame["image_id"].is_unique
    assert len(list((run / "fold0/wandb").glob("offline-run-*"))) == 1
    wait_until(lambda: not ask({**os.environ, **slurm}, "squeue", "-h").strip(), 60)
