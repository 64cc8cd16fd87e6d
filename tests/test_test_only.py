"""A test-only download is predicted as its archive, bit for bit, by the commands; never trained."""

from pathlib import Path

import pandas as pd
import pytest

from isic.predictions import read_predictions
from tests.commands import TINY, ForkServer
from tests.index.small_archives import copy_test_part

ONE = [*TINY, "trainer.max_epochs=1", "data.batch_size=16"]
VIEWS = ["data.views=[dermoscopic,clinical]", "data.metadata=[age,sex,site,skin_tone_class]"]


@pytest.fixture(scope="module")
def milk(
    commands: ForkServer, milk32: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The runs folder with a run `milk` of both views and metadata; the archive's test part."""
    folder = tmp_path_factory.mktemp("alone")
    code, text = commands.run(
        "train.py", "fold=0", "data=milk10k", f"data.root={milk32}", *ONE, *VIEWS, "name=milk",
        env={"ISIC_RUNS_ROOT": str(folder / "runs")},
    )  # fmt: skip
    assert code == 0, text
    return folder / "runs", copy_test_part(milk32, folder / "part")


def same_results(commands: ForkServer, runs: Path, given: str, roots: list[Path]) -> None:
    """Predictions and submissions of two folders are the same."""
    outputs = [runs / f"out-{given.partition('=')[0]}-{i}" for i in range(len(roots))]
    for root, output in zip(roots, outputs, strict=True):
        words = [given, f"data.root={root}", f"output={output}", "trainer=cpu"]
        code, text = commands.run("predict.py", *words, env={"ISIC_RUNS_ROOT": str(runs)})
        assert code == 0, text
    whole, part = (read_predictions(o / "predictions.parquet") for o in outputs)
    pd.testing.assert_frame_equal(part, whole, check_exact=True)
    whole, part = (o / "submission.csv" for o in outputs)
    assert part.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_run_predicts_it_as_the_whole_archive(commands, milk, milk32) -> None:
    same_results(commands, milk[0], "ckpt=milk", [milk32, milk[1]])


def test_train_names_what_is_missing_and_what_is_there(commands, milk) -> None:
    runs, part = milk
    words = ["fold=0", "data=milk10k", f"data.root={part}", *ONE, "name=no"]
    code, text = commands.run("train.py", *words, env={"ISIC_RUNS_ROOT": str(runs)})
    assert code == 3
    assert "error: milk10k: no train table; looked for" in text
    assert "MILK10k_Training_Metadata.csv" in text and "found MILK10k_Test_Metadata.csv" in text
    assert "download it:\n" in text
    env = {"ISIC_RUNS_ROOT": str(runs)}
    code, text = commands.run(
        "predict.py", "ckpt=milk", f"data.root={part}", "split=train", "trainer=cpu", env=env
    )
    assert code == 3 and "error: milk10k: no train table" in text


@pytest.mark.slow
def test_an_archive_is_no_folder_of_images_for_a_model_of_two(commands, milk, tmp_path) -> None:
    runs, part = milk
    env = {"ISIC_RUNS_ROOT": str(runs)}
    (tmp_path / "loose").mkdir()
    image = next(part.rglob("*.jpg"))
    (tmp_path / "loose" / image.name).write_bytes(image.read_bytes())
    for folder in (part, part / "MILK10k_Test_Input"):
        words = ["ckpt=milk", f"images={folder}", "trainer=cpu"]
        code, text = commands.run("predict.py", *words, env=env)
        assert code == 3 and f"data.root={part} reads that layout" in text
    words = ["ckpt=milk", f"images={tmp_path / 'loose'}", "trainer=cpu"]
    code, text = commands.run("predict.py", *words, env=env)
    assert code == 0, text
    assert "predicted without clinical" in text


@pytest.mark.slow
def test_a_stack_predicts_it_as_the_whole_archive(
    commands, two_folds, tiny_archive, tmp_path
) -> None:
    runs = two_folds[0].parent
    families = "features=[lesion_shape,patient_context,clusters,image_scores,patient_scores]"
    small = ["stacker.lightgbm.n_estimators=10", "split.n_folds=2", "logger=csv", families]
    words = [f"data.root={tiny_archive}", "name=alone", "runs=[two]", *small]
    code, text = commands.run("isic", "stack", *words, env={"ISIC_RUNS_ROOT": str(runs)})
    assert code == 0, text
    part = copy_test_part(tiny_archive, tmp_path / "part")
    assert not list(part.glob("train*"))
    same_results(commands, runs, "stack=alone", [tiny_archive, part])
    code, text = commands.run(
        "isic", "stack", f"data.root={part}", "name=no", *small, env={"ISIC_RUNS_ROOT": str(runs)}
    )
    assert code == 3 and "train-metadata.csv" in text and "found test-metadata.csv" in text
