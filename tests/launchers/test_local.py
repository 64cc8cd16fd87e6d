"""Jobs beside each other: each its share of the machine, one that dies dies alone, a table."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from isic.cli import command
from isic.workers import part, share, slurm_start


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_a_multirun_beside_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    monkeypatch.setenv("ISIC_RUNS_ROOT", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS")
    words = ["-m", "hydra/launcher=local", "paths.cache=a,killed,failing,b"]
    monkeypatch.setattr(sys, "argv", ["runs.py", *words])
    with pytest.raises(SystemExit) as stop:
        command("runs", "tests.launchers.task:job")
    assert stop.value.code == 1
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == [
        f"paths.cache={name}" for name in ("a", "killed", "failing", "b")
    ]
    assert re.search(r"failed \(-9\) +ended without a result: SIGKILL", table[1])
    assert re.search(r"failed \(3\) +expected images, found none\. Bring some\.", table[2])
    shares = [re.search(r"done +gpu (\d) cores ([\d,]+) threads (\d+)", table[k]) for k in (0, 3)]
    assert shares[0] and shares[1]
    cores = sorted(os.sched_getaffinity(0))
    for found in shares:
        assert found
        assert found[1] in "56"
        own = [int(core) for core in found[2].split(",")]
        assert own in (list(part(cores, 0, 2)), list(part(cores, 1, 2)))
        assert int(found[3]) == len(own)
    for line in table:
        assert Path(line.split()[-1]).is_file()
    assert "Bring some" in Path(table[2].split()[-1]).read_text()


def test_jobs_read_the_configs_that_the_command_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ISIC_RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/own.yaml").write_text("defaults: [runs, _self_]\npaths: {cache: failing}\n")
    flags = ["-m", "--config-dir", os.path.relpath(tmp_path / "mine"), "-cn", "own"]
    monkeypatch.setattr(sys, "argv", ["runs.py", *flags, "hydra/launcher=local", "clean=x,y"])
    with pytest.raises(SystemExit):
        command("runs", "tests.launchers.task:job")
    table = capsys.readouterr().out
    assert table.count("expected images, found none. Bring some.") == 2, table


@pytest.mark.parametrize(
    ("n_things", "n_workers"), [(4, 2), (5, 2), (1, 3), (8, 8), (0, 2), (3, 2)]
)
def test_parts_are_disjoint_and_leave_nothing(n_things: int, n_workers: int) -> None:
    parts = [part(list(range(n_things)), k, n_workers) for k in range(n_workers)]
    if n_things >= n_workers:
        assert [thing for one in parts for thing in one] == list(range(n_things))
    assert all(parts) == (n_things > 0)


def test_a_share_leaves_the_users_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert share(0, 1).environment == {"OMP_NUM_THREADS": "3"}


def test_a_number_of_jobs_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["-m", "hydra/launcher=local", "hydra.launcher.n_jobs=0", f"paths.runs={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["runs.py", *words])
    with pytest.raises(SystemExit) as stop:
        command("runs", "tests.launchers.task:job")
    assert stop.value.code == 2
    assert "hydra.launcher.n_jobs: expected a number of processes" in capsys.readouterr().err


def test_a_start_of_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_ID", "RESTART_COUNT"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    assert slurm_start() is None
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert slurm_start() == ("9_", 0)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert slurm_start() == ("7_3", 2)
