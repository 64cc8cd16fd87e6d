"""Results on standard output, logs and progress on standard error, nothing on both."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from isic import streams
from isic.__main__ import main
from isic.cli import Outcome, _table, command
from tests.commands import TINY

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Run a command in this process; what it gave to standard output and error."""
    root, results = logging.getLogger(), streams.RESULTS
    before = root.handlers[:], root.level, results.handlers[:]
    monkeypatch.setenv("ISIC_RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("ISIC_CACHE_ROOT", str(tmp_path / "cache"))

    def start(script, *words):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            if script == "isic":
                main()
            else:
                tasks = {"train": "isic.engine.start:fit", "predict": "isic.engine.apply:predict"}
                command(script, tasks[script])
        out, err = capfd.readouterr()
        assert not stop.value.code, err
        assert "\x1b" not in out + err
        assert not set(out.splitlines()) & set(err.splitlines()) - {""}
        return out, err

    yield start
    root.handlers[:], root.level, results.handlers[:] = before
    GlobalHydra.instance().clear()


def test_the_verbs_of_an_archive(run, tmp_path):
    root = tmp_path / "d"
    out, err = run("isic", "synth", "data=isic2024", f"data.root={root}", "n_images=40",
                   "image_size=32")  # fmt: skip
    assert "40 train and 4 test samples" in out
    out, err = run("isic", "check", "data=isic2024", f"data.root={root}")
    assert out.startswith("isic2024 in ")
    assert "right  ids" in out
    assert "written to" in out
    assert "right" not in err


def test_what_is_wrong_is_among_the_findings(run, tmp_path, archive32, capfd):
    from isic.audit.findings import Finding, Part
    from isic.audit.report import Report
    from isic.index.isic2024 import INFO

    part = Part(findings=[Finding("wrong", "ids", "3 ids twice"), Finding("right", "a", "b")])
    report = Report(INFO, tmp_path, "aa", {"table": part})
    assert "wrong  ids         3 ids twice" in report.lines(wrong=True)
    assert not any("3 ids" in line for line in report.lines())


def test_runs_are_a_table_and_nothing_is_an_empty_one(run, tmp_path):
    (tmp_path / "runs").mkdir()
    out, err = run("isic", "runs")
    assert out == ""
    assert "no runs under" in err
    fold = tmp_path / "runs" / ("a_name_of_many_letters" * 4) / "fold0"
    fold.mkdir(parents=True)
    (fold / "config.yaml").write_text("{seed: 0, n_folds: 5, evaluate: last, fold: 0}\n")
    out, err = run("isic", "runs")
    assert out.splitlines()[0].split() == ["run", "score", "folds", "seeds", "minutes", "GB"]
    assert out.splitlines()[1].split() == [fold.parent.name, "unfinished", "0/5", "0"]
    assert err == ""


@pytest.mark.slow
def test_a_training_its_predictions_and_a_multirun(run, tmp_path, tiny_archive):
    words = [
        *TINY,
        f"data.root={tiny_archive}",
        "data=isic2024",
        "name=one",
        "trainer.max_epochs=1",
    ]
    out, err = run("train", *words, "fold=0")
    assert out.startswith("one/fold0: ")
    assert len(out.splitlines()) == 1
    assert "device  1 x CPU" in err
    out, err = run("train", "-m", *words, "fold=1")
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        "one/fold1", f"{tmp_path / 'runs/one'}, 2 folds",
    ]  # fmt: skip
    out, err = run("predict", "ckpt=one")
    names = [line.split()[0] for line in out.splitlines()]
    assert names[:2] == ["predictions:", "submission:"]
    assert all(Path(line.split()[1]).is_file() for line in out.splitlines()[:2])
    assert "predicting with" in err


def test_the_table_of_a_multirun_ends_with_the_score_of_all_folds():
    lines = ["one/fold0: AUC 0.7", "one/fold1: AUC 0.8\nruns/one, 2 folds: AUC 0.75"]
    outcomes = [Outcome(f"name=one fold={k}", 0, line) for k, line in enumerate(lines)]
    failed = Outcome("name=one fold=2", 3, "no images")
    assert _table([*outcomes, failed]).splitlines() == [
        "fold=0  done        one/fold0: AUC 0.7",
        "fold=1  done        one/fold1: AUC 0.8",
        "fold=2  failed (3)  no images",
        "runs/one, 2 folds: AUC 0.75",
    ]


PRINT = """
import logging, sys
sys.path.insert(0, {root!r})
from isic.streams import *
logging.basicConfig(format="%(message)s", level=20, stream=sys.stderr)
logging.getLogger().handlers[0].addFilter(OnlyLogs())
RESULTS.addHandler(ResultHandler())
{more}
for n in range(20000):
    show(f"result {{n}}")
logging.info("the end")
"""


def script(more=""):
    return [sys.executable, "-c", PRINT.format(root=str(ROOT), more=more)]


def test_a_reader_that_leaves_is_no_fault():
    with subprocess.Popen(script(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"result 0\n"
        process.stdout.close()
        assert process.stderr.read() == b"the end\n"
    assert process.returncode == 0


def test_a_closed_output_and_a_narrow_alphabet():
    def close():
        os.close(1)

    done = subprocess.run(script(), stderr=subprocess.PIPE, preexec_fn=close)
    assert (done.returncode, done.stderr) == (0, b"the end\n")
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(script("show('läsion')"), capture_output=True, env=env)
    assert done.stdout.startswith(b"l\\xe4sion\nresult 0\n")
