"""Two views of a lesion and its metadata: from a MILK10k archive to batches and submissions."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from isic.data import MILK10kDataModule
from isic.errors import ConfigError, DataError
from isic.index.metadata import MetadataEncoder
from isic.predictions import read_predictions
from isic.training.checkpoint import load, read
from tests.archives import TINY
from tests.commands import TINY as COMMAND
from tests.commands import ForkServer
from tests.killed import Experiment, assert_same_end
from tests.test_configs import trains

BOTH = ["dermoscopic", "clinical"]
COLUMNS = ["age", "sex", "skin_tone_class", "site", "MONET_*"]
SYSTEMS = {
    "dual": ["data.views=[dermoscopic,clinical]"],
    "tabular": ["data.metadata=[age,sex,site]"],
    "both": ["data.views=[clinical,dermoscopic]", f"data.metadata=[{','.join(COLUMNS)}]"],
}
Make = Callable[..., MILK10kDataModule]


@pytest.fixture(scope="session")
def milk(milk32: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a data module of the shared MILK10k archive, by default of both views."""
    folder = tmp_path_factory.mktemp("milk")

    def make(root: Path = milk32, **options: Any) -> MILK10kDataModule:
        fixed = {"image_size": 32, "batch_size": 16, "num_workers": 0, "fold": 0, "views": BOTH}
        places = {"runs_root": folder / "runs", "cache_root": folder / "cache"}
        return MILK10kDataModule(root, **{**fixed, **places, **options})

    return make


@pytest.fixture(scope="session")
def lacking(milk32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str], str]:
    """A copy where every third lesion has no clinical image and one no dermoscopic one."""
    root = Path(shutil.copytree(milk32, tmp_path_factory.mktemp("lacking") / "milk10k"))
    for part in ("Training", "Test"):
        table = pd.read_csv(root / f"MILK10k_{part}_Metadata.csv")
        clinical = table[table["image_type"].str.startswith("clinical")].iloc[::3]
        dermoscopic = table[table["image_type"] == "dermoscopic"].iloc[1:2]
        for row in [*clinical.itertuples(), *dermoscopic.itertuples()]:
            (found,) = root.rglob(f"{row.isic_id}.jpg")
            found.unlink()
        if part == "Training":
            known = set(clinical["lesion_id"]), str(dermoscopic["lesion_id"].iat[0])
    return root, *known


def epoch(loader: Any, number: int = 0) -> dict[str, torch.Tensor]:
    """All batches of an epoch as one, in the order of the rows."""
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(number)
    batches = [{k: v.clone() for k, v in batch.items()} for batch in loader]
    joined = {k: torch.cat([b[k] for b in batches]) for k in batches[0]}
    order = joined["row"].argsort()
    return {k: v[order] for k, v in joined.items()}


# ---- batches


def test_two_views_are_the_batches_of_each_view(milk: Make) -> None:
    both = epoch(milk().val_dataloader())
    for view, key in (("dermoscopic", "image"), ("clinical", "image_clinical")):
        alone = epoch(milk(views=[view]).val_dataloader())
        assert set(alone) == {"image", "target", "row"}
        assert torch.equal(both[key], alone["image"])
        assert both[f"has_{view}"].all()
    assert not torch.equal(both["image"], both["image_clinical"])


def test_a_training_batch(milk: Make) -> None:
    batch = next(iter(milk(metadata=COLUMNS).train_dataloader()))
    assert list(batch) == [
        *("image", "has_dermoscopic", "image_clinical", "has_clinical"),
        *("target", "row", "metadata"),
    ]
    for key in ("image", "image_clinical"):
        assert batch[key].shape == (16, 3, 32, 32)
        assert batch[key].dtype == torch.uint8
        assert batch[key].is_contiguous(memory_format=torch.channels_last)
    assert batch["has_clinical"].dtype == torch.bool
    assert batch["metadata"].dtype == torch.float32


def test_the_first_view_is_augmented_as_when_it_is_alone(milk: Make) -> None:
    both = epoch(milk().train_dataloader())
    alone = epoch(milk(views=["dermoscopic"]).train_dataloader())
    clinical = epoch(milk(views=["clinical"]).train_dataloader())
    assert torch.equal(both["image"], alone["image"])
    differ = (both["image_clinical"] != clinical["image"]).flatten(1).any(1)
    assert differ.all(), "both views of a sample are drawn alike"
    again = epoch(milk(num_workers=2).train_dataloader())
    assert all(torch.equal(both[k], again[k]) for k in both)
    later = epoch(milk().train_dataloader(), 1)
    seen = [i for i, row in enumerate(later["row"].tolist()) if row == int(both["row"][0])]
    for i in seen:
        assert not torch.equal(both["image_clinical"][0], later["image_clinical"][i])


