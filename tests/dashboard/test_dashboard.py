"""What lies in a run's folder for W&B, and what of it reaches a server; neither waits for one."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from wandb.sdk.data_types._private import MEDIA_TMP

from isic.dashboard import close_run, open_run, publish
from isic.dashboard.run import _without_names
from isic.dashboard.send import has_key, is_sent, kept, send_kept, wait_for_senders
from isic.errors import ConfigError
from isic.predictions import read_score
from isic.report.curves import write_curves
from tests.commands import ROOT, ForkServer
from tests.dashboard.server import dashboard, silent
from tests.dashboard.written import Written

OPTIONS = {"mode": "offline", "project": "isic", "entity": None, "tags": []}
RESULT = {"metrics": {"auc": {"value": 0.8, "low": 0.7, "high": 0.9}}, "seconds": 3.0}
BEGUN = """
import os, sys, time
from pathlib import Path
from isic.dashboard import open_run
run = open_run(Path(sys.argv[1]), {"mode": "offline", "project": "isic"}, group="g", name="n",
               config={})
for step in range(5):
    run.log({"x": step})
run.log({"torn": "a" * 100_000})  # whole blocks of it are written at once, its end is not
file = next(Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb"))
while file.stat().st_size < 65536:
    time.sleep(0.05)
os.kill(os.getpid(), 9)
"""


def only(folder: Path) -> Path:
    """The one offline run of a fold."""
    (found,) = (folder / "wandb").glob("offline-run-*")
    return found


@pytest.mark.slow
def test_a_fold_is_a_run_of_its_group(two_folds: tuple[Path, str]) -> None:
    run, text = two_folds
    ids = set()
    for fold in (0, 1):
        folder = run / f"fold{fold}"
        written = Written(only(folder))
        ids.add(written.run.run_id)
        assert written.run.run_group == "two"
        assert written.run.display_name == f"two-fold{fold}"
        assert written.run.job_type == "train"
        assert written.config["optim.optimizer.lr"] > 0
        assert written.config["fold"] == fold
        score = read_score(folder / "score.json")
        official = next(iter(score["metrics"].values()))
        for key, bound in (("score", "value"), ("score_low", "low"), ("score_high", "high")):
            assert written.summary[key] == official[bound]
        for key in ("seconds", "images_per_second", "peak_memory_mb", "interval_over"):
            assert written.summary[key] == score[key]
        assert written.logged("train/loss") > 0
        assert {written.logged(f"{c}_table.ncols") for c in ("roc", "pr", "confusion")} == {3}
        assert written.logged("curves/roc.format") == "png"
        assert "oof.parquet" in written.files
        sent, own = pq.read_table(only(folder) / "files/oof.parquet"), folder / "oof.parquet"
        assert sent.equals(pq.read_table(own).drop_columns(["image"]))  # names of files stay here
        assert not [f for f in written.files if "mistakes" in f], "a patient's image"
    assert len(ids) == 2
    assert "python -m isic sync" in text


def test_a_finished_run_is_published_in_one_call(tmp_path: Path) -> None:
    options = {**OPTIONS, "group": "study", "job_type": "sweep", "tags": ["study", "trial-7"]}
    publish(tmp_path, options, name="s", config={"a": {"b": 1}}, result=RESULT, job_type="stack")
    written = Written(only(tmp_path))
    assert (written.run.run_group, written.run.job_type) == ("study", "sweep")
    assert written.tags == ["study", "trial-7"]
    assert written.config["a.b"] == 1
    assert written.summary["score"] == written.summary["oof/auc"] == 0.8


def test_tables_after_another_fork_of_this_process_ended(tmp_path: Path) -> None:
    target, probs = np.array([0, 1, 0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]] * 2)
    write_curves(tmp_path / "curves", target, probs, ("benign", "malignant"))
    shutil.rmtree(MEDIA_TMP.name, ignore_errors=True)
    publish(tmp_path, OPTIONS, name="s", config={}, result=RESULT, job_type="train")
    assert Written(only(tmp_path)).logged("roc_table.ncols") == 3


@pytest.mark.parametrize("options", [None, {**OPTIONS, "mode": "disabled"}])
def test_nothing_is_written_where_it_is_off(tmp_path: Path, options: dict[str, str]) -> None:
    publish(tmp_path, options, name="s", config={}, result=RESULT, job_type="stack")
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_be_opened_is_one_logged_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_: object) -> None:
        raise OSError("no service")

    monkeypatch.setattr("wandb.init", broken)
    monkeypatch.setattr("isic.dashboard.run._stopped", [])
    publish(tmp_path, OPTIONS, name="s", config={}, result=RESULT, job_type="stack")
    assert [
        r.message
        for r in caplog.records
        if "W&B stopped" in r.message and "no service" in r.message
    ]


def test_a_mode_that_is_none_is_refused(tmp_path: Path) -> None:
    options = {**OPTIONS, "mode": "onlin"}
    with pytest.raises(ConfigError, match="offline, online, disabled, got 'onlin'"):
        publish(tmp_path, options, name="s", config={}, result=RESULT, job_type="stack")


@pytest.mark.slow
def test_sync_sends_a_killed_and_a_resumed_part_once(
    commands: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = tmp_path / "run/fold0"
    fold.mkdir(parents=True)
    script = [sys.executable, "-c", BEGUN, str(fold)]
    alone = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    begun = subprocess.run(script, cwd=ROOT, stderr=subprocess.DEVNULL, env=alone)
    assert begun.returncode == -9
    (torn,) = only(fold).glob("*.wandb")
    os.utime(torn, (0, 0))  # long ago
    run = open_run(fold, OPTIONS, group="g", name="n", config={"a": 1})
    run.log({"x": 5})
    close_run(run)
    (fold / "score.json").write_text("{}")
    empty = fold / "wandb/offline-run-20200101_000000-0/run-0.wandb"  # killed in its first seconds
    empty.parent.mkdir()
    empty.write_bytes(b":W&B\xe1\xbe\x00")
    with dashboard() as (received, env):
        env |= {"ISIC_RUNS_ROOT": str(tmp_path)}
        code, text = commands.run("isic", "sync", env=env)
        assert code == 0, text
        assert "2 runs sent" in text
        (lines,) = received.history.values()
        assert sorted(line["x"] for line in lines.values() if "x" in line) == list(range(6))
        (entry,) = received.runs.values()
        assert (entry["groupName"], entry["jobType"]) == ("g", "train")
        before = received.requests
        code, text = commands.run("isic", "sync", env=env)
        assert (code, received.requests) == (0, before)
        assert "nothing to send" in text


@pytest.mark.slow
def test_sync_without_network_or_key(
    commands: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path / "run/fold0")
    env = {"ISIC_RUNS_ROOT": str(tmp_path), "NETRC": str(tmp_path / "none")}
    code, text = commands.run("isic", "sync", env=env)
    assert code == 2
    assert "WANDB_API_KEY" in text
    env |= {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    code, text = commands.run("isic", "sync", env=env)
    assert code == 1
    assert "no connection to 127.0.0.1:9" in text
    assert "Traceback" not in text


def test_sync_gives_up_on_a_server_that_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path / "run/fold0")
    with silent() as (_, env):
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        (folder,) = kept(tmp_path)
        assert send_kept([folder], timeout=2) == []
    assert not is_sent(folder)


def finished(fold: Path) -> Path:
    """A run's folder with its entry, and with the score that comes last."""
    publish(fold, OPTIONS, name="s", config={}, result=RESULT, job_type="stack")
    (fold / "score.json").write_text("{}")
    return fold


def test_a_run_that_goes_on_is_left_for_later(tmp_path: Path) -> None:
    from filelock import FileLock

    fold = finished(tmp_path / "run/fold0")
    with FileLock(str(fold / ".lock")):
        assert kept(tmp_path) == []
    assert len(kept(tmp_path)) == 1


def test_a_run_that_another_machine_trains_is_left_for_later(tmp_path: Path) -> None:
    """Its lock may be seen there alone."""
    fold = finished(tmp_path / "run/fold0")
    (fold / "score.json").unlink()
    assert kept(tmp_path) == []
    (file,) = only(fold).glob("*.wandb")
    os.utime(file, (time.time() - 100,) * 2)
    assert kept(tmp_path) == [only(fold)], "killed long ago"


@pytest.mark.parametrize(
    ("machine", "server", "known"),
    [
        ("api.wandb.ai", None, True),
        ("ml.example.org", None, False),
        ("ml.example.org", "https://ml.example.org:8443", True),
        ("api.wandb.ai", "https://ml.example.org", False),
    ],
)
def test_a_key_is_one_of_the_server(
    machine: str, server: str | None, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine {machine}\n  login user\n  password {'0' * 40}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    assert has_key() == known


def test_a_netrc_that_cannot_be_read_holds_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_key()
    (tmp_path / "netrc").write_text("wandb\n")
    assert not has_key()


@pytest.mark.slow
def test_online_sends_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dashboard() as (received, env):
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        run = open_run(tmp_path, {**OPTIONS, "mode": "online"}, group="g", name="n", config={})
        run.log({"x": 1})
        end = time.monotonic() + 60
        while not received.runs and time.monotonic() < end:
            time.sleep(0.05)
        assert list(received.runs) == [run.id], "nothing came while the run was open"
        run.log({"x": 2})
        close_run(run)
        wait_for_senders(60)
        assert is_sent(only(tmp_path))
        assert [line["x"] for _, line in sorted(received.history[run.id].items())] == [1, 2]


@pytest.mark.slow
def test_a_server_that_never_answers_costs_seconds_at_the_end(
    commands: ForkServer, tiny: list[str], tmp_path: Path
) -> None:
    arguments = [*tiny, "logger=wandb", "trainer.max_epochs=1", "name=mute"]
    with silent() as (connections, env):
        env |= {"ISIC_RUNS_ROOT": str(tmp_path), "WANDB_MODE": "online"}
        env |= {"WANDB_ERROR_REPORTING": "true"}  # a user's default: telemetry asks the server, too
        command = commands.start("train.py", *arguments, env=env)
        assert command.wait() == 0, command.text
        ended = time.time()
        assert connections, "nobody tried to send"
    fold = tmp_path / "mute/fold0"
    assert ended - (fold / "score.json").stat().st_mtime <= 10 + 2  # and the fold's assembly
    assert "python -m isic sync" in command.text
    written = Written(only(fold))
    assert (
        written.summary["score"]
        == next(iter(json.loads((fold / "score.json").read_text())["metrics"].values()))["value"]
    )
    assert not senders_of(fold), "a sender was left behind"


def senders_of(folder: Path) -> list[str]:
    """Command lines of processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


def test_names_of_files_stay_on_this_machine(tmp_path: Path) -> None:
    columns = {"image_id": ["a"], "image": ["Doe, Jane.jpg"], "image_clinical": ["x.jpg"]}
    table = pa.table({**columns, "prob_benign": [0.5]})
    table = table.replace_schema_metadata({b"isic": b"{}", b"checksum": b"7"})
    pq.write_table(table, tmp_path / "p")
    (tmp_path / "sent").mkdir()
    copy = pq.read_table(_without_names(tmp_path / "p", tmp_path / "sent"))
    assert copy.column_names == ["image_id", "prob_benign"]
    assert copy.schema.metadata == {b"isic": b"{}"}
