"""A teacher's soft labels: of the fold that did not train on the row, of the same classes, cached.

`two_folds` is a real run of two folds; the other teachers here are files without a training.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml

from isic.data import ISIC2024DataModule
from isic.engine.build import build_data
from isic.engine.cautions import cautions
from isic.engine.clean import Waste, drop
from isic.engine.content import run_content
from isic.engine.inference import predict_rows
from isic.engine.teacher import open_teachers, soft_labels, teach, teachers_hash
from isic.errors import CheckpointError, ConfigError
from isic.identity import differing
from isic.index.schema import index_hash
from isic.predictions import read_predictions, write_predictions
from isic.split import SplitOptions
from isic.split.split_file import write_split
from isic.training.checkpoint import load, read
from isic.training.distill import Distillation
from tests.commands import ForkServer
from tests.killed import Experiment, assert_same_end

pytestmark = pytest.mark.slow  # whole commands

Data = Callable[..., ISIC2024DataModule]
HALVES = SplitOptions(n_folds=2)


def config_of(
    data: ISIC2024DataModule, *teachers: str, labels: str = "out_of_fold"
) -> dict[str, Any]:
    """What is read of a run's config to teach it."""
    loss = {"_target_": "isic.training.losses.BinaryCrossEntropy"}
    return {
        "paths": {"runs": str(data.runs_root), "cache": str(data.cache_root)},
        "loss": {
            "_target_": "isic.training.losses.Objective",
            "activation": "sigmoid",
            "loss": loss,
        },
        "distill": {"teacher": list(teachers), "labels": labels},
    }


def write_teacher(run: Path, data: ISIC2024DataModule, *, seed: int = 0, **record: Any) -> Path:
    """A finished run without a training: random out-of-fold probabilities, empty checkpoints."""
    rng, table = np.random.default_rng(seed), data.split.table
    known = {
        "classes": ["benign", "malignant"],
        "index_hash": index_hash(data.index.table),
        "split_hash": data.split.hash,
        "split_file": str(data.split.path),
        "network": {},
        "network_class": "isic.models.network.LesionNetwork",
        "activation": "sigmoid",
        **record,
    }
    for fold in range(data.split.n_folds):
        folder = run / f"fold{fold}"
        (folder / "checkpoints").mkdir(parents=True)
        config = {"fold": fold, "n_folds": data.split.n_folds, "evaluate": "last"}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "score.json").write_text(json.dumps({}))
        weights = {"network.weight": torch.tensor(float(seed))}
        checkpoint = {"isic": known, "state_dict": weights, "optimizer_states": [seed]}
        torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
        rows = table[table["fold"] == fold].reset_index(drop=True)
        frame = rows[["image_id", "fold"]].assign(lesion_id="L", split="train", status="ok")
        frame["prob_malignant"] = rng.random(len(frame))
        frame["prob_benign"] = 1 - frame["prob_malignant"]
        frame = frame[["image_id", "lesion_id", "fold", "split", "status"]].join(
            frame[["prob_benign", "prob_malignant"]]
        )
        write_predictions(
            folder / "oof.parquet",
            frame,
            run=run.name,
            index_hash=known["index_hash"],
            split_hash=known["split_hash"],
            split_file=known["split_file"],
        )
    return run


def tiny_data(root: Path, runs: Path, **options: Any) -> ISIC2024DataModule:
    """The student's data as the commands' tiny training has it."""
    fixed = {"image_size": 32, "batch_size": 8, "num_workers": 0, "split": HALVES}
    return ISIC2024DataModule(
        root, runs_root=runs, cache_root=runs.parent / "cache", **{**fixed, **options}
    )


def auc(target: Any, given: Any) -> float:
    rank = given.argsort().argsort()
    ones = int(target.sum())
    return float((rank[target == 1].sum() - ones * (ones - 1) / 2) / (ones * (len(target) - ones)))


