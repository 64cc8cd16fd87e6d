"""How commands end: exit codes, what the last lines say, and what two at once do."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from isic.training.checkpoint import read
from tests.commands import ROOT, ForkServer

# Waits for the test's signal in the first batch, or in the first batch that is predicted.
PAUSE = """
import time
from isic.training.module import LesionClassifier
def pause(self, batch, batch_idx):
    print("paused", flush=True)
    while True:
        time.sleep(0.01)
LesionClassifier.%s = pause
"""
HOLD = """
import os, time
from isic.training.module import LesionClassifier
original = LesionClassifier.training_step
def held(self, batch, batch_idx):
    print("paused", flush=True)
    while not os.path.exists(%r):
        time.sleep(0.01)
    return original(self, batch, batch_idx)
LesionClassifier.training_step = held
"""
PACKING = """
import os, time
import isic.images.pack as pack
original = pack._converted
def held(*args):
    print("packing", flush=True)
    while not os.path.exists(%r):
        time.sleep(0.01)
    return original(*args)
pack._converted = held
"""
FULL = """
import errno, os
import isic.training.checkpoint as checkpoint
from isic.training.checkpoint import AtomicCheckpointIO, torch
def full(content, file):
    file.write(b"PK" + bytes(1000))
    raise %s
save, calls, original = torch.save, [], AtomicCheckpointIO.save_checkpoint
def counted(*args, **kwargs):
    calls.append(0)
    torch.save = full if len(calls) == 3 else save
    return original(*args, **kwargs)
AtomicCheckpointIO.save_checkpoint = counted
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ISIC_RUNS_ROOT": str(tmp_path / "runs")}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["training_step", "predict_step"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals(
    commands: ForkServer, tiny: list[str], env: dict[str, str], step: str, number: int, code: int
) -> None:
    command = commands.start("train.py", *tiny, env=env, prelude=PAUSE % step)
    command.wait_for("paused")
    command.signal(number)
    assert command.wait(60) == code
    assert "the same command goes on from the last epoch on disk" in command.text
    assert "Traceback" not in command.text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_whole_multirun(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path, number: int
) -> None:
    prelude = PAUSE % "training_step"
    command = commands.start("train.py", "-m", "fold=0,1", *tiny, env=env, prelude=prelude)
    command.wait_for("paused")
    command.signal(number)
    assert command.wait(60) == 128 + number
    assert not list((tmp_path / "runs").glob("*/fold1"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("modle=x", ["modle", "Did you mean model"]),
        ("data.batchsize=3", ["data.batchsize", "data.batch_size"]),
        ("model=effnet", ["model=effnet", "no such choice", "effnetv2"]),
        ("fold=2", ["expected 0..1 or all", "got 2", "splits", "split.n_folds=2"]),
        ("fold=first", ["fold", "first"]),
        ("evaluate=never", ["evaluate", "last or best", "never"]),
        ("trainer.max_epoch=3", ["trainer.max_epoch", "trainer.max_epochs"]),
        ("data.cache=disk", ["data.cache", "bytes or pixels", "disk"]),
        ("name=../up", ["name", "../up"]),
    ],
)
def test_a_wrong_command_line_is_2(
    commands: ForkServer, tiny: list[str], env: dict[str, str], wrong: str, words: list[str]
) -> None:
    code, text = commands.run("train.py", *tiny, wrong, env=env)
    assert code == 2, text
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert not list(Path(env["ISIC_RUNS_ROOT"]).glob("*/fold*")), "a run was begun"


@pytest.mark.parametrize("words", [["train.py"], ["isic", "stack", "runs=[none]"]])
def test_a_name_is_refused_before_the_archive_is_read(
    commands: ForkServer, env: dict[str, str], words: list[str]
) -> None:
    code, text = commands.run(*words, "data.root=/nowhere", 'name="peau é"', env=env)
    assert code == 2, text
    assert "error: name: expected letters a to z" in text and "nowhere" not in text


@pytest.mark.slow
def test_another_config_under_a_name_is_2(
    commands: ForkServer, tiny: list[str], env: dict[str, str]
) -> None:
    named = ["train.py", *tiny, "name=mine", "trainer.max_epochs=1"]
    assert commands.run(*named, env=env)[0] == 0
    code, text = commands.run(*named, "seed=3", "optim.optimizer.lr=0.1", env=env)
    assert code == 2, text
    assert "seed: 0 -> 3" in text
    assert "optim.optimizer.lr: 0.0003 -> 0.1" in text
    assert "overwrite=true" in text
    assert commands.run(*named, "data.num_workers=1", env=env)[0] == 0, "hardware is no experiment"


def test_data_at_fault_is_3(
    commands: ForkServer, tiny: list[str], tiny_archive: Path, env: dict[str, str], tmp_path: Path
) -> None:
    code, text = commands.run("train.py", *tiny, "data.root=absent", env=env)
    assert code == 3, text
    assert str((ROOT / "absent").resolve()) in text
    root = tmp_path / "archive"
    root.mkdir()
    table = (tiny_archive / "train-metadata.csv").read_text().splitlines()
    (root / "train-metadata.csv").write_text("\n".join([*table, table[1]]))
    shutil.copy(tiny_archive / "train-image.hdf5", root)
    code, text = commands.run("train.py", *tiny, f"data.root={root}", env=env)
    assert code == 3, text
    assert table[1].split(",")[0] in text
    assert commands.run("isic", "check", f"data.root={root}", env=env)[0] == 3


