"""A winner's recipe against ours at equal compute: out-of-fold AUC and pAUC, paired.

Theirs: the ISIC 2024 winner's image recipe (ilyanovo/isic-2024) in a plain PyTorch loop. As many
negatives as positives, drawn at random each time; the SIIM-ISIC 2020 winner's augmentations in
albumentations; Adam 1e-4, weight decay 1e-6, batches of 32, cosine to 1e-6, sigmoid and BCE. Every
crop is decoded and resized once, into memory. Ours: `train.py experiment=isic2024_cpu`.
Both: the same real crops, folds file, backbone from scratch, side, seed and threads; the weights at
the end, none chosen on a fold. Ours trains first, as many epochs as fit into `--minutes` a fold;
theirs then trains for exactly the CPU time that ours took, its cosine following that clock, so that
a busy machine favours neither. Packing, decoding once and predicting are not counted.
The recipe's learning rate is one of fine-tuning: `--lr 1e-4 1e-3` also gives it that of ours.

    python benchmarks/winner_recipe.py DIR --minutes 3 --folds 5 --lr 1e-4 1e-3
"""

import argparse
import io
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch load
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import albumentations
import cv2
import h5py
import numpy as np
import pytorch_lightning as pl
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.tiles import bench_root
from isic.cli import CONF
from isic.config import SCHEMAS
from isic.data import LesionDataModule
from isic.data.presets import siim_2020
from isic.engine.build import build_classifier, build_data, build_loggers, build_trainer
from isic.engine.inference import predict_rows
from isic.metrics import Metric
from isic.metrics.bootstrap import bootstrap_interval, paired_interval
from isic.metrics.classification import roc_auc
from isic.metrics.partial_auc import partial_auc
from isic.runs import RunFolder
from isic.training.checkpoint import load_weights, read
from isic.training.hardware import TrainerOptions

BATCH, DECAY, LEAST_LR = 32, 1e-6, 1e-6
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
METRICS: dict[str, Metric] = {"AUC": roc_auc, "pAUC": partial_auc}
NEVER = 10**6  # epochs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """What both sides share; `minutes` of CPU time a fold."""

    root: Path
    minutes: float
    n_folds: int
    backbone: str
    size: int
    seed: int
    experiment: str

    @property
    def folder(self) -> Path:
        """Where what is finished is kept: the same command goes on."""
        parts = (self.experiment, self.backbone, self.size, self.minutes, self.n_folds, self.seed)
        return bench_root() / "winner_recipe" / "-".join(map(str, parts))


# ---- ours


