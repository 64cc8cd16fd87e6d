"""What `runs --clean` drops, and that the runs still predict the same."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from isic.predictions import read_predictions
from isic.training.checkpoint import read
from tests.commands import ForkServer


@pytest.fixture
def copy(two_folds: tuple[Path, str], tmp_path: Path) -> Path:
    """A run of two folds, and beside it one that is not finished."""
    runs = tmp_path / "runs"
    shutil.copytree(two_folds[0], runs / "two")
    shutil.copytree(two_folds[0] / "fold0", runs / "half/fold0")
    (runs / "half/fold0/score.json").unlink()
    return runs


def sizes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*.ckpt")}


def predicted(commands: ForkServer, run: Path, output: Path) -> pd.DataFrame:
    words = [f"ckpt={run}", "split=test", "trainer=cpu", f"output={output}"]
    code, text = commands.run("predict.py", *words, env={"ISIC_RUNS_ROOT": str(run.parent)})
    assert code == 0, text
    return read_predictions(output / "predictions.parquet")


@pytest.mark.slow
def test_clean_shows_then_drops_what_no_score_needs(
    commands: ForkServer, copy: Path, tmp_path: Path
) -> None:
    env = {"ISIC_RUNS_ROOT": str(copy)}
    before = sizes(copy)
    original = read(copy / "two/fold0/checkpoints/last.ckpt")
    expected = predicted(commands, copy / "two", tmp_path / "before")

    code, shown = commands.run("isic", "runs", "--clean", env=env)
    assert code == 0, shown
    assert sizes(copy) == before, "showing drops nothing"
    with FileLock(str(copy / "two/fold1/.lock")):
        code, text = commands.run("isic", "runs", "--clean=delete", env=env)
    assert code == 0, text
    after = sizes(copy)
    for name in before:
        if name.startswith(("half", "two/fold1")):
            assert after[name] == before[name], "unfinished, or a process is at it"
    assert "two/fold0/checkpoints/best.ckpt" not in after
    last = "two/fold0/checkpoints/last.ckpt"
    assert after[last] < 0.6 * before[last]

    code, text = commands.run("isic", "runs", "--clean=delete", env=env)
    assert code == 0, text
    given_back = sum(before.values()) - sum(sizes(copy).values())
    stated = float(shown.strip().splitlines()[-1].split()[0]) * 1e6
    assert stated == pytest.approx(given_back, rel=0.1, abs=1e5)
    kept = read(copy / last)
    assert kept["epoch"] == original["epoch"]
    assert kept["isic"]["classes"] == original["isic"]["classes"]
    assert predicted(commands, copy / "two", tmp_path / "after").equals(expected)
    code, text = commands.run("isic", "runs", "--clean", env=env)
    assert text.strip().splitlines()[-1].startswith("0.0 MB")
    code, text = commands.run("isic", "runs", "--clean=all", env=env)
    assert code == 2
    assert "clean: expected show or delete" in text
