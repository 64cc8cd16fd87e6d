"""Two CPU processes: every image once, the scores of one process, and nobody left behind.

The runs here start real processes through `torch.distributed.run`; what they share with the
command that started them is the frozen config alone.
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DistributedSampler

from isic.data.sampler import SequentialBatches
from isic.metrics.classification import roc_auc
from isic.metrics.partial_auc import partial_auc
from isic.predictions import read_predictions, read_score
from isic.training import epoch_metric
from isic.training.checkpoint import read
from isic.training.epoch_metric import EpochOutputs
from tests.commands import Command, ForkServer

GRACE = 45  # seconds that torchrun may take to end its ranks; it kills after 30


@dataclass
class Process:
    """A running process as /proc shows it."""

    pid: int
    command: str


def processes_of(runs: Path) -> list[Process]:
    """Every process whose environment names this runs folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(runs).encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(Process(int(folder.name), command))
        except OSError:
            continue  # gone since, or another user's
    return [p for p in found if p.command]


def ranks_of(runs: Path) -> list[Process]:
    found = processes_of(runs)
    return [p for p in found if "isic.engine" in p.command and "distributed.run" not in p.command]


def wait_until_nobody_is_left(runs: Path) -> None:
    end = time.monotonic() + GRACE
    while left := processes_of(runs):
        assert time.monotonic() < end, left
        time.sleep(0.2)


@dataclass
class Sweep:
    """`-m fold=0,1` on two processes, and one process on the same command line."""

    runs: Path
    text: str
    frozen: set[str]  # config files that ranks were seen with, one for each rank seen

    @property
    def run(self) -> Path:
        return next(p.parent for p in self.runs.glob("*/fold0"))


@pytest.fixture(scope="module")
def sweep(
    commands: ForkServer, tiny: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sweep]:
    runs = tmp_path_factory.mktemp("ddp") / "runs"
    arguments = ["train.py", "-m", "fold=0,1", *tiny, "trainer=ddp_cpu", "trainer.max_epochs=2"]
    command = commands.start(*arguments, env={"ISIC_RUNS_ROOT": str(runs)})
    seen: dict[int, str] = {}
    while command.poll() is None:
        seen |= {p.pid: p.command.split()[-1] for p in ranks_of(runs)}
        time.sleep(0.2)
    assert command.poll() == 0, command.text
    yield Sweep(runs, command.text, {f"{pid} {config}" for pid, config in seen.items()})
    wait_until_nobody_is_left(runs)


@pytest.mark.parametrize("world", [2, 3])
def test_each_row_comes_once_whatever_their_number(
    world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 51):
        truth = np.arange(n) % 3 == 0
        ranks = []
        for rank in range(world):
            outputs = EpochOutputs()
            sampler = SequentialBatches(truth, batch_size=4, rank=rank, world_size=world)
            for _, positions in sampler:
                row = torch.from_numpy(positions)
                target = torch.from_numpy(truth[positions].astype(int))
                outputs.add({"row": row, "target": target}, row[:, None].float() / 10)
            ranks.append(outputs)
        assert len({len(r.row) for r in ranks}) == 1, "ranks with fewer batches hang the others"
        gathered = iter(
            [
                torch.cat([torch.cat(getattr(r, part)) for r in ranks])
                for part in ("row", "target", "logits")
            ]
        )
        monkeypatch.setattr(epoch_metric, "_all_ranks", lambda tensor, g=gathered: next(g))
        epoch = ranks[0].gather("sigmoid")
        assert epoch.row.tolist() == list(range(n))
        assert epoch.target.tolist() == truth.tolist()
        expected = 1 / (1 + np.exp(-torch.arange(n).div(10).numpy().astype(float)))
        np.testing.assert_allclose(epoch.probs[:, 1], expected, rtol=1e-6)


def test_naive_torchs_own_sampler_repeats_rows() -> None:
    rows = [i for r in range(2) for i in DistributedSampler(range(37), 2, r, shuffle=False)]
    assert len(rows) == 38


