"""Processes that srun or torchrun started: as many as the config wants, and none by mistake."""

import os
from pathlib import Path
from typing import Any

import pytest

from isic.engine.fold import _train
from isic.engine.launch import check_ranks, is_launched, n_started
from isic.errors import ConfigError
from isic.runs import RunFolder
from isic.search.forks import Forks
from isic.training.hardware import TrainerOptions
from isic.workers import alone

SRUN = {"SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}
SRUN |= {"SLURM_NTASKS_PER_NODE": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_GPUS": "1"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"}
TORCHRUN |= {"MASTER_ADDR": "n1", "MASTER_PORT": "1", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "4"}


@pytest.fixture(params=[SRUN, TORCHRUN], ids=["srun", "torchrun"])
def ranks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for key, value in request.param.items():
        monkeypatch.setenv(key, value)
    return dict(request.param)


def test_as_many_processes_as_the_config_wants(ranks: dict[str, str]) -> None:
    assert is_launched()
    check_ranks(4, 1)
    check_ranks(2, 2)
    with pytest.raises(ConfigError, match=r"1 x 1 = 1 .* expected, srun or torchrun started 4\."):
        check_ranks(1, 1)


class Packed:
    """Data that note what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def setup(self, stage: str) -> None:
        self.asked.append(stage)

    @property
    def test_rows(self) -> None:
        self.asked.append("test")


@pytest.mark.parametrize("launched", [True, False])
def test_ranks_have_their_packs_before_they_wait_for_each_other(
    launched: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key, value in {"RANK": "1", **(TORCHRUN if launched else {})}.items():
        monkeypatch.setenv(key, value)
    data: Any = Packed()

    def begun(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr("isic.engine.fold.build_classifier", begun)
    with pytest.raises(InterruptedError):
        _train({"seed": 0}, data, RunFolder(tmp_path), TrainerOptions(max_epochs=1))
    assert data.asked == (["fit", "test"] if launched else [])


def test_a_script_of_sbatch_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert n_started() == 1
    check_ranks(2, 1)
    with pytest.raises(ConfigError, match="started alone"):
        check_ranks(2, 2)


def test_trials_of_a_worker_that_is_a_task_are_no_ranks(
    ranks: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"SLURM_JOB_ID", "SLURM_GPUS"}
    assert {key for key in ranks if key in alone()} <= kept
    assert {**os.environ, **alone()} == dict(os.environ)
    given: list[dict[str, str]] = []
    monkeypatch.setattr(
        "isic.search.forks.subprocess.Popen", lambda argv, **options: given.append(options["env"])
    )
    Forks("train")
    assert given == [alone()]