@pytest.mark.parametrize("cache", ["bytes", "pixels"])
def test_a_missing_view_is_black_and_said(
    milk: Make, lacking: tuple[Path, set[str], str], tmp_path: Path, cache: str
) -> None:
    root, no_clinical, no_dermoscopic = lacking
    places = {"runs_root": tmp_path, "cache_root": tmp_path, "cache": cache}
    data = milk(root, **places)
    rows = data.train_rows
    assert rows.readable.all(), "a row with one view is used"
    use = data.positions
    for loader, part in (
        (data.train_dataloader(), use["train"]),
        (data.val_dataloader(), use["val"]),
    ):
        batch = epoch(loader)
        lesions = rows.table["lesion_id"].to_numpy()[part][batch["row"]]
        assert batch["has_clinical"].tolist() == [x not in no_clinical for x in lesions]
        assert batch["has_dermoscopic"].tolist() == [x != no_dermoscopic for x in lesions]
        for key, has in (("image", "has_dermoscopic"), ("image_clinical", "has_clinical")):
            assert not batch[key][~batch[has]].any()
            assert batch[key][batch[has]].flatten(1).any(1).all()
    with pytest.raises(DataError, match="20 of 60 rows have no image"):
        _ = milk(root, views=["clinical"], **places).train_rows


def test_a_broken_view_is_an_error_or_a_missing_view(
    milk: Make, milk32: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(milk32, tmp_path / "milk10k"))
    table = pd.read_csv(root / "MILK10k_Training_Metadata.csv")
    broken = table[table["image_type"].str.startswith("clinical")].iloc[:2]
    for name in broken["isic_id"]:
        (found,) = root.rglob(f"{name}.jpg")
        found.write_bytes(found.read_bytes()[:99])
    places = {"runs_root": tmp_path / "runs", "cache_root": tmp_path / "cache"}
    with pytest.raises(DataError, match="2 of 120 images cannot be read"):
        _ = milk(root, **places).positions
    data = milk(root, on_bad_image="skip", **places)
    assert data.train_rows.readable.all()
    batches = [epoch(data.train_dataloader()), epoch(data.val_dataloader())]
    assert sum(int((~batch["has_clinical"]).sum()) for batch in batches) <= 2
    assert (
        milk(root, views=["clinical"], on_bad_image="skip", **places).train_rows.readable.sum()
        == 58
    )