def test_a_refused_checkpoint_is_4(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes(b"PK\x03\x04" + bytes(100))
    code, text = commands.run("predict.py", f"ckpt={torn}", env=env)
    assert code == 4, text
    assert str(torn) in text
    assert commands.run("predict.py", f"ckpt={tmp_path}/none.ckpt", env=env)[0] == 4


@pytest.mark.slow
def test_a_multirun_goes_on_and_tells_which_job_failed(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path
) -> None:
    arguments = [*tiny, "trainer.max_epochs=1"]
    code, text = commands.run("train.py", "-m", "fold=7,0", *arguments, env=env)
    assert code == 1, text
    table = text.strip().splitlines()[-2:]
    assert "fold=7" in table[0] and "failed (2)" in table[0]
    assert "fold=0" in table[1] and "done" in table[1] and "pAUC" in table[1]
    assert len(list((tmp_path / "runs").glob("*/fold*/score.json"))) == 1


@pytest.mark.parametrize(
    "fault",
    [
        'OSError(errno.ENOSPC, "No space left on device")',
        pytest.param(
            'RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_full_disk_keeps_the_old_checkpoint(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path, fault: str
) -> None:
    code, text = commands.run("train.py", *tiny, env=env, prelude=FULL % fault)
    assert code == 1, text
    assert "Free some space" in text and "the same command again" in text
    assert "Traceback" not in text
    folder = next((tmp_path / "runs").glob("*/fold0/checkpoints"))
    assert {p.name for p in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert read(folder / "last.ckpt")["epoch"] == 0
    assert commands.run("train.py", *tiny, env=env)[0] == 0


def test_ctrl_c_while_a_checkpoint_is_written_is_no_full_disk(
    commands: ForkServer, tiny: list[str], env: dict[str, str]
) -> None:
    fault = """KeyboardInterrupt
def interrupted(content, file):
    try:
        raise KeyboardInterrupt
    finally:  # as torch's writer closes its archive
        raise RuntimeError("unexpected pos 124749568 vs 124749456")
full = interrupted"""
    code, text = commands.run("train.py", *tiny, env=env, prelude=FULL % fault)
    assert code == 130, text
    assert "goes on from the last epoch on disk" in text
    assert "free some space" not in text.lower()


@pytest.mark.parametrize("variable", ["ISIC_RUNS_ROOT", "ISIC_CACHE_ROOT"])
def test_a_place_that_cannot_be_written_is_named(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path, variable: str
) -> None:
    (tmp_path / "file").touch()
    blocked = {**env, variable: str(tmp_path / "file" / "in")}
    code, text = commands.run("train.py", *tiny, env=blocked)
    assert code == 1, text
    assert str(tmp_path / "file") in text and variable in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_two_commands_at_once_train_once(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    first = commands.start("train.py", *tiny, env=env, prelude=HOLD % str(go))
    first.wait_for("paused")
    second = commands.start("train.py", *tiny, env=env)
    second.wait_for("waiting for another process that is training")
    go.touch()
    assert first.wait() == 0, first.text
    assert second.wait() == 0, second.text
    assert "pAUC" in second.text
    assert "epoch" not in second.text


@pytest.mark.slow
def test_one_of_two_commands_takes_over_from_a_killed_one(
    commands: ForkServer, tiny: list[str], env: dict[str, str]
) -> None:
    first = commands.start("train.py", *tiny, env=env, prelude=PAUSE % "training_step")
    first.wait_for("paused")
    second = commands.start("train.py", *tiny, env=env)
    second.wait_for("waiting for another process that is training")
    first.signal()
    assert second.wait() == 0, second.text
    assert "epoch 3/3" in second.text


@pytest.mark.slow
def test_five_folds_at_once_on_a_cold_cache(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path
) -> None:
    env["ISIC_CACHE_ROOT"] = str(tmp_path / "cache")
    go = tmp_path / "go"
    arguments = [*tiny, "split.n_folds=5", "trainer.max_epochs=1", "name=five"]
    started = [
        commands.start("train.py", *arguments, f"fold={k}", env=env, prelude=PACKING % str(go))
        for k in range(5)
    ]
    end = time.monotonic() + 120
    while sum("for another process that is packing" in c.text for c in started) < 4:
        assert time.monotonic() < end, [c.text for c in started]
        time.sleep(0.05)
    assert sum("packing\n" in c.text.replace("is packing", "") for c in started) == 1
    go.touch()
    for command in started:
        assert command.wait() == 0, command.text
    assert (tmp_path / "runs/five/score.json").exists(), "the last of them puts the run together"
    assert not list((tmp_path / "cache").glob(".*partial"))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_file_system_that_is_full(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(runs)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        code, text = commands.run("train.py", *tiny, env=env)
        assert code == 1, text
        assert "space" in text
        assert "Traceback" not in text
        for path in runs.glob("*/fold0/checkpoints/*.ckpt"):
            assert read(path)["epoch"] >= 0
        subprocess.run(["mount", "-o", "remount,size=100m", str(runs)], check=True)
        assert commands.run("train.py", *tiny, env=env)[0] == 0
    finally:
        subprocess.run(["umount", str(runs)], check=True)
