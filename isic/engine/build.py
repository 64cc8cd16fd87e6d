"""A plain config -> the objects of a run: data module, classifier, trainer, loggers, metrics."""

import inspect
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import nn

from isic.config.loss import chosen_loss
from isic.config.targets import locate, make
from isic.data import LesionDataModule
from isic.engine.launch import is_launched
from isic.engine.metrics import build_metrics
from isic.engine.unlike_training import typical_sides
from isic.errors import ConfigError
from isic.index.schema import index_hash
from isic.metrics.inputs import asks_for_group
from isic.models.backbone import input_spec
from isic.runs import RunFolder
from isic.training.auxiliary import AuxiliaryLoss
from isic.training.callbacks import CallbackOptions
from isic.training.checkpoint import AtomicCheckpointIO
from isic.training.hardware import TrainerOptions
from isic.training.loggers import LoggerOptions
from isic.training.module import LesionClassifier
from isic.training.unfreeze import Finetune


def check_components(config: Mapping[str, Any]) -> None:
    """Make what needs no data, so that a value it cannot take is said before data is read."""
    _check_choices(config)
    if not isinstance(config["seed"], int) or not 0 <= config["seed"] < 2**32:
        raise ConfigError(f"seed: expected 0 to 2**32 - 1, got {config['seed']}")
    for key in ("callbacks", "loss"):
        instantiate(config[key])
    _finetune(config)
    _own_size(config["model"])  # says what is near a mistyped backbone
    for key in ("auxiliary", "distill"):
        _ = instantiate(config[key]) if config.get(key) else None
    _ = instantiate(config["trainer"]).n_devices  # says which device is not there
    try:
        instantiate(config["optim"]).configure(nn.Linear(1, 1), total_steps=1, epochs=1)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optim: {config['optim']['optimizer']} is refused: {error}") from None


def _check_choices(config: Mapping[str, Any]) -> None:
    """Refuse what would only show after the training."""
    fold, trainer, metrics = config["fold"], config["trainer"], config["metrics"]
    if fold != "all" and (isinstance(fold, bool) or not isinstance(fold, int)):
        raise ConfigError(f"fold: expected a number or all, got {fold!r}")
    if config["evaluate"] not in ("last", "best"):
        raise ConfigError(f"evaluate: expected last or best, got {config['evaluate']!r}")
    seen = [n for n, m in build_metrics(config).items() if not asks_for_group(m)]
    monitors = ["val/loss", *(f"val/{name}" for name in seen)]
    if metrics["monitor"] not in monitors:
        raise ConfigError(
            f"metrics.monitor: expected one of {', '.join(monitors)}, got {metrics['monitor']!r}"
        )
    if config["evaluate"] == "best" and trainer["check_val_every_n_epoch"] > trainer["max_epochs"]:
        raise ConfigError(
            "evaluate=best: nothing is validated in "
            f"{trainer['max_epochs']} epochs with trainer.check_val_every_n_epoch="
            f"{trainer['check_val_every_n_epoch']}"
        )


def build_data(config: Mapping[str, Any]) -> LesionDataModule:
    """The data module of a config; reads nothing yet."""
    size = config["data"]["image_size"] or _own_size(config["model"])
    data: LesionDataModule = make(
        {**config["data"], "image_size": size},
        split=instantiate(config["split"]),
        transforms=instantiate(config["transforms"]),
        sampler=instantiate(config["sampler"]),
        auxiliary=(config.get("auxiliary") or {}).get("columns"),
        fold=config["fold"],
        seed=config["seed"],
        runs_root=Path(config["paths"]["runs"]).resolve(),
        cache_root=Path(config["paths"]["cache"]).resolve(),
    )
    return data


def _own_size(model: Mapping[str, Any]) -> int:
    """Side in pixels that the backbone was made for; 224 for a network that names none."""
    if "backbone" not in model:
        return 224
    return input_spec(model["backbone"], weights=model.get("pretrained", False)).size


