"""The table of metrics across a resume; W&B that never asks and never waits."""

import csv
from pathlib import Path

import pytest

from isic.training.loggers import LoggerOptions, MetricsTable, finish

WANDB = {"mode": "offline", "project": "isic", "entity": None, "images": False, "tags": ["test"]}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_metrics_are_one_value_a_row(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.log_metrics({"train/loss": 0.5, "lr": 0.1, "epoch": 0}, step=4)
    table.log_metrics({"val/auc": 0.75, "epoch": 0}, step=4)
    assert rows(table.path) == [
        ["epoch", "step", "name", "value"],
        ["0", "4", "train/loss", "0.5"],
        ["0", "4", "lr", "0.1"],
        ["0", "4", "val/auc", "0.75"],
    ]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    for step in (4, 9, 14):
        table.log_metrics({"train/loss": step, "epoch": step // 5}, step=step)
    with table.path.open("a") as file:
        file.write("3,17,train/l")  # killed while it wrote
    table.forget_after(10)
    table.log_metrics({"train/loss": 14, "epoch": 2}, step=14)
    assert [r[1] for r in rows(table.path)[1:]] == ["4", "9", "14"]


def test_forgetting_nothing(tmp_path):
    MetricsTable(tmp_path / "metrics.csv").forget_after(3)
    assert not list(tmp_path.iterdir())


def test_csv_alone_and_wandb_disabled(tmp_path):
    for wandb in (None, {**WANDB, "mode": "disabled"}):
        built = LoggerOptions(wandb=wandb).build(tmp_path, name="n", fold="0", config={})
        assert [type(logger) for logger in built] == [MetricsTable]


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    """A user who never heard of W&B; any question to them fails the test."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("W&B asked a question"))


def test_wandb_that_does_not_start_ends_no_training(tmp_path, no_key, monkeypatch, caplog):
    def init(**_):
        raise TimeoutError("wandb-core did not start in 30 s")

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("isic.dashboard.run._stopped", [])
    loggers = LoggerOptions(wandb=WANDB).build(tmp_path, name="run", fold="0", config={})
    assert [type(logger) for logger in loggers] == [MetricsTable]
    assert "W&B stopped (TimeoutError('wandb-core did not start" in caplog.text
    finish(loggers, 0)


@pytest.mark.slow
def test_wandb_goes_offline_without_a_key_and_keeps_its_id(tmp_path, no_key, caplog):
    folder = tmp_path / "fold0"
    folder.mkdir()

    def start(mode):
        options = LoggerOptions(wandb={**WANDB, "mode": mode})
        loggers = options.build(folder, name="run", fold="0", config={"seed": 0})
        run = loggers[1].experiment
        facts = run.offline, run.id, run.group, run.name, Path(run.dir)
        finish(loggers, 0)
        return facts

    offline, first, group, name, files = start("online")
    assert offline
    assert "no API key" in caplog.text
    assert (group, name) == ("run", "run-fold0")
    assert folder in files.parents
    assert start("offline")[:2] == (True, first)
    assert (folder / "wandb-id.txt").read_text() == first
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 2
