"""A score is of the experiment whose name it bears: what was edited or mixed is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.index import isic2019
from isic.index.isic2024 import build_index
from isic.index.schema import archive_hash
from isic.training.checkpoint import read
from tests.commands import ForkServer

EPOCH = ["trainer.max_epochs=1", "name=it"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ISIC_RUNS_ROOT": str(tmp_path / "runs")}


def test_an_archive_is_known_by_rows_and_images_wherever_it_lies(
    archive32: Path, archive_copy: Path
) -> None:
    before = archive_hash(build_index(archive32))
    assert archive_hash(build_index(archive_copy)) == before
    with (archive_copy / "train-image.hdf5").open("ab") as file:
        file.write(b"more")
    images = archive_hash(build_index(archive_copy))
    test = pd.read_csv(archive_copy / "test-metadata.csv", dtype=str, keep_default_na=False)
    test[:-1].to_csv(archive_copy / "test-metadata.csv", index=False)
    assert len({before, images, archive_hash(build_index(archive_copy))}) == 3


def test_loose_images_of_another_size_are_another_archive(
    archive2019: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(archive2019, tmp_path / "isic2019"))
    before = archive_hash(isic2019.build_index(root))
    assert before == archive_hash(isic2019.build_index(archive2019))
    image = next((root / "ISIC_2019_Training_Input").glob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"more")
    assert archive_hash(isic2019.build_index(root)) != before


@pytest.mark.slow
def test_an_edited_split_file_is_another_experiment(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path
) -> None:
    code, text = commands.run("train.py", *tiny, *EPOCH, env=env)
    assert code == 0, text
    split = tmp_path / "split.csv"
    shutil.copy(next((tmp_path / "runs" / "splits").glob("*.csv")), split)
    given = [*tiny, "trainer.max_epochs=1", f"split.file={split}", "name=given"]
    assert commands.run("train.py", *given, env=env)[0] == 0
    table = pd.read_csv(split)
    table["fold"] = 1 - table["fold"]
    table.to_csv(split, index=False)
    (tmp_path / "runs" / "given" / "fold0" / "score.json").unlink()  # as if killed before it
    code, text = commands.run("train.py", *given, env=env)
    assert code == 2
    assert "split_hash:" in text


@pytest.mark.slow
def test_another_archive_under_a_name_is_refused(
    commands: ForkServer, tiny: list[str], env: dict[str, str], archive_copy: Path
) -> None:
    assert commands.run("train.py", *tiny, *EPOCH, env=env)[0] == 0
    other = [a for a in tiny if not a.startswith("data.root=")]
    code, text = commands.run("train.py", *other, f"data.root={archive_copy}", *EPOCH, env=env)
    assert code == 2
    assert "archive:" in text


@pytest.mark.slow
def test_an_early_stopped_run_is_not_trained_further(
    commands: ForkServer, tiny: list[str], env: dict[str, str], tmp_path: Path
) -> None:
    stopping = [*tiny, "name=it", "trainer.max_epochs=9", "callbacks.early_stopping=1"]
    stopping += ["optim.optimizer.lr=0.0"]  # nothing gets better
    assert commands.run("train.py", *stopping, env=env)[0] == 0
    fold = tmp_path / "runs" / "it" / "fold0"
    epoch = read(fold / "checkpoints" / "last.ckpt")["epoch"]
    assert epoch < 8
    score = json.loads((fold / "score.json").read_text())
    assert score["selected_on_validation"]
    (fold / "score.json").unlink()
    code, text = commands.run("train.py", *stopping, env=env)
    assert code == 0, text
    assert read(fold / "checkpoints" / "last.ckpt")["epoch"] == epoch
    assert json.loads((fold / "score.json").read_text())["metrics"] == score["metrics"]


@pytest.mark.slow
def test_predictions_of_different_kinds_lie_apart_and_leave_runs_alone(
    commands: ForkServer, two_folds: tuple[Path, str]
) -> None:
    run, _ = two_folds
    env = {"ISIC_RUNS_ROOT": str(run.parent)}
    for arguments in ((f"ckpt={run}",), (f"ckpt={run}/fold0",), (f"ckpt={run}", "tta=d4")):
        code, text = commands.run("predict.py", *arguments, "trainer=cpu", env=env)
        assert code == 0, text
    assert len(list((run.parent / "predictions").glob("two-test-*/submission.csv"))) >= 3
    code, text = commands.run("predict.py", f"ckpt={run}", f"output={run}", env=env)
    assert code == 2
    assert "is a run" in text


def test_a_sample_of_other_images_is_said_before_the_training(
    commands: ForkServer, tiny: list[str], env: dict[str, str], archive_copy: Path, tmp_path: Path
) -> None:
    sample = archive_copy / "sample_submission.csv"
    pd.read_csv(sample)[:-1].to_csv(sample, index=False)
    other = [a for a in tiny if not a.startswith("data.root=")]
    code, text = commands.run("train.py", *other, f"data.root={archive_copy}", *EPOCH, env=env)
    assert code == 3
    assert "sample_submission.csv" in text
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize("command", ["train", "predict", "stack"])
def test_a_sample_with_an_id_twice_is_said_before_anything_is_computed(
    commands: ForkServer,
    tiny: list[str],
    two_folds: tuple[Path, str],
    archive_copy: Path,
    tmp_path: Path,
    command: str,
) -> None:
    sample = archive_copy / "sample_submission.csv"
    table = pd.read_csv(sample)
    pd.concat([table, table[:2]]).to_csv(sample, index=False)
    root = f"data.root={archive_copy}"
    words = {
        "train": ["train.py", *(a for a in tiny if not a.startswith("data.root=")), root, *EPOCH],
        "predict": ["predict.py", f"ckpt={two_folds[0]}/fold0", "trainer=cpu", root],
        "stack": ["isic", "stack", "data=isic2024", "features=[metadata]", "logger=csv", root],
    }
    code, text = commands.run(*words[command], env={"ISIC_RUNS_ROOT": str(tmp_path / "runs")})
    assert code == 3, text
    assert f"{sample}: 2 ids twice" in text.splitlines()[-1]
    left = [p.name for p in (tmp_path / "runs").rglob("*")]
    assert not {"score.json", "last.ckpt", "predictions.parquet", "stack.json"} & set(left)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("fold=true", "fold: expected a number or all"),
        ("seed=-1", "seed: expected 0"),
        ("optim.optimizer.lr=abc", "optim"),
        ("metrics.monitor=val/acu", "expected one of val/loss, val/pauc, val/auc"),
        ("trainer.max_epochs=0", "max_epochs"),
        ("data.batch_size=0", "data.batch_size: expected a whole number from 1 on, got 0"),
        ("data.image_size=abc", "data.image_size: expected a whole number or null, got 'abc'"),
        ("data.num_workers=foo", "data.num_workers: expected a number or auto"),
        ("sampler.ratio=0", "ratio"),
        ("callbacks.progress=foo", "callbacks.progress: expected"),
        ("data.resize=48", "data.resize: expected pixels"),
    ],
)
def test_values_that_make_no_sense_end_with_2(
    commands: ForkServer, tiny: list[str], env: dict[str, str], argument: str, said: str
) -> None:
    extra = ["data.cache=pixels"] if argument.startswith("data.resize") else []
    code, text = commands.run("train.py", *tiny, argument, *extra, env=env)
    assert code == 2, text
    assert said in text
    assert "Traceback" not in text


def test_thumbnails_have_one_size(trained32: object, tmp_path: Path) -> None:
    from isic.engine.spoken import _thumbnail

    rows = trained32.data.train_rows  # type: ignore[attr-defined]
    image = _thumbnail(rows, 0)
    assert image.shape == (128, 128, 3)
    assert image.dtype == np.uint8