@pytest.mark.parametrize("views", [["tbp"], ["clinical", "clinical"], [*BOTH, "tbp"]])
def test_views_that_are_not_there(milk: Make, views: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.views: expected one or more of dermoscopic, cli"):
        _ = milk(views=views).train_rows


# ---- metadata


def test_metadata_is_that_of_the_rows(milk: Make) -> None:
    data = milk(metadata=COLUMNS)
    encoder, table = data.encoder, data.train_rows.table
    assert encoder is not None
    assert len([c for c in encoder.columns if c.startswith("MONET_")]) == 14
    assert set(encoder.groups) == {*BOTH, "age", "sex", "skin_tone_class", "site"}
    assert len(encoder.groups["clinical"]) == 7
    for loader, part in ((data.train_dataloader(), "train"), (data.val_dataloader(), "val")):
        batch = epoch(loader)
        rows = table.iloc[data.positions[part][batch["row"]]]  # type: ignore[literal-required]
        assert np.array_equal(batch["metadata"].numpy(), encoder.encode(rows))


def test_the_encoder_never_sees_rows_that_do_not_train(milk: Make) -> None:
    def state(which: str | None) -> dict[str, Any]:
        data = milk(metadata=COLUMNS)
        if which:
            row = int(data.positions[which][0])  # type: ignore[literal-required]
            table = data.train_rows.table
            table.loc[row, ["age", "site"]] = [1e6, "moon"]
        assert data.encoder is not None
        return data.encoder.to_dict()

    assert state("held_out") == state(None)
    assert state("train") != state(None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["age", "diagnosis_confirm_type"], "train-only columns diagnosis_confirm_type"),
        (["age", "diagnosis"], "train-only columns diagnosis"),
        (["MEL"], "train-only columns MEL"),
        (["*"], "train-only columns"),
        (["lesion_id"], "names rows"),
        (["fold"], "names rows"),
        (["age", "hight"], "has no column hight"),
    ],
)
def test_columns_that_are_no_features(milk: Make, columns: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _ = milk(metadata=columns).encoder


# ---- one step of each, and the commands


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_trains_a_step(milk32: Path, tmp_path: Path, system: str) -> None:
    trainer = trains(tmp_path, milk32, "data=milk10k", "metrics=milk10k", *SYSTEMS[system])
    assert trainer.global_step == 1
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.callback_metrics["val/loss"].isfinite()
    record = read(tmp_path / "runs/run/fold0/checkpoints/last.ckpt")["isic"]
    assert ("metadata" in record) == (system != "dual")
    assert bool(record["network"]["views"]) == (system != "tabular")
    if system != "dual":
        kept = MetadataEncoder.from_dict(record["metadata"])
        assert kept.to_dict() == trainer.datamodule.encoder.to_dict()
        assert record["network"]["metadata"] == kept.layout


def test_the_experiment_trains_a_step(milk32: Path, tmp_path: Path) -> None:
    trainer = trains(tmp_path, milk32, "experiment=milk10k_dual_effnetv2", "split.n_folds=2")
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.datamodule.views == BOTH
    assert len(trainer.datamodule.encoder.columns) == 18
    network = trainer.lightning_module.network
    assert len(network.others) == 1
    assert network.arguments["fusion"]["kind"] == "gated"


def test_a_lesion_without_a_view_trains_with_mixing(
    lacking: tuple[Path, set[str], str], tmp_path: Path
) -> None:
    chosen = ["data=milk10k", "metrics=milk10k", "mixing=mixup_cutmix", *SYSTEMS["both"]]
    trainer = trains(tmp_path, lacking[0], *chosen)
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_the_classifiers_of_a_notebook(milk: Make, tmp_path: Path) -> None:
    import pytorch_lightning as pl

    from isic.training import DualImageClassifier, ImageTabularClassifier

    data = milk(metadata=["age", "sex", "site"])
    assert data.encoder is not None
    plain = {"pretrained": False, "image_size": 32, "classes": data.index.info.classes}
    for model in (
        DualImageClassifier(TINY, fusion="gated", **plain),
        ImageTabularClassifier(TINY, encoder=data.encoder, **plain),
        ImageTabularClassifier(TINY, encoder=data.encoder, views=BOTH, **plain),
    ):
        trainer = pl.Trainer(
            max_steps=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data)
        trainer.save_checkpoint(tmp_path / "it.ckpt")
        again = load(tmp_path / "it.ckpt").eval()
        batch = next(iter(data.val_dataloader()))
        with torch.no_grad():
            assert torch.equal(again(batch), model.eval()(batch))
        known = data.encoder.to_dict() if isinstance(model, ImageTabularClassifier) else None
        assert again.record.get("metadata") == known


def run(commands: ForkServer, script: str, places: dict[str, str], *arguments: str) -> str:
    code, text = commands.run(script, *arguments, "trainer=cpu", env=places)
    assert code == 0, text
    return text


def places(folder: Path) -> dict[str, str]:
    return {"ISIC_RUNS_ROOT": str(folder / "runs"), "ISIC_CACHE_ROOT": str(folder / "cache")}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_from_the_command_line_to_a_submission(
    commands: ForkServer, lacking: tuple[Path, set[str], str], tmp_path: Path, system: str
) -> None:
    root, where = lacking[0], places(tmp_path)
    drop = ["data.missing_images=drop"] if system == "tabular" else []
    text = run(
        *(commands, "train.py", where, "-m", "fold=0,1", *COMMAND, "data=milk10k", "name=it"),
        *(f"data.root={root}", "trainer.max_epochs=1", *drop, *SYSTEMS[system]),
    )
    assert ("rows have no clinical image" in text) == (system != "tabular")
    folder = tmp_path / "runs/it"
    assert len(pd.read_csv(folder / "submission.csv")) == 8
    oof = read_predictions(folder / "oof.parquet")
    assert len(oof) == 60
    assert (oof["status"] == "ok").sum() == (59 if system == "tabular" else 60)
    output = tmp_path / "out"
    run(commands, "predict.py", where, f"ckpt={folder}", f"output={output}")
    ours = read_predictions(output / "predictions.parquet")
    probabilities = [c for c in ours if c.startswith("prob_")]
    theirs = read_predictions(folder / "test.parquet")
    np.testing.assert_allclose(ours[probabilities], theirs[probabilities], atol=1e-6)
    assert (output / "submission.csv").exists()


@pytest.mark.slow
def test_predictions_on_metadata_that_training_never_saw(
    commands: ForkServer, milk32: Path, tmp_path: Path
) -> None:
    """An unseen site, nothing known at all, and eight flips of both views, from one checkpoint."""
    where = places(tmp_path)
    run(
        *(commands, "train.py", where, *COMMAND, "data=milk10k", "name=it"),
        *(f"data.root={milk32}", "trainer.max_epochs=1", *SYSTEMS["both"]),
    )
    other = Path(shutil.copytree(milk32, tmp_path / "archive"))
    table = pd.read_csv(other / "MILK10k_Test_Metadata.csv", dtype=object)
    lesions = table["lesion_id"].drop_duplicates().tolist()
    table.loc[table["lesion_id"] == lesions[0], "site"] = "foot"
    blank = [c for c in table if c.startswith("MONET")]
    table.loc[table["lesion_id"] == lesions[1], [*blank, "age_approx", "sex", "site"]] = None
    table.loc[table["lesion_id"] == lesions[1], "skin_tone_class"] = None
    table.to_csv(other / "MILK10k_Test_Metadata.csv", index=False)
    frames = []
    for name, more in (("same", []), ("other", [f"data.root={other}"]), ("d4", ["tta=d4"])):
        arguments = [f"ckpt={tmp_path / 'runs/it/fold0'}", f"output={tmp_path / name}", *more]
        run(commands, "predict.py", where, *arguments)
        frame = read_predictions(tmp_path / name / "predictions.parquet").set_index("lesion_id")
        frames.append(frame.filter(like="prob_").loc[lesions].to_numpy())
    same, changed, turned = frames
    assert np.isfinite(changed).all()
    assert not np.allclose(changed[1], same[1], atol=1e-6), "metadata says nothing"
    np.testing.assert_allclose(changed[2:], same[2:], atol=1e-6)
    assert np.isfinite(turned).all()
    assert not np.allclose(turned, same, atol=1e-7)


@pytest.mark.slow
def test_a_folder_of_images_is_predicted_as_lesions_of_the_first_view(
    commands: ForkServer, milk32: Path, tmp_path: Path
) -> None:
    where, mine = places(tmp_path), tmp_path / "mine"
    run(
        *(commands, "train.py", where, *COMMAND, "data=milk10k", "name=it"),
        *(f"data.root={milk32}", "trainer.max_epochs=1", *SYSTEMS["both"]),
    )
    mine.mkdir()
    for i, path in enumerate(sorted(milk32.glob("MILK10k_Test_Input/*/*.jpg"))[:3]):
        shutil.copy(path, mine / f"{i}.jpg")
    text = run(
        commands, "predict.py", where, "ckpt=it", f"images={mine}", f"output={tmp_path / 'o'}"
    )
    assert "3 of 3 rows have no dermoscopic image" in text
    frame = read_predictions(tmp_path / "o/predictions.parquet")
    assert np.isfinite(frame.filter(like="prob_").to_numpy()).all()
    assert pd.read_csv(tmp_path / "o/submission.csv")["image_id"].tolist() == [0, 1, 2]


@pytest.mark.slow
def test_other_metadata_under_the_same_name_is_another_run(
    commands: ForkServer, milk32: Path, tmp_path: Path
) -> None:
    where, root = places(tmp_path), Path(shutil.copytree(milk32, tmp_path / "milk10k"))
    command = [*COMMAND, "data=milk10k", f"data.root={root}", "name=it", "trainer.max_epochs=1"]
    command += SYSTEMS["tabular"]
    run(commands, "train.py", where, *command)
    table = pd.read_csv(root / "MILK10k_Training_Metadata.csv")
    table.loc[table["lesion_id"] == table["lesion_id"].iat[0], "age_approx"] = 5
    table.to_csv(root / "MILK10k_Training_Metadata.csv", index=False)
    code, text = commands.run("train.py", *command, env=where)
    assert code == 2, text
    assert "metadata_hash" in text


@pytest.mark.slow
def test_a_killed_training_of_everything_is_resumed_exactly(
    commands: ForkServer, lacking: tuple[Path, set[str], str], tmp_path: Path
) -> None:
    arguments = [*COMMAND, "data=milk10k", f"data.root={lacking[0]}", *SYSTEMS["both"]]
    arguments += ["model.fusion=gated", "model.dropout_samples=3", f"paths.cache={tmp_path}"]
    whole = Experiment(commands, arguments, tmp_path / "whole")
    whole.finish()
    killed = Experiment(commands, arguments, tmp_path / "killed")
    killed.die("in the middle of an epoch")
    assert "resuming after epoch" in killed.finish()
    assert_same_end(killed, whole)


@pytest.mark.slow
def test_two_processes_predict_every_lesion_once(
    commands: ForkServer, lacking: tuple[Path, set[str], str], tmp_path: Path
) -> None:
    code, text = commands.run(
        *("train.py", *COMMAND, "data=milk10k", f"data.root={lacking[0]}", *SYSTEMS["both"]),
        *("trainer=ddp_cpu", "trainer.max_epochs=1", "name=it"),
        env=places(tmp_path),
    )
    assert code == 0, text
    assert (tmp_path / "runs/it/fold0/frozen.yaml").exists(), "one process"
    oof = read_predictions(tmp_path / "runs/it/fold0/oof.parquet")
    assert oof["lesion_id"].is_unique
    assert len(oof) == 30
    assert np.isfinite(oof.filter(like="prob_").to_numpy()).all()
