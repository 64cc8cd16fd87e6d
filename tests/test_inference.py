"""From a run to decided submissions and pseudo-labels, by the commands."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from isic.engine.apply import check_alike, weights_of
from isic.engine.decide import check_choices, fit_of
from isic.engine.inference import find_checkpoints, lone_trainer
from isic.errors import CheckpointError, ConfigError, DataError
from isic.predictions import read_predictions
from isic.predictions.fitted import Fitted
from isic.predictions.temperature import tempered
from isic.predictions.thresholds import folded
from isic.training.hardware import TrainerOptions
from tests.commands import TINY, ForkServer

ONE = [*TINY, "trainer.max_epochs=1", "data.batch_size=16"]
CLASSES = "AKIEC BCC BEN_OTH BKL DF INF MAL_OTH MEL NV SCCKA VASC".split()


@pytest.fixture(scope="module")
def milk(
    commands: ForkServer, milk32: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The runs folder with a finished run `milk` of two folds and both views; its arguments."""
    runs = tmp_path_factory.mktemp("inference") / "runs"
    given = ["data=milk10k", f"data.root={milk32}", *ONE, "data.views=[dermoscopic,clinical]"]
    code, text = commands.run(
        "train.py", "-m", "fold=0,1", *given, "name=milk", env={"ISIC_RUNS_ROOT": str(runs)}
    )
    assert code == 0, text
    return runs, given


