"""Every yaml of a group that training chooses from: composed, bound, one step of each kind taken.

Parametrised over the files that are there, so that a new yaml is tested by being one. Side 32 (28
where patches are 14 pixels wide), batches of two, one process, no network: `model.pretrained` is
false, or a file that the test makes. What is not about the network runs on a tiny one, and so does
an experiment: `model.backbone=test_resnet.r160_in1k model.pretrained=false` is the one override.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import timm
import torch
import yaml

from isic.data import LesionDataModule
from isic.engine.build import build_classifier, build_data, build_loggers, build_trainer
from isic.engine.teacher import teach
from isic.index.schema import index_hash
from isic.predictions import write_predictions
from isic.runs import RunFolder
from isic.signatures import check_signatures
from isic.training.hardware import TrainerOptions
from tests.archives import TINY
from tests.test_configs import CONF, composed

SMALL = (f"model.backbone={TINY}", "model.pretrained=false")
ELSEWHERE = {"command", "data", "metrics", "model", "folds", "trainer", "callbacks", "logger"} | {
    *("paths", "experiment")
}
"""Groups of train.yaml that have tests of their own, here or in test_configs.py."""
ARCHIVES = {  # of conf/data -> the fixture that generates it
    "isic2019": "archive2019",
    "isic2020": "archive2020",
    "isic2024": "archive32",
    "milk10k": "milk32",
}
NEEDED = {  # what the yamls of a group leave to the command line
    "auxiliary": ["auxiliary.columns=[iddx_1,lesion_id_present]"],
    "finetune": ["trainer.max_epochs=6"],  # so that each of them comes to its last stage
}
PATCH_14 = {"dinov2", "eva02", "hf"}
Fit = Callable[..., pl.Trainer]


def names(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    """The groups whose yamls say how is trained, as train.yaml lists them."""
    defaults = yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
    listed = [next(iter(item)) for item in defaults if isinstance(item, dict)]
    return [group for group in listed if group not in ELSEWHERE]


class Gradients(pl.Callback):
    """The names of the parameters that train, and of those that got a finite gradient."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        every = list(pl_module.network.named_parameters())
        self.trained = [name for name, p in every if p.requires_grad]
        self.frozen = [name for name, p in every if not p.requires_grad]
        self.reached = [n for n, p in every if p.grad is not None and p.grad.isfinite().all()]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where splits and packs of the generated archives are made, once."""
    return tmp_path_factory.mktemp("every_yaml")


@pytest.fixture
def fit(request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> Fit:
    """Compose `train.py`'s config with overrides, then train and validate one batch of two."""

    def one_step(*overrides: str, data: str = "isic2024", size: int = 32) -> pl.Trainer:
        config = composed(
            f"data.root={request.getfixturevalue(ARCHIVES[data])}",
            *(f"data.image_size={size}", "data.batch_size=2", "data.num_workers=0"),
            *("split.n_folds=2", "trainer.accelerator=cpu", "trainer.devices=1"),
            *("trainer.precision=32", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"),
            *("trainer.limit_train_batches=1", "trainer.limit_val_batches=1"),
            *("trainer.accumulate_grad_batches=1", "callbacks.progress=none", "logger.wandb=null"),
            *(f"paths.runs={shared}", f"paths.cache={shared}"),
            *overrides,
        )
        check_signatures(config)
        config["name"] = "run"
        folder = RunFolder(tmp_path / "run" / "fold0")
        folder.path.mkdir(parents=True)
        datamodule = build_data(config)
        if config["distill"]:
            config["distill"]["teacher"] = str(write_teacher(tmp_path / "teacher", datamodule))
            config["distill"]["labels"] = "out_of_fold"  # that teacher's checkpoints are empty
            teach(config, datamodule)
        classifier = build_classifier(config, datamodule)
        options = TrainerOptions(**{k: v for k, v in config["trainer"].items() if k != "_target_"})
        trainer = build_trainer(config, folder, options, build_loggers(config, folder))
        kept = [c for c in trainer.callbacks if not isinstance(c, pl.callbacks.ModelCheckpoint)]
        trainer.callbacks = [*kept, Gradients()]  # a gigabyte is not written for every network
        trainer.fit(classifier, datamodule)
        return trainer

    return one_step


def write_teacher(run: Path, data: LesionDataModule) -> Path:
    """A finished run on the student's split, of made-up predictions; no training."""
    classes, rng = data.index.info.classes, np.random.default_rng(0)
    split = {"split_hash": data.split.hash, "split_file": str(data.split.path)}
    archive = index_hash(data.index.table)
    record = {"classes": list(classes), "index_hash": archive, **split, "network": {}}
    record |= {"network_class": "isic.models.network.LesionNetwork", "activation": "softmax"}
    for fold in range(data.split.n_folds):
        folder = run / f"fold{fold}"
        (folder / "checkpoints").mkdir(parents=True)
        config = {"fold": fold, "n_folds": data.split.n_folds, "evaluate": "last"}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "score.json").write_text("{}")
        torch.save({"isic": record, "state_dict": {}}, folder / "checkpoints" / "last.ckpt")
        rows = data.split.table.query(f"fold == {fold}")[["image_id", "fold"]]
        frame = rows.reset_index(drop=True).assign(lesion_id="L", split="train", status="ok")
        frame = frame[["image_id", "lesion_id", "fold", "split", "status"]]
        shares = rng.dirichlet(np.ones(len(classes)), len(frame))
        probs = pd.DataFrame(shares, columns=[f"prob_{name}" for name in classes])
        write_predictions(
            folder / "oof.parquet", frame.join(probs), run=run.name, index_hash=archive, **split
        )
    return run