def test_random_labels_leak_out_of_fold_and_not_from_the_own_fold() -> None:
    """Ridge teachers and students, 5 folds, 500 rows, 100 features, labels of a coin."""

    def ridge(x: Any, y: Any) -> Any:
        return np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ y)

    found: dict[str, list[float]] = {"out_of_fold": [], "own_fold": []}
    for seed in range(10):
        rng, fold = np.random.default_rng(seed), np.arange(500) % 5
        x, target = rng.normal(size=(500, 100)), rng.integers(0, 2, 500)
        teachers = np.stack([ridge(x[fold != k], target[fold != k] - 0.5) for k in range(5)])
        said = x @ teachers.T  # (rows, folds)
        for k in range(5):
            own, trains = said[:, k], fold != k
            for name, soft in (("out_of_fold", said[np.arange(500), fold]), ("own_fold", own)):
                label = 0.5 * (target - 0.5) + 0.5 * soft
                student = ridge(x[trains], label[trains])
                found[name].append(auc(target[~trains], x[~trains] @ student))
    assert np.mean(found["out_of_fold"]) > 0.67
    assert abs(np.mean(found["own_fold"]) - 0.5) < 0.04


def test_a_soft_label_is_of_the_students_own_fold(
    two_folds: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = two_folds[0]
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    found = []
    for fold in (0, 1):
        config = yaml.safe_load((run / f"fold{fold}/config.yaml").read_text())
        config["distill"] = {"teacher": str(run), "labels": "own_fold"}
        config["paths"]["cache"] = str(tmp_path)
        data = build_data(config)
        classifier = load(run / f"fold{fold}/checkpoints/last.ckpt")
        frame = predict_rows(trainer, classifier, data, data.train_rows, np.arange(161), fold=-2)
        found.append(soft_labels(config, data, open_teachers(str(run), runs=run.parent)))
        assert found[fold][:, 1] == pytest.approx(frame["prob_malignant"].to_numpy(), abs=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    monkeypatch.setattr("isic.engine.teacher._predicted", None)  # it is in the cache
    teach(config, data)
    assert cautions(data) == []
    caplog.set_level("INFO")
    everywhere = build_data({**config, "fold": "all"})
    got = []
    for labels in ("own_fold", "out_of_fold"):
        config["distill"]["labels"] = labels
        got.append(soft_labels(config, everywhere, open_teachers(str(run), runs=run)))
    assert np.array_equal(*got)
    assert caplog.text.count("fold=all holds nothing out; soft labels are out of fold") == 1


def test_the_labels_are_part_of_what_a_run_is(data32: Data) -> None:
    own, other = (config_of(data32(), labels=x) for x in ("own_fold", "out_of_fold"))
    assert differing(own, other) == ["distill.labels: own_fold -> out_of_fold"]
    with pytest.raises(ConfigError, match=r"distill\.labels: expected own_fold or out_of_fold"):
        Distillation(labels="all")


def test_out_of_fold_a_soft_label_is_of_the_fold_that_did_not_train_on_the_row(
    two_folds: tuple[Path, str], tiny_archive: Path
) -> None:
    run = two_folds[0]
    data = tiny_data(tiny_archive, run.parent)
    probs = soft_labels(config_of(data), data, open_teachers("two", runs=run.parent))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    fold_of, every = data.train_rows.table["fold"].to_numpy(), np.arange(161)
    for fold in (0, 1):
        trained = tiny_data(tiny_archive, run.parent, fold=fold).positions["train"]
        classifier = load(run / f"fold{fold}/checkpoints/last.ckpt")
        frame = predict_rows(trainer, classifier, data, data.train_rows, every, fold=-2)
        own = frame["prob_malignant"].to_numpy()
        held_out = np.setdiff1d(every, trained)
        assert (fold_of[held_out] == fold).all()
        assert probs[held_out, 1] == pytest.approx(own[held_out], abs=1e-6)
        assert np.abs(probs[trained, 1] - own[trained]).max() > 1e-3


def test_training_batches_hold_their_own_rows_soft_labels(data32: Data, tmp_path: Path) -> None:
    data = data32(split=HALVES)
    run = write_teacher(tmp_path / "run", data)
    teach(config_of(data, str(run)), data)
    oof = pd.concat([read_predictions(run / f"fold{k}/oof.parquet") for k in (0, 1)])
    oof = oof.set_index("image_id")["prob_malignant"]
    batch = next(iter(data.train_dataloader()))
    ids = data.train_rows.table["image_id"].iloc[data.positions["train"][batch["row"]]]
    assert batch["teacher"].shape == (16, 1)
    assert batch["teacher"][:, 0].sigmoid().numpy() == pytest.approx(oof[ids].to_numpy(), abs=1e-6)
    assert "teacher" not in next(iter(data.val_dataloader()))


def test_a_score_says_that_the_teacher_trained_on_its_rows(data32: Data, tmp_path: Path) -> None:
    for fold, said in ((0, 1), ("all", 0)):
        data = data32(split=HALVES, fold=fold)
        run = tmp_path / "run"
        teach(config_of(data, str(run if run.exists() else write_teacher(run, data))), data)
        assert len(cautions(data)) == said
        assert all("run that trained on the rows scored here" in text for text in cautions(data))


def test_rows_that_train_in_every_fold_keep_their_hard_labels(
    data32: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = data32(split=HALVES).split.table
    groups = sorted(table["group"].unique())[:5]
    fold = table["fold"].where(~table["group"].isin(groups), -2)
    write_split(tmp_path / "split.csv", table, fold, table["group"])
    data = data32(split=SplitOptions(file=str(tmp_path / "split.csv")))
    run = write_teacher(tmp_path / "run", data)
    caplog.set_level("INFO")
    teach(config_of(data, str(run)), data)
    everywhere = data.train_rows.table["fold"].to_numpy() == -2
    known = np.isfinite(data.train_columns["teacher"][:, 0])
    assert everywhere.sum() > 3
    assert (known == ~everywhere).all()
    assert f"hard labels alone for {everywhere.sum()} that trained every fold" in caplog.text


def test_several_teachers_are_averaged_and_asked_once(
    data32: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data32(split=HALVES)
    runs = [str(write_teacher(tmp_path / f"r{i}", data, seed=i)) for i in range(2)]
    config = config_of(data)
    one, two, both = (
        soft_labels(config, data, open_teachers(given, runs=tmp_path))
        for given in (runs[0], "r1", runs)
    )
    assert both == pytest.approx((one + two) / 2)
    monkeypatch.setattr("isic.engine.teacher.assemble_oof", None)
    assert np.array_equal(soft_labels(config, data, open_teachers(runs, runs=tmp_path)), both)


def test_another_teacher_under_the_same_name_is_another_run(data32: Data, tmp_path: Path) -> None:
    data = data32(split=HALVES)
    for folder, seed in (("a", 0), ("b", 1), ("c", 0)):
        write_teacher(tmp_path / folder / "run", data, seed=seed)
    found = [open_teachers("run", runs=tmp_path / folder) for folder in "abc"]
    one, other, again = map(teachers_hash, found)
    assert one == again != other
    content = run_content(config_of(data, str(tmp_path / "a" / "run")), data)
    assert content["teacher_hash"] == one
    drop(Waste(tmp_path / "a" / "run" / "fold0" / "checkpoints" / "last.ckpt", 0, whole=False))
    assert teachers_hash(found[0]) == one  # a teacher that was cleaned is the same teacher


def refused(data: ISIC2024DataModule, run: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        run_content(config_of(data, str(run)), data)
    return str(caught.value)


def test_other_classes_are_refused(data32: Data, tmp_path: Path) -> None:
    data = data32(split=HALVES)
    swapped = write_teacher(tmp_path / "run", data, classes=["malignant", "benign"])
    said = refused(data, swapped)
    assert "knows the classes malignant, benign, the student benign, malignant" in said


def test_another_split_of_the_same_rows_is_refused(data32: Data, tmp_path: Path) -> None:
    theirs, ours = data32(split=HALVES), data32(split=SplitOptions(n_folds=2, seed=1))
    run = write_teacher(tmp_path / "run", theirs)
    assert "trained on another split" in refused(ours, run)
    # rows in common are enough, whatever the archive is called
    other = write_teacher(tmp_path / "other", theirs, index_hash="another")
    assert theirs.split.hash in refused(ours, other)


def test_no_teacher_and_teachers_that_are_not_finished(data32: Data, tmp_path: Path) -> None:
    data = data32(split=HALVES)
    with pytest.raises(ConfigError, match=r"distill\.teacher: expected a run, got none"):
        open_teachers(None, runs=tmp_path)
    with pytest.raises(CheckpointError, match="got 'absent'"):
        open_teachers("absent", runs=tmp_path)
    run = write_teacher(tmp_path / "run", data)
    with pytest.raises(CheckpointError, match="lacks fold 1 of 2; train fold=1"):
        open_teachers("run/fold0", runs=tmp_path)
    (run / "fold1" / "score.json").unlink()
    with pytest.raises(CheckpointError, match=r"^distill\.teacher: .*fold1 is not finished"):
        open_teachers("run", runs=tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "config.yaml").write_text("stacker: {}")
    with pytest.raises(CheckpointError, match=r"^distill\.teacher: .*is a stack: name a run"):
        open_teachers("s", runs=tmp_path)


def test_a_teacher_that_every_row_trained_teaches_nothing(data32: Data, tmp_path: Path) -> None:
    data = data32(split=HALVES)
    run = write_teacher(tmp_path / "run", data)
    folder = (run / "fold0").rename(run / "foldall")
    (folder / "config.yaml").write_text(yaml.safe_dump({"fold": "all", "evaluate": "last"}))
    for path in (run / "fold1").rglob("*.*"):
        path.unlink()
    with pytest.raises(ConfigError, match="soft label for none of"):
        teach(config_of(data, str(run)), data)


BOTH = [
    *("auxiliary=columns", "auxiliary.columns=[iddx_1,lesion_id_present,clin_size_long_diam_mm]"),
    *("distill=run", "mixing=mixup", "mixing.off_last_epochs=1"),
]


def test_a_student_of_another_archive_that_needs_no_teacher_afterwards(
    commands: ForkServer, tiny: list[str], two_folds: tuple[Path, str], tmp_path: Path
) -> None:
    from isic.acquire.synthetic import write_isic2024

    root = tmp_path / "isic2024"
    write_isic2024(root, n_images=60, n_test=6, size_range=32, n_patients=16, positives=12, seed=9)
    arguments = [a for a in tiny if not a.startswith("data.root")]
    arguments += [f"data.root={root}", "trainer.max_epochs=2", "name=student", "data.image_size=24"]
    env = {"ISIC_RUNS_ROOT": str(tmp_path / "runs")}
    given = (*arguments, *BOTH, f"distill.teacher={two_folds[0]}")
    code, text = commands.run("train.py", *given, env=env)
    assert code == 0, text
    assert text.count("teacher: predicting with") == 2
    assert "hard labels alone for 0 that trained every fold of it, and for 0" in text
    assert "train/distill" in text
    assert "val/auxiliary" in text
    assert "val/distill" not in text
    code, text = commands.run(
        *("predict.py", f"ckpt={tmp_path / 'runs/student'}", "trainer=cpu"), env=env
    )
    assert code == 0, text
    record = read(tmp_path / "runs/student/fold0/checkpoints/last.ckpt")["isic"]
    names = [head["name"] for head in record["auxiliary"]]
    assert names == ["iddx_1", "lesion_id_present", "clin_size_long_diam_mm"]


def test_killed_and_resumed_with_both_on(
    commands: ForkServer, tiny: list[str], two_folds: tuple[Path, str], tmp_path: Path
) -> None:
    arguments = [*tiny, *BOTH, f"distill.teacher={two_folds[0]}"]
    whole = Experiment(commands, arguments, tmp_path / "whole")
    whole.finish()
    killed = Experiment(commands, arguments, tmp_path / "killed")
    killed.die("in the middle of an epoch")
    killed.finish()
    assert_same_end(killed, whole)


def test_two_processes_learn_from_the_same_soft_labels(
    commands: ForkServer, tiny: list[str], two_folds: tuple[Path, str], tmp_path: Path
) -> None:
    arguments = [*tiny, *BOTH, f"distill.teacher={two_folds[0]}", "trainer=ddp_cpu", "name=ddp"]
    env = {"ISIC_RUNS_ROOT": str(tmp_path / "runs"), "ISIC_CACHE_ROOT": str(tmp_path / "cache")}
    code, text = commands.run("train.py", *arguments, env=env)
    assert code == 0, text
    assert text.count("teacher: wrote") == 1
    assert "train/distill" in text
