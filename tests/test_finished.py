"""A command whose run is finished: its score, without torch, and nothing but the same run's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from isic.engine import finished
from tests.commands import ROOT

Folds = tuple[Path, str]
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None  # an import of it then raises
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture
def run(two_folds: Folds, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(two_folds[0], tmp_path / "runs" / "two"))


def typed(run: Path, words: list[str]) -> tuple[int, str]:
    """A command's exit code and output, in a process that has no torch."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=ROOT,
        env={**os.environ, "ISIC_RUNS_ROOT": str(run.parent)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_finished_folds_answer_without_torch(run: Path, tiny: list[str]) -> None:
    words = [*tiny, "logger=wandb", "logger.wandb.mode=offline", "name=two"]
    before = {p: p.stat().st_mtime_ns for p in run.glob("fold*/*.*")}
    code, text = typed(run, ["-m", "fold=0,1", *words])
    assert code == 0, text
    assert text.count("finished on ") == 2
    assert {p: p.stat().st_mtime_ns for p in run.glob("fold*/*.*")} == before
    # what changes nothing of what is learnt is no reason to train
    code, text = typed(run, ["fold=1", *words, "data.num_workers=3", "logger.log_every_n_steps=7"])
    assert code == 0, text
    assert "two/fold1: pAUC" in text
    # a fold that is not there, and one that is to be made anew, are a training's work
    (run / "fold1" / "score.json").unlink()
    for word in ("fold=1", "overwrite=true"):
        code, text = typed(run, [word, *words])
        assert code == 1, text
        assert "torch" in text


def test_a_run_of_a_version_without_a_key_is_the_same_experiment(
    run: Path, tiny: list[str]
) -> None:
    """As an earlier version wrote it: without some keys, without what it was composed of."""
    for fold in (0, 1):
        file = run / f"fold{fold}" / "config.yaml"
        config = yaml.safe_load(file.read_text())
        assert {"choices", "given"} == set(config.pop("composition"))
        config["data"].pop("colour_constancy")
        config["transforms"].pop("hue")
        config["optim"].pop("warmup_epochs")
        file.write_text(yaml.safe_dump(config))
    words = [*tiny, "logger=csv", "name=two"]
    code, text = typed(run, ["fold=1", *words])
    assert code == 0, text
    assert "two/fold1: pAUC" in text
    code, text = typed(run, ["fold=1", *words, "transforms.hue=0.1"])
    assert code == 1, text  # what differs is said by the training's checks
    assert "torch" in text


@pytest.mark.slow
def test_another_experiment_under_the_name_is_refused(
    run: Path, tiny: list[str], tmp_path: Path
) -> None:
    from isic.acquire.synthetic import write_isic2024

    other = write_isic2024(tmp_path / "other", n_images=80, n_test=8, size_range=32, seed=5)
    words = ["fold=0", *tiny, "logger=csv", "name=two"]
    code, text = typed(run, [*words, f"data.root={other}"])  # the same config, other rows
    assert code == 2, text
    assert "holds another experiment: archive: " in text
    for word in ("seed=1", "split.seed=1"):
        code, text = typed(run, [*words, word])  # what differs is said by the training's checks
        assert code == 1, text
        assert "torch" in text


def test_a_broken_file_of_another_run_is_not_this_commands_business(
    run: Path, tiny: list[str]
) -> None:
    for letter, content in (("a", b"]"), ("b", None), ("c", b""), ("d", b"\xff\xfe\x00")):
        name = f"isic2024-test_resnet-{6 * letter}"
        sibling = Path(shutil.copytree(run, run.parent / name))
        (sibling / "fold0" / "config.yaml").unlink()
        if content is not None:
            (sibling / "fold0" / "config.yaml").write_bytes(content)
    code, text = typed(run, ["fold=0", *tiny, "logger=csv"])  # nameless: siblings are looked at
    assert code == 1, text
    assert "import of torch" in text, text


def test_a_garbled_config_of_another_run_is_passed_over(tmp_path: Path) -> None:
    fold = tmp_path / "a-b-000000" / "fold0"
    fold.mkdir(parents=True)
    (fold / "config.yaml").write_text("composition: words\nseed: 0\nformer: 1\n")
    (fold / "score.json").touch()
    today: Any = SimpleNamespace(defaults=lambda stored: {"other": 0})
    config = {"name": None, "fold": 0, "paths": {"runs": str(tmp_path)}, "loss": {}, "seed": 0}
    assert not finished._same_is_there(config, "a-b", today)