def assert_stepped(trainer: pl.Trainer) -> None:
    """A step of each kind an epoch; in the last one every parameter is trained and reached."""
    assert trainer.global_step == trainer.max_epochs
    for split in ("train", "val"):
        assert math.isfinite(float(trainer.callback_metrics[f"{split}/loss"]))
    (gradients,) = [c for c in trainer.callbacks if isinstance(c, Gradients)]
    assert gradients.trained == gradients.reached
    assert not gradients.frozen


def test_the_groups_that_are_found() -> None:
    assert {"loss", "sampler", "transforms", "optim", "mixing"} <= set(groups())
    folders = {p.name for p in CONF.iterdir() if p.is_dir()}
    assert set(groups()) | ELSEWHERE <= folders


@pytest.mark.parametrize("choice", [f"{g}={name}" for g in groups() for name in names(g)])
def test_a_choice_trains_a_step(fit: Fit, choice: str) -> None:
    assert_stepped(fit(choice, *SMALL, *NEEDED.get(choice.partition("=")[0], [])))


@pytest.fixture
def hugging_face(tmp_path: Path) -> Path:
    """A folder as `hf download` writes it, of a DINOv2 of two narrow layers."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=28,
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps({"crop_size": 28}))
    return tmp_path / "hf"


LARGE = "convnextv2 densenet121 dinov2 effnetv2 eva02 panderm resnet50 swinv2".split()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in names("model")]
)
def test_a_network_trains_a_step(fit: Fit, request: pytest.FixtureRequest, name: str) -> None:
    brought = ["model.pretrained=false"]
    if name == "hf":
        folder = request.getfixturevalue("hugging_face")
        brought = [f"model.backbone=hf:{folder}", "model.pretrained=true"]
    assert_stepped(fit(f"model={name}", *brought, size=28 if name in PATCH_14 else 32))


def test_panderm_trains_a_step_from_a_file(fit: Fit, tmp_path: Path) -> None:
    """The yaml that is too large for quick tests, with a small transformer and its weights."""
    small = "test_vit.r160_in1k"
    torch.save(timm.create_model(small).state_dict(), tmp_path / "weights.pth")
    brought = [f"model.backbone={small}", f"model.pretrained={tmp_path / 'weights.pth'}"]
    assert_stepped(fit("model=panderm", *brought))


@pytest.mark.parametrize("name", names("experiment"))
def test_an_experiment_trains_a_step(fit: Fit, name: str) -> None:
    builder = composed(f"experiment={name}")["data"]["index"]["_target_"]
    assert_stepped(fit(f"experiment={name}", *SMALL, data=builder.split(".")[2]))
