"""What is handed to SLURM, and when a job is given up, without a SLURM; see tests/slurm."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from isic.cli import CONF, command
from isic.errors import ConfigError
from isic.launchers import slurm
from isic.launchers.jobs import check_folds


def options(**changes: Any) -> dict[str, Any]:
    """The yaml's, with what its interpolations give."""
    own = OmegaConf.load(CONF / "hydra/launcher/slurm.yaml")
    plain: Any = OmegaConf.to_container(own, resolve=False)
    return {**plain, "nodes": 1, "tasks_per_node": 1, "accelerator": "auto", **changes}


def test_a_gpu_a_task_and_none_on_a_cpu() -> None:
    assert slurm.parameters(options())["gpus_per_node"] == 1
    two = slurm.parameters(options(tasks_per_node=2, nodes=3))
    assert (two["ntasks_per_node"], two["gpus_per_node"], two["nodes"]) == (2, 2, 3)
    assert "gpus_per_node" not in slurm.parameters(options(accelerator="cpu"))
    assert slurm.parameters(options(tasks_per_node="auto", gpus_per_node=4))["ntasks_per_node"] == 4
    with pytest.raises(ConfigError, match="trainer.devices=4"):
        slurm.parameters(options(tasks_per_node="auto"))


@pytest.mark.parametrize("name", ["sweep", "sweep_stack", "predict"])
def test_only_trainings_are_made_of_ranks(name: str) -> None:
    one, two = slurm.parameters(options()), slurm.parameters(options(tasks_per_node=2))
    slurm.check_ranks(name, one)
    slurm.check_ranks("train", two)
    with pytest.raises(ConfigError, match=r"2 tasks .*tasks_per_node=1 .*gpus_per_node=2\. No"):
        slurm.check_ranks(name, two)


def test_what_submitit_writes_for_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    given = options(
        mem_gb=16, sbatch={"partition": "gpu", "qos": "long"}, setup=["module load cuda"]
    )
    script = _make_sbatch_string(command="x", folder=tmp_path, **slurm.parameters(given))
    for line in (
        *("#SBATCH --mem=16GB", "#SBATCH --partition=gpu", "#SBATCH --qos=long"),
        *("#SBATCH --requeue", "#SBATCH --signal=USR2@120", "#SBATCH --time=720"),
        *("export SLURM_KILL_BAD_EXIT=1", "module load cuda"),
    ):
        assert line in script.splitlines()


def test_without_slurm_it_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "fold=0,1", "hydra/launcher=slurm"])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as stop:
        command("train", "tests.launchers.task:job")
    assert stop.value.code == 2
    assert "no sbatch and srun on this machine" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", ["local", "slurm"])
def test_a_fold_that_does_not_exist_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], launcher: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "fold=0,5", f"hydra/launcher={launcher}"])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as stop:
        command("train", "tests.launchers.task:job")
    assert stop.value.code == 2
    assert "fold=5: there are folds 0 to 4" in capsys.readouterr().err


def test_folds_that_only_the_data_know_are_not_guessed() -> None:
    check_folds([{"fold": 9, "split": {"n_folds": None}}, {"fold": "all", "split": {"n_folds": 5}}])
    with pytest.raises(ConfigError, match="fold=-1"):
        check_folds([{"fold": -1, "split": {"n_folds": 5}}])


def test_a_job_is_lost_when_it_is_long_out_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    now, states = [0.0], [{"7_0": "RUNNING", "7_1": "PENDING"}]
    monkeypatch.setattr(slurm.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(slurm, "queued", lambda main: states[0])
    queue = slurm.Queue(["7_0", "7_1"])

    def after(seconds: float, answer: dict[str, str] | None) -> list[bool]:
        now[0] += seconds
        states[0] = answer
        queue.look(["fold=0", "fold=1"])
        return [queue.lost(job) for job in ("7_0", "7_1")]

    assert after(0, {"7_0": "RUNNING", "7_1": "PENDING"}) == [False, False]
    assert after(20, {"7_1": "RUNNING"}) == [False, False]
    assert after(50, None) == [False, False], "a silent controller says nothing"
    assert after(20, {"7_1": "RUNNING"}) == [True, False]
    assert after(20, {"7_0": "PENDING", "7_1": "RUNNING"}) == [False, False], "requeued by hand"


def test_nothing_comes_into_the_middle_of_a_requeue() -> None:
    calls: list[str] = []

    def requeue(number: int, frame: Any) -> None:
        calls.append("begun")
        signal.raise_signal(signal.SIGUSR2)  # SLURM sends it twice
        signal.raise_signal(signal.SIGCHLD)  # and ends the loaders
        calls.append("ended")

    def loader_died(number: int, frame: Any) -> None:
        raise RuntimeError("DataLoader worker is killed by signal")

    numbers = (signal.SIGUSR2, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    try:
        for number, handler in zip(numbers, (requeue, requeue, loader_died), strict=True):
            signal.signal(number, handler)
        asked = slurm._note_signals()
        signal.raise_signal(signal.SIGUSR2)
        assert (asked, calls) == ([signal.SIGUSR2], ["begun", "ended"])
        signal.raise_signal(signal.SIGUSR2)  # asked again where the first failed
        assert calls == ["begun", "ended"] * 2
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_squeue_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def says(text: str) -> None:
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)

    says("echo '7_0|RUNNING'; echo '7_1|PENDING'")
    assert slurm.queued("7") == {"7_0": "RUNNING", "7_1": "PENDING"}
    says("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm.queued("7") == {}
    says("echo 'Unable to contact slurm controller' >&2; exit 1")
    assert slurm.queued("7") is None