def predictions(commands: ForkServer, runs: Path, *words: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and submission of `predict.py`."""
    output = runs / "predictions" / "-".join(words or ("plain",)).replace("=", "_")
    env = {"ISIC_RUNS_ROOT": str(runs)}
    code, text = commands.run("predict.py", "ckpt=milk", f"output={output}", *words, env=env)
    assert code == 0, text
    frame = read_predictions(output / "predictions.parquet").set_index("lesion_id")
    submission = pd.read_csv(output / "submission.csv", index_col="lesion_id")
    columns = [f"prob_{c}" for c in submission.columns]
    return frame.loc[submission.index, columns], submission


@pytest.mark.slow
def test_the_score_of_a_run_holds_nested_and_folded_numbers(milk) -> None:
    score = json.loads((milk[0] / "milk" / "score.json").read_text())
    names = list(score["metrics"])
    assert names[0] == "macro_f1"
    assert names[-2:] == ["macro_f1_argmax_folded", "macro_f1_nested_thresholds"]
    assert set(score["calibration"]) >= {"temperature", "ece", "ece_nested_temperature"}
    assert score["warnings"] == []
    fitted = Fitted.read(milk[0] / "milk")
    assert (fitted.run, fitted.rows, list(fitted.thresholds)) == ("milk", 60, CLASSES)
    fold = json.loads((milk[0] / "milk" / "fold0" / "score.json").read_text())
    assert not [n for n in fold["metrics"] if "nested" in n]  # one fold knows no other


@pytest.mark.slow
def test_submissions_are_decided_and_predictions_are_not(commands, milk) -> None:
    runs, _ = milk
    fitted = Fitted.read(runs / "milk")
    plain, _ = predictions(commands, runs)
    frame, submission = predictions(commands, runs, "decide=thresholds", "calibrate=temperature")
    expected = tempered(plain.to_numpy(), fitted.temperature, softmax=fitted.softmax)
    np.testing.assert_allclose(frame, expected, rtol=1e-6)
    cuts = list(fitted.tempered_thresholds.values())
    np.testing.assert_allclose(submission, folded(frame.to_numpy(), cuts), rtol=1e-9)
    frame, submission = predictions(commands, runs, "decide=argmax", "tta=multicrop")
    assert ((submission > 0.5).sum(axis=1) == 1).all()
    assert 1e-6 < (frame - plain).abs().to_numpy().max() < 0.5


def test_ranks_are_refused_where_the_metric_cuts_at_half(commands, milk) -> None:
    env = {"ISIC_RUNS_ROOT": str(milk[0])}
    code, text = commands.run("predict.py", "ckpt=milk", "combine=rank_mean", env=env)
    assert code == 2
    assert "combine=rank_mean: macro_f1 of milk10k takes a class where its probability" in text
    code, text = commands.run("predict.py", "ckpt=milk", "unknown=energy", env=env)
    assert code == 2
    assert "no class UNK without training rows" in text


@pytest.mark.slow
def test_from_predictions_to_pseudo_labels_to_a_training(commands, milk, tmp_path) -> None:
    runs, given = milk
    env, made = {"ISIC_RUNS_ROOT": str(runs)}, tmp_path / "pseudo.csv"
    few = ["min_confidence=0.01", "max_per_class=3", f"output={made}"]
    code, text = commands.run("isic", "pseudo", "predictions=milk", *few, env=env)
    assert code == 0, text
    rows = pd.read_csv(made)
    assert (rows.groupby("lesion_id")["view"].nunique() == 2).all()
    code, text = commands.run("train.py", *given, f"data.extra={made}", "name=more", env=env)
    assert code == 0, text
    score = json.loads((runs / "more" / "fold0" / "score.json").read_text())
    assert score["n"] == 30  # held-out lesions, and no pseudo-label among them
    (said,) = score["warnings"]
    assert said.startswith(f"{len(rows)} pseudo-labelled images of milk were trained on")
    assert f"WARNING: {said}" in text
    code, text = commands.run("isic", "runs", env=env)
    assert "one fold, 1 warning(s): score.json" in text


CHOICES = {"split": "test", "combine": "mean", "images": None}
CHOICES |= dict.fromkeys(("calibrate", "decide", "unknown"), "none")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decide": "best"}, "decide: expected none or argmax or thresholds, got 'best'"),
        ({"unknown": "max_prob", "decide": "thresholds"}, "take decide=argmax"),
        ({"combine": "rank_mean", "calibrate": "temperature"}, "ranks are no probabilities"),
        ({"combine": "rank_mean", "decide": "thresholds"}, "ranks are no probabilities"),
        ({"images": "x", "split": "train"}, "predicted as test rows, got split=train"),
    ],
)
def test_words_that_contradict_each_other(given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_choices(CHOICES | given)
    check_choices(CHOICES)


def test_checkpoints_of_different_data_sets_are_refused_before_predicting() -> None:
    def record(name: str, *classes: str) -> dict[str, object]:
        return {"info": {"name": name}, "classes": list(classes)}

    paths, two = [Path("a.ckpt"), Path("b.ckpt")], record("isic2024", "benign", "malignant")
    check_alike(paths, [two, two])
    with pytest.raises(
        ConfigError, match="a.ckpt is of isic2024 with .* benign, malignant; b.ckpt"
    ):
        check_alike(paths, [two, record("isic2019", "MEL", "NV")])
    theirs = record("isic2020", "benign", "malignant")
    with pytest.raises(ConfigError, match="b.ckpt is of isic2020"):
        check_alike(paths, [two, theirs])
    check_alike(paths, [two, theirs], images="a folder")


def test_runs_weigh_alike_however_many_folds_they_have() -> None:
    folds = [Path(f"runs/{run}/checkpoints/last.ckpt") for run in ("a/fold0", "a/fold1", "b/fold0")]
    assert weights_of(folds) == [0.5, 0.5, 1]
    assert weights_of([Path("x/1.ckpt"), Path("x/2.ckpt"), Path("/3.ckpt")]) == [1, 1, 1]


def test_a_fit_that_is_not_there_says_which_folds_to_train(tmp_path: Path) -> None:
    for fold in (0, 1):
        folder = tmp_path / "run" / f"fold{fold}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("n_folds: 3")
    (tmp_path / "run" / "fold1" / "score.json").touch()
    path = tmp_path / "run" / "fold1" / "checkpoints" / "last.ckpt"
    with pytest.raises(DataError, match="lacks fold 0,2: give .* with -m fold=0,2 first"):
        fit_of(CHOICES | {"decide": "thresholds"}, {}, [path])


@pytest.mark.slow
def test_the_unknown_class_of_isic2019(commands, archive2019, tmp_path) -> None:
    env = {"ISIC_RUNS_ROOT": str(tmp_path / "runs")}
    given = ["data=isic2019", f"data.root={archive2019}", *ONE, "loss=ce", "name=it"]
    code, text = commands.run("train.py", "-m", "fold=0,1", *given, env=env)
    assert code == 0, text
    found = {}
    for method in ("none", "max_prob", "energy"):
        folder = tmp_path / method
        code, text = commands.run(
            "predict.py", "ckpt=it", f"unknown={method}", f"output={folder}", env=env
        )
        assert code == 0, text
        found[method] = pd.read_csv(folder / "submission.csv", index_col="image")
        plain = read_predictions(folder / "predictions.parquet")
        np.testing.assert_allclose(plain["prob_UNK"], found["none"]["UNK"], rtol=1e-12)
        assert plain["energy"].nunique() > 1
    for method in ("max_prob", "energy"):
        pd.testing.assert_frame_equal(
            found[method].drop(columns="UNK"), found["none"].drop(columns="UNK")
        )
        assert (found[method]["UNK"] - found["none"]["UNK"]).abs().max() > 0.01
    assert json.loads((tmp_path / "energy" / "score.json").read_text())["submitted"]["metrics"]


def test_a_prediction_inside_a_slurm_job_stands_alone(monkeypatch) -> None:
    """`sbatch --ntasks=4` without srun: Lightning would take the job's tasks for its ranks."""
    for key, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "work", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(key, value)
    trainer = lone_trainer(TrainerOptions(accelerator="cpu"))
    assert trainer.world_size == 1
    assert isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment)


def test_a_checkpoint_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    said = rf"got gone: neither {Path('gone').absolute()} nor {tmp_path / 'gone'} is there"
    with pytest.raises(CheckpointError, match=said):
        find_checkpoints("gone", runs=tmp_path)