@pytest.mark.slow
def test_two_folds_are_two_runs_of_two_ranks(sweep: Sweep) -> None:
    configs = sorted(line.split()[1] for line in sweep.frozen)
    assert [Path(c).parent.name for c in configs] == ["fold0", "fold0", "fold1", "fold1"]
    assert {p.name for p in sweep.runs.glob("[!.]*")} == {"splits", sweep.run.name}
    assert {p.name for p in sweep.run.glob("fold*")} == {"fold0", "fold1"}
    for fold in (0, 1):
        last = read(sweep.run / f"fold{fold}/checkpoints/last.ckpt")
        assert last["isic"]["config"]["fold"] == fold
        assert last["epoch"] == 1
    assert sweep.text.count("epoch 1/2") == 2, "the second rank speaks too"


@pytest.mark.slow
def test_nobody_is_left(sweep: Sweep) -> None:
    assert processes_of(sweep.runs) == []


@pytest.mark.slow
def test_every_id_is_predicted_once(sweep: Sweep, tiny_archive: Path) -> None:
    train = pd.read_csv(tiny_archive / "train-metadata.csv", low_memory=False)["isic_id"]
    test = pd.read_csv(tiny_archive / "test-metadata.csv")["isic_id"]
    folds = [read_predictions(sweep.run / f"fold{k}/oof.parquet") for k in (0, 1)]
    assert {len(f) % 2 for f in folds} == {0, 1}, "one of the folds must have an odd number of rows"
    assert sorted(pd.concat(folds)["image_id"]) == sorted(train)
    assert sorted(read_predictions(sweep.run / "oof.parquet")["image_id"]) == sorted(train)
    for path in ("fold0/test.parquet", "fold1/test.parquet", "test.parquet"):
        frame = read_predictions(sweep.run / path)
        assert frame["image_id"].tolist() == test.tolist()
        assert frame["prob_malignant"].notna().all()


@pytest.mark.slow
def test_one_process_gives_the_same_scores(
    sweep: Sweep, commands: ForkServer, tiny_archive: Path, tmp_path: Path
) -> None:
    code, text = commands.run(
        "predict.py",
        f"ckpt={sweep.run / 'fold0/checkpoints/last.ckpt'}",
        "split=train",
        "trainer=cpu",
        f"output={tmp_path}",
        env={"ISIC_RUNS_ROOT": str(sweep.runs)},
    )
    assert code == 0, text
    two = read_predictions(sweep.run / "fold0/oof.parquet").set_index("image_id")
    one = read_predictions(tmp_path / "predictions.parquet").set_index("image_id").loc[two.index]
    np.testing.assert_allclose(one["prob_malignant"], two["prob_malignant"], rtol=0, atol=1e-6)
    table = pd.read_csv(tiny_archive / "train-metadata.csv", low_memory=False)
    target = table.set_index("isic_id")["target"].loc[two.index].to_numpy()
    stored = read_score(sweep.run / "fold0/score.json")["metrics"]
    score = one["prob_malignant"].to_numpy()
    assert stored["auc"]["value"] == pytest.approx(roc_auc(target, score), abs=1e-6)
    assert stored["pauc"]["value"] == pytest.approx(partial_auc(target, score), abs=1e-6)


@pytest.mark.slow
def test_ranks_validate_the_weights_that_are_saved(sweep: Sweep, tiny_archive: Path) -> None:
    """Batch-norm statistics differ between ranks; validation must use those of the checkpoint."""
    frames = {k: read_predictions(sweep.run / f"fold{k}/oof.parquet") for k in (0, 1)}
    even, frame = next((k, f) for k, f in frames.items() if len(f) % 2 == 0)  # no row twice
    table = pd.read_csv(sweep.run / f"fold{even}/metrics.csv")
    logged = table[table["name"] == "val/loss"]["value"].iloc[-1]
    train = pd.read_csv(tiny_archive / "train-metadata.csv", low_memory=False)
    target = train.set_index("isic_id")["target"].loc[frame["image_id"]].to_numpy()
    probs = np.where(target == 1, frame["prob_malignant"], frame["prob_benign"])
    assert logged == pytest.approx(-np.log(probs).mean(), abs=1e-5)