def build_classifier(config: Mapping[str, Any], data: LesionDataModule) -> LesionClassifier:
    """Network, objective, optimizer and metrics of a config for the classes of an archive."""
    info = data.index.info
    objective = instantiate(chosen_loss(config["loss"], info))
    network = instantiate(
        config["model"],
        n_logits=objective.n_logits(len(info.classes)),
        image_size=data.image_size,
        **_inputs(config["model"], data),
    )
    return LesionClassifier(
        network,
        classes=info.classes,
        objective=objective,
        optim=instantiate(config["optim"]),
        # while training, rows are not known by their patients
        metrics={n: m for n, m in build_metrics(config).items() if not asks_for_group(m)},
        mixing=instantiate(config["mixing"], seed=config["seed"]) if config["mixing"] else None,
        auxiliary=AuxiliaryLoss(data.heads, weight=config["auxiliary"]["weight"])
        if data.heads
        else None,
        distillation=instantiate(config["distill"]) if config.get("distill") else None,
        finetune=_finetune(config),
        record={
            "config": dict(config),
            "info": info.to_dict(),
            "index_hash": index_hash(data.index.table),
            "image_sides": typical_sides(data.index, data.train_rows.table, data.views),
            "split_hash": data.split.hash,
            "split_file": str(data.split.path),
            **({"metadata": data.encoder.to_dict()} if data.encoder else {}),
        },
    )


def _finetune(config: Mapping[str, Any]) -> Finetune | None:
    """The stages of the training, where there are any."""
    return instantiate(config["finetune"]) if config.get("finetune") else None


def _inputs(model: Mapping[str, Any], data: LesionDataModule) -> dict[str, Any]:
    """What a network is told of a batch beyond its one image, and of heads beside its own.

    Raises:
        ConfigError: A network that takes no such thing.
    """
    inputs: dict[str, Any] = {}
    if len(data.views) > 1:
        inputs["views"] = data.views
    if data.encoder:
        inputs["metadata"] = data.encoder.layout
    if data.heads:
        inputs["n_auxiliary"] = sum(head.n_outputs for head in data.heads)
    target = locate(model["_target_"])
    for name in set(inputs) - set(inspect.signature(target).parameters):
        key = "auxiliary" if name == "n_auxiliary" else f"data.{name}"
        raise ConfigError(f"{key}: {model['_target_']} takes no `{name}`; leave it null")
    return inputs


def build_trainer(
    config: Mapping[str, Any], folder: RunFolder, options: TrainerOptions, loggers: list[Any]
) -> pl.Trainer:
    """A trainer that writes into the run's folder."""
    quiet()
    options.set_matmul_precision()
    # deterministic kernels need no memory that is filled with NaN before it is written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    callbacks: CallbackOptions = instantiate(config["callbacks"])
    validated = config["fold"] != "all"
    finetune = _finetune(config)
    built = callbacks.build(
        folder.path / "checkpoints",
        monitor=config["metrics"]["monitor"] if validated else None,
        mode=config["metrics"]["mode"],
        seed=config["seed"],
    )
    return pl.Trainer(
        default_root_dir=folder.path,
        logger=loggers,
        callbacks=built,
        plugins=[AtomicCheckpointIO(), _environment()],
        enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in built),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=config["logger"]["log_every_n_steps"],
        **options.trainer_arguments(freezes=finetune is not None and finetune.freezes),
    )


def _environment() -> ClusterEnvironment:
    """Who started the ranks, in Lightning's words; its own guess takes salloc for srun.

    A requeue is the launcher's: two that requeue would put a job into the queue twice.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if is_launched() else LightningEnvironment()


def build_loggers(config: Mapping[str, Any], folder: RunFolder) -> list[Any]:
    """`metrics.csv`, and W&B where it is on."""
    options: LoggerOptions = instantiate(config["logger"])
    fold = str(config["fold"])
    return options.build(folder.path, name=config["name"], fold=fold, config=config)


class _Once(logging.Filter):
    """Lets each message of a logger through once: metrics say the same at every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        new = (message := record.getMessage()) not in self._said
        self._said.add(message)
        return new


_ONCE = _Once()


def quiet() -> None:
    """Lightning's banners and its advice on workers say nothing a user can act on here."""
    logging.getLogger("isic.metrics.classification").addFilter(_ONCE)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        "does not have many workers",
        "Checkpoint directory",
        "log_every_n",
        "sync_dist=True",  # our metrics are the same on every rank
        "LeafSpec",
        "did not find any unused parameters",  # in the stage of a fine-tuning where all learn
        "predict returned None",
        "across ranks is zero",  # fold=all validates nothing
        "`srun` command is available",  # on a login node
    ):
        warnings.filterwarnings("ignore", f".*{text}.*")