def config_of(setting: Setting, fold: int, *, epochs: int) -> dict[str, Any]:
    """The config of `train.py`, validating nothing while it trains."""
    ConfigStore.instance().store(name="train_schema", node=SCHEMAS["train"])
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose(
            "train",
            overrides=[
                *(f"experiment={setting.experiment}", f"data.root={setting.root}", f"fold={fold}"),
                *("data.num_workers=0", f"data.image_size={setting.size}", "trainer=cpu"),
                *(f"model.backbone={setting.backbone}", "model.pretrained=false"),
                *(f"split.n_folds={setting.n_folds}", f"seed={setting.seed}", "logger=csv"),
                *(f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={NEVER}"),
                *("callbacks.progress=none", "name=winner_recipe"),
                *(f"paths.runs={setting.folder}", f"paths.cache={bench_root()}"),
            ],
        )
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return config


class EpochClock(pl.Callback):
    """CPU seconds of this process at the end of each epoch."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends.append(time.process_time())


def train_ours(
    setting: Setting, fold: int, *, epochs: int
) -> tuple[np.ndarray, LesionDataModule, float, list[float]]:
    """P(malignant) of the fold, its data, CPU seconds of training and of each epoch."""
    config = config_of(setting, fold, epochs=epochs)
    data = build_data(config)
    data.setup("fit")
    pl.seed_everything(setting.seed, verbose=False)
    classifier = build_classifier(config, data)
    folder = RunFolder(setting.folder / f"run-{os.getpid()}-{time.time_ns()}")
    folder.path.mkdir(parents=True)
    options = TrainerOptions(**{k: v for k, v in config["trainer"].items() if k != "_target_"})
    trainer = build_trainer(config, folder, options, build_loggers(config, folder))
    clock = EpochClock()
    trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
    start = time.process_time()
    trainer.fit(classifier, data)
    seconds = time.process_time() - start
    load_weights(classifier, read(folder.last), folder.last)
    held_out = np.flatnonzero(data.train_rows.table["fold"].to_numpy() == fold)
    frame = predict_rows(trainer, classifier, data, data.train_rows, held_out, fold=fold)
    return frame["prob_malignant"].to_numpy(), data, seconds, clock.ends


def fitting_epochs(setting: Setting) -> int:
    """How many of our epochs take `minutes`, from the second to the fifth of a short training."""
    *_, ends = train_ours(setting, 0, epochs=5)
    return max(1, round(60 * setting.minutes / float(np.median(np.diff(ends)))))


# ---- theirs


def decoded(data: LesionDataModule, size: int) -> np.ndarray:
    """Every crop, uint8 (N, size, size, 3), decoded once."""
    images = np.empty((len(data.train_rows.table), size, size, 3), np.uint8)
    files: dict[str, h5py.File] = {}
    for i, reference in enumerate(data.train_rows.table["image"]):
        path, _, key = str(reference).partition("#")
        file = files.setdefault(path, h5py.File(data.root / path, "r"))
        pixels = np.array(Image.open(io.BytesIO(file[key][()])).convert("RGB"))
        images[i] = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return images


def normalised(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in channels_last memory."""
    scaled = (images.astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(scaled).permute(0, 3, 1, 2)


def one_to_one(
    target: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless epochs: every positive once and as many negatives, shuffled, in whole batches."""
    positive, negative = np.flatnonzero(target == 1), np.flatnonzero(target == 0)
    while True:
        drawn = rng.choice(negative, len(positive), replace=False)
        order = rng.permutation(np.concatenate([positive, drawn]))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            yield rows, target[rows]


def train_theirs(
    setting: Setting, images: np.ndarray, target: np.ndarray, *, lr: float, seconds: float
) -> tuple[nn.Module, int]:
    """A plain loop for `seconds` of CPU time; the network and its steps."""
    torch.manual_seed(setting.seed)
    rng = np.random.default_rng(setting.seed)
    augment = albumentations.Compose(siim_2020(), seed=setting.seed)
    network = timm.create_model(setting.backbone, num_classes=1)
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=DECAY)
    start, steps = time.process_time(), 0
    for rows, label in one_to_one(target, rng):
        progress = (time.process_time() - start) / seconds
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = LEAST_LR + (lr - LEAST_LR) * 0.5 * (1 + math.cos(math.pi * progress))
        batch = np.stack([augment(image=images[i])["image"] for i in rows])
        logits = network(normalised(batch))[:, 0]
        loss = binary_cross_entropy_with_logits(logits, torch.from_numpy(label).float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps += 1
    return network, steps


@torch.no_grad()
def predicted(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """P(malignant) of each image, float64."""
    network.eval()
    parts = [
        network(normalised(images[i : i + 256]))[:, 0].double().sigmoid()
        for i in range(0, len(images), 256)
    ]
    return torch.cat(parts).numpy()


# ---- both


def one_fold(setting: Setting, fold: int, *, epochs: int, rates: list[float]) -> dict[str, Any]:
    """Predictions of the fold by each side, kept in a file; read from there if it exists."""
    file = setting.folder / f"fold{fold}-{epochs}-{'-'.join(map(str, rates))}.npz"
    if file.exists():
        return dict(np.load(file, allow_pickle=False))
    wall = time.perf_counter()
    ours, data, seconds, _ = train_ours(setting, fold, epochs=epochs)
    log.info(
        "fold %d: ours %d epochs, %.0f s of CPU, %.0f s in all",
        *(fold, epochs, seconds, time.perf_counter() - wall),
    )
    table = data.train_rows.table
    held_out = np.flatnonzero(table["fold"].to_numpy() == fold)
    found: dict[str, Any] = {"ours": ours, "seconds": seconds}
    found["target"] = data.targets(held_out)
    found["group"] = table["group"].to_numpy()[held_out].astype(str)
    images, train = decoded(data, setting.size), data.positions["train"]
    for lr in rates:
        network, steps = train_theirs(
            setting, images[train], data.targets(train), lr=lr, seconds=seconds
        )
        found[f"theirs {lr:g}"] = predicted(network, images[held_out])
        log.info("fold %d: theirs, lr %g: %d steps, %.0f s of CPU", fold, lr, steps, seconds)
    np.savez(file, **found)
    return found


def table(folds: list[dict[str, Any]], rates: list[float]) -> list[str]:
    """Lines of Markdown: each side's metrics with intervals, and ours minus each of theirs."""
    joined = {k: np.concatenate([f[k] for f in folds]) for k in folds[0] if k != "seconds"}
    target, group = joined["target"], joined["group"]
    sides = ["ours", *(f"theirs {lr:g}" for lr in rates)]
    lines = ["| | AUC | pAUC | ours minus it, AUC | ours minus it, pAUC |", "|---|---|---|---|---|"]
    for side in sides:
        cells, differences = [], []
        for metric in METRICS.values():
            low, high = bootstrap_interval(metric, target, joined[side], group=group)
            cells.append(f"{metric(target, joined[side]):.3f} [{low:.3f}, {high:.3f}]")
            given = (target, joined["ours"], joined[side])
            value, low, high = paired_interval(metric, *given, group=group, n_replicates=2000)
            differences.append("" if side == "ours" else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(f"| {' | '.join([side, *cells, *differences])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="A winner's recipe against ours, equal compute.")
    real = os.environ.get("ISIC_REAL")
    parser.add_argument(
        *("root",),
        nargs="?",
        type=Path,
        default=Path(real) / "isic2024" if real else None,
        help="archive of ISIC 2024; default $ISIC_REAL/isic2024",
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="of CPU time a fold and side")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-4], help="of theirs; several")
    parser.add_argument("--backbone", default="mobilenetv3_small_100")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experiment", default="isic2024_cpu")
    given = parser.parse_args()
    if given.root is None:
        parser.error("give the archive's folder, or set ISIC_REAL")
    logging.basicConfig(level=logging.INFO, format="# %(message)s")
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(0)
    setting = Setting(
        *(given.root, given.minutes, given.folds, given.backbone, given.size, given.seed),
        experiment=given.experiment,
    )
    setting.folder.mkdir(parents=True, exist_ok=True)
    kept = setting.folder / "epochs.txt"
    if not kept.exists():
        kept.write_text(str(fitting_epochs(setting)))
    epochs = int(kept.read_text())
    folds = [one_fold(setting, f, epochs=epochs, rates=given.lr) for f in range(given.folds)]
    seconds = float(np.mean([f["seconds"] for f in folds]))
    print(
        f"# {setting.backbone}, {setting.size} px, {epochs} epochs of ours, {seconds:.0f} s a fold"
    )
    print("\n".join(table(folds, given.lr)))


if __name__ == "__main__":
    main()