def start_long(commands: ForkServer, tiny: list[str], runs: Path) -> Command:
    """A training on two processes that goes on until something ends it."""
    arguments = [*tiny, "trainer=ddp_cpu", "trainer.max_epochs=5000"]
    command = commands.start("train.py", *arguments, env={"ISIC_RUNS_ROOT": str(runs)})
    command.wait_for("epoch 2/5000")
    assert len(ranks_of(runs)) == 2
    return command


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_signal_to_the_command_ends_its_ranks(
    commands: ForkServer, tiny: list[str], tmp_path: Path, number: int, code: int
) -> None:
    command = start_long(commands, tiny, tmp_path)
    command.signal(number)
    assert command.wait(GRACE) == code
    wait_until_nobody_is_left(tmp_path)
    for path in tmp_path.glob("*/fold0/checkpoints/[!.]*.ckpt"):
        assert read(path)["epoch"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank", "launcher"])
def test_a_killed_rank_or_launcher_ends_the_run(
    commands: ForkServer, tiny: list[str], tmp_path: Path, victim: str
) -> None:
    command = start_long(commands, tiny, tmp_path)
    launchers = [p for p in processes_of(tmp_path) if "torch.distributed.run" in p.command]
    assert len(launchers) == 1
    os.kill((ranks_of(tmp_path)[-1] if victim == "rank" else launchers[0]).pid, signal.SIGKILL)
    assert command.wait(GRACE) == 1
    assert "one of 2 processes failed" in command.text
    wait_until_nobody_is_left(tmp_path)


@pytest.mark.slow
def test_a_failing_rank_ends_the_other_before_they_meet(
    commands: ForkServer, tiny: list[str], tmp_path: Path
) -> None:
    """A rank that waits in the rendezvous for a dead one listens to no Python handler."""
    (tmp_path / "stuck/fold0/.tmp-1").mkdir(parents=True)  # the first rank cannot remove it
    env = {"ISIC_RUNS_ROOT": str(tmp_path)}
    command = commands.start("train.py", *tiny, "trainer=ddp_cpu", "name=stuck", env=env)
    assert command.wait(GRACE) == 1
    assert "one of 2 processes failed" in command.text
    assert "forcefully exiting" not in command.text
    wait_until_nobody_is_left(tmp_path)


@pytest.mark.slow
def test_a_killed_run_is_resumed(
    commands: ForkServer, tiny: list[str], tmp_path: Path, sweep: Sweep
) -> None:
    arguments = [*tiny, "trainer=ddp_cpu", "trainer.max_epochs=2"]
    env = {"ISIC_RUNS_ROOT": str(tmp_path)}
    command = commands.start("train.py", *arguments, env=env)
    command.wait_for("epoch 1/2")
    command.signal()
    command.wait()
    wait_until_nobody_is_left(tmp_path)
    code, text = commands.run("train.py", *arguments, env=env)
    assert code == 0, text
    ours = read_predictions(next(tmp_path.glob("*/fold0/oof.parquet")))
    theirs = read_predictions(sweep.run / "fold0/oof.parquet")
    np.testing.assert_allclose(ours["prob_malignant"], theirs["prob_malignant"], atol=1e-6)


@pytest.mark.slow
def test_a_torn_checkpoint_is_refused_before_ranks_start(
    commands: ForkServer, tiny: list[str], tmp_path: Path
) -> None:
    env = {"ISIC_RUNS_ROOT": str(tmp_path)}
    arguments = [*tiny, "trainer=ddp_cpu", "trainer.max_epochs=1", "name=torn"]
    folder = tmp_path / "torn/fold0/checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes(b"PK\x03\x04" + bytes(50))
    code, text = commands.run("train.py", *arguments, env=env)
    assert code == 4, text


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(
    commands: ForkServer, tiny: list[str], tmp_path: Path
) -> None:
    """Without batch norm and dropout the gradients of two half batches are those of the whole."""
    plain = ["model.backbone=test_convnext.r160_in1k", "model.dropout=0", "trainer.max_epochs=2"]
    states = {}
    for trainer in ("cpu", "ddp_cpu"):
        env = {"ISIC_RUNS_ROOT": str(tmp_path / trainer)}
        code, text = commands.run("train.py", *tiny, *plain, f"trainer={trainer}", env=env)
        assert code == 0, text
        states[trainer] = read(next((tmp_path / trainer).glob("*/fold0/checkpoints/last.ckpt")))
    for key in ("state_dict", "current_model_state"):
        for name, tensor in states["cpu"][key].items():
            torch.testing.assert_close(
                tensor, states["ddp_cpu"][key][name], rtol=1e-3, atol=1e-5, msg=name
            )
