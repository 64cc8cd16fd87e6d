"""From an archive on disk to a checked submission, through the commands that a user types."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from isic.acquire.synthetic import write_isic2024
from isic.index.isic2024 import INFO
from isic.metrics.classification import roc_auc
from isic.metrics.partial_auc import partial_auc
from isic.predictions import ensemble, read_predictions, read_score, validate_submission
from tests.commands import TINY, ForkServer

Folds = tuple[Path, str]


def predict(commands: ForkServer, run: Path, output: Path, *arguments: str) -> pd.DataFrame:
    code, text = commands.run(
        "predict.py",
        f"ckpt={run}",
        "trainer=cpu",
        f"output={output}",
        *arguments,
        env={"ISIC_RUNS_ROOT": str(run.parent)},
    )
    assert code == 0, text
    return read_predictions(output / "predictions.parquet")


def test_the_folds_are_put_together(two_folds: Folds, tiny_archive: Path) -> None:
    run, text = two_folds
    train = pd.read_csv(tiny_archive / "train-metadata.csv", low_memory=False)
    oof = read_predictions(run / "oof.parquet").set_index("image_id").loc[train["isic_id"]]
    assert len(oof) == len(train)
    target, score = train["target"].to_numpy(), oof["prob_malignant"].to_numpy()
    stored = read_score(run / "score.json")
    assert stored["metrics"]["auc"]["value"] == pytest.approx(roc_auc(target, score))
    assert stored["metrics"]["pauc"]["value"] == pytest.approx(partial_auc(target, score))
    assert stored["interval_over"] == "patient"
    assert stored["n"] == len(train)
    assert "2 folds: pAUC 0." in text
    patients = train.groupby("patient_id")["isic_id"].apply(lambda ids: oof.loc[ids, "fold"])
    assert patients.groupby(level=0).nunique().max() == 1, "a patient in two folds"
    for folder in (run, run / "fold0", run / "fold1"):
        drawn = {p.name for p in (folder / "curves").iterdir()}
        assert {"roc.csv", "roc.png", "pr.csv", "pr.png", "confusion.csv"} <= drawn


def test_the_submission_is_the_mean_of_the_folds_in_the_samples_order(
    two_folds: Folds, tiny_archive: Path
) -> None:
    run, _ = two_folds
    submission = pd.read_csv(run / "submission.csv")
    sample = pd.read_csv(tiny_archive / "sample_submission.csv")
    assert submission["isic_id"].tolist() == sample["isic_id"].tolist()
    validate_submission(run / "submission.csv", INFO, sample=sample)
    parts = [read_predictions(run / f"fold{k}/test.parquet") for k in (0, 1)]
    mean = np.mean([p["prob_malignant"] for p in parts], axis=0)
    by_id = dict(zip(parts[0]["image_id"], mean, strict=True))
    np.testing.assert_allclose(submission["target"], submission["isic_id"].map(by_id), rtol=1e-6)


def test_predict_gives_what_training_gave(
    two_folds: Folds, commands: ForkServer, tmp_path: Path
) -> None:
    run, _ = two_folds
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    frame = predict(commands, run, tmp_path / "mean")
    theirs = read_predictions(run / "test.parquet")
    assert frame["image_id"].tolist() == theirs["image_id"].tolist()
    np.testing.assert_allclose(frame["prob_malignant"], theirs["prob_malignant"], atol=1e-7)
    assert (tmp_path / "mean/submission.csv").exists()
    assert not (tmp_path / "mean/score.json").exists(), "test rows have no target"
    after = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    assert before == after, "predict.py wrote into the run"


def test_finished_folds_are_put_together_once(
    two_folds: Folds, commands: ForkServer, tiny: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "runs/two"
    shutil.copytree(two_folds[0], run)

    def again() -> int:
        words = ["fold=0", *tiny, "logger=wandb", "logger.wandb.mode=offline", "name=two"]
        code, text = commands.run("train.py", *words, env={"ISIC_RUNS_ROOT": str(run.parent)})
        assert code == 0 and "2 folds: " in text, text
        return (run / "oof.parquet").stat().st_mtime_ns

    first = again()
    assert first == (two_folds[0] / "oof.parquet").stat().st_mtime_ns
    (run / "fold1/score.json").touch()
    assert again() > first, "a fold is younger than what was made of it"


@pytest.mark.slow
def test_rank_mean_and_eight_views(two_folds: Folds, commands: ForkServer, tmp_path: Path) -> None:
    run, _ = two_folds
    single = [
        predict(commands, run / f"fold{k}", tmp_path / str(k), "tta=d4", "data.batch_size=5")
        for k in (0, 1)
    ]
    frame = predict(commands, run, tmp_path / "both", "tta=d4", "combine=rank_mean")
    expected = ensemble(single, method="rank_mean")
    np.testing.assert_allclose(frame["prob_malignant"], expected["prob_malignant"], atol=1e-7)
    plain = read_predictions(run / "fold0/test.parquet")["prob_malignant"]
    assert not np.allclose(single[0]["prob_malignant"], plain, atol=1e-6), (
        "eight views said nothing"
    )


def test_permuted_test_rows_keep_their_scores(
    two_folds: Folds, commands: ForkServer, tiny_archive: Path, tmp_path: Path
) -> None:
    root = tmp_path / "permuted"
    root.mkdir()
    for path in tiny_archive.iterdir():
        (root / path.name).symlink_to(path)
    order = np.random.default_rng(0).permutation(21)
    for name in ("test-metadata.csv", "sample_submission.csv"):
        head, *rows = (tiny_archive / name).read_text().splitlines()
        (root / name).unlink()
        (root / name).write_text("\n".join([head, *(rows[i] for i in order)]) + "\n")
    frame = predict(commands, two_folds[0], tmp_path / "out", f"data.root={root}")
    theirs = read_predictions(two_folds[0] / "test.parquet")
    assert frame["image_id"].tolist() != theirs["image_id"].tolist()
    ours = frame.set_index("image_id")["prob_malignant"].loc[theirs["image_id"]]
    np.testing.assert_allclose(ours, theirs["prob_malignant"], rtol=0, atol=1e-7)


def test_runs_lists_the_run(two_folds: Folds, commands: ForkServer) -> None:
    run, _ = two_folds
    for name in ("score.json", "oof.parquet"):
        (run / name).unlink()
    code, text = commands.run("isic", "runs", env={"ISIC_RUNS_ROOT": str(run.parent)})
    assert code == 0, text
    line = next(line for line in text.splitlines() if line.startswith("two "))
    assert f"pauc {read_score(run / 'score.json')['metrics']['pauc']['value']:.4f}" in line
    assert "2/2" in line
    assert (run / "oof.parquet").exists(), "put together again"


def test_predicting_its_own_training_rows_says_so(
    two_folds: Folds, commands: ForkServer, tmp_path: Path
) -> None:
    frame = predict(commands, two_folds[0], tmp_path, "split=train")
    assert len(frame) == 161
    assert read_score(tmp_path / "score.json")["trained_on_these_rows"] is True


@pytest.mark.slow
def test_every_row_trains_with_fold_all(
    commands: ForkServer, tiny: list[str], tmp_path: Path
) -> None:
    arguments = [*tiny, "fold=all", "trainer.max_epochs=1", "name=all"]
    code, text = commands.run("train.py", *arguments, env={"ISIC_RUNS_ROOT": str(tmp_path)})
    assert code == 0, text
    folder = tmp_path / "all/foldall"
    assert len(pd.read_csv(folder / "submission.csv")) == 21
    assert not (folder / "oof.parquet").exists()
    assert not (folder / "checkpoints/best.ckpt").exists()
    assert "nothing was held out" in text


@pytest.mark.slow
def test_shuffled_labels_score_a_half_where_true_ones_do_not(
    commands: ForkServer, tmp_path: Path
) -> None:
    """With 120 positives and 480 negatives the AUC of noise has a standard deviation of 0.03."""
    true = write_isic2024(
        tmp_path / "true", n_images=600, n_test=3, size_range=32, n_patients=150, positives=120
    )
    noise = tmp_path / "noise"
    noise.mkdir()
    for path in true.iterdir():
        (noise / path.name).symlink_to(path)
    table = pd.read_csv(true / "train-metadata.csv", low_memory=False)
    table["target"] = np.random.default_rng(0).permutation(table["target"])
    (noise / "train-metadata.csv").unlink()
    table.to_csv(noise / "train-metadata.csv", index=False)
    scores = {}
    for root in (true, noise):
        arguments = [*TINY, f"data.root={root}", f"name=of-{root.name}", "sampler=negatives"]
        arguments += ["optim.optimizer.lr=3e-3", "callbacks.ema_decay=0.95"]
        arguments += ["trainer.max_epochs=12", "trainer.check_val_every_n_epoch=12"]
        env = {"ISIC_RUNS_ROOT": str(tmp_path / "runs")}
        code, text = commands.run("train.py", "-m", "fold=0,1", *arguments, env=env)
        assert code == 0, text
        score = read_score(tmp_path / f"runs/of-{root.name}/score.json")
        scores[root.name] = score["metrics"]["auc"]["value"]
    assert scores["true"] > 0.65
    assert abs(scores["noise"] - 0.5) < 0.12


@pytest.mark.slow
def test_the_commands_of_the_readme(commands: ForkServer, tmp_path: Path) -> None:
    """synth, check, train, predict, runs, one after the other."""
    env = {"ISIC_RUNS_ROOT": str(tmp_path / "runs"), "ISIC_DATA_ROOT": str(tmp_path / "data")}
    for argv in (
        ["isic", "synth", "n_images=120", "n_test=9", "image_size=32"],
        ["isic", "check"],
        ["train.py", "-m", "fold=0,1", *TINY, "name=readme", "trainer.max_epochs=1"],
        ["predict.py", f"ckpt={tmp_path / 'runs/readme'}"],
        ["isic", "runs"],
    ):
        code, text = commands.run(*argv, env=env)
        assert code == 0, text
    with h5py.File(tmp_path / "data/isic2024/test-image.hdf5") as file:
        ids = set(file)
    predictions = next((tmp_path / "runs/predictions").glob("readme-test-*"))
    submission = pd.read_csv(predictions / "submission.csv")
    assert set(submission["isic_id"]) == ids
