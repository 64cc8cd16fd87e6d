"""`train.py` against a training loop made of timm's parts, on the same JPEG files, in one process.

Ours is the whole of a training as `train.py` composes it: packed images, augmentation `light`,
Lightning, averaged weights, clipping, schedule, metrics.csv; packing is done once, before. Theirs
is what timm's own script is made of: `create_dataset`, `create_loader` with its own augmentation
and our colour jitter, `create_optimizer_v2`, `create_scheduler_v2`, `ClassificationTask` with its
averaged weights, `dispatch_clip_grad`. Same backbone, side, batch size, loader workers, threads,
channels_last and optimizer; float32 on the CPU. Each of our steps is followed by one of theirs, so
that a busy machine slows both alike; a round is an epoch of each.
Trap: loader processes work on while the other side's step is taken, so that `--workers` above 0
shows less of what a loader costs.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch load
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
import pytorch_lightning as pl
import simplejpeg
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import dispatch_clip_grad

from benchmarks.overhead import pretended_terminal
from benchmarks.tiles import _tile, bench_root
from isic.cli import CONF
from isic.config import SCHEMAS
from isic.data import LesionDataModule
from isic.engine.build import build_classifier, build_data, build_loggers, build_trainer
from isic.runs import RunFolder
from isic.training.callbacks import Stopwatch
from isic.training.hardware import TrainerOptions

LR, DECAY, CLIP, EMA = 3e-4, 0.05, 1.0, 0.999
JITTER = (0.2, 0.2, 0.2, 0.05)  # brightness, contrast, saturation, hue: those of `light`

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scene:
    """What is trained on: JPEG files of `height` x `width` pixels, decoded to `size`."""

    backbone: str
    height: int
    width: int
    size: int
    batch: int
    steps: int  # an epoch
    target: float = 1.0

    @property
    def words(self) -> str:
        """Backbone, and from which pixels to which."""
        return f"{self.backbone}, {self.width}x{self.height} to {self.size} px"


SCENES = (
    Scene("mobilenetv3_small_100", 133, 133, 96, batch=64, steps=12),  # ISIC 2024's crops
    Scene("resnet18", 450, 600, 128, batch=16, steps=12),  # HAM10000's photographs
)


def photographs(scene: Scene) -> Path:
    """Two folders of JPEG files, one a class, twice as many as an epoch takes; made once."""
    n = 2 * scene.batch * scene.steps
    root = bench_root() / f"files{scene.width}x{scene.height}-{n}"
    if root.exists():
        return root
    rng, partial = np.random.default_rng(0), root.with_suffix(".partial")
    for i in range(n):
        folder = partial / ("benign", "malignant")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        tile = simplejpeg.decode_jpeg(_tile(rng, max(scene.height, scene.width)))
        pixels = np.ascontiguousarray(tile[: scene.height, : scene.width])
        encoded = simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="420")
        (folder / f"ISIC_{i:07d}.jpg").write_bytes(encoded)
    partial.replace(root)
    return root


def composed(scene: Scene, runs: Path, *, rounds: int, workers: int) -> dict[str, Any]:
    """The config of `python train.py data=folder model=... loss=ce`."""
    ConfigStore.instance().store(name="train_schema", node=SCHEMAS["train"])
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose(
            "train",
            overrides=[
                *("data=folder", f"data.root={photographs(scene)}", "split.n_folds=2", "loss=ce"),
                *("split.overlap=false", f"data.samples_per_epoch={scene.steps * scene.batch}"),
                *(f"data.image_size={scene.size}", f"data.batch_size={scene.batch}"),
                *(f"data.num_workers={workers}", f"model.backbone={scene.backbone}"),
                *("model.pretrained=false", "model.dropout=0", "model.drop_path=0"),
                *("trainer=cpu", f"trainer.max_epochs={rounds + 1}"),
                f"trainer.check_val_every_n_epoch={rounds + 2}",
                *("logger=csv", "callbacks.progress=bar", "name=timm_loop"),
                *(f"paths.runs={runs}", f"paths.cache={bench_root()}"),
            ],
        )
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return config


class TimmLoop(pl.Callback):
    """A step of timm's loop after each of ours, on the very files that ours trains on."""

    def __init__(self, scene: Scene, files: Sequence[Path], *, epochs: int, workers: int) -> None:
        self.loader = timm_loader(scene, files, workers=workers)
        model = timm.create_model(scene.backbone, num_classes=2)
        self.task = ClassificationTask(
            model.to(memory_format=torch.channels_last).train(), verbose=False
        )
        self.task.setup_ema(decay=EMA, use_warmup=True)
        self.optimizer = create_optimizer_v2(model, opt="adamw", lr=LR, weight_decay=DECAY)
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            sched="cosine",
            num_epochs=epochs,
            warmup_epochs=1,
            updates_per_epoch=len(self.loader),
            step_on_epochs=False,
        )
        self.updates = 0
        self.seconds: list[float] = []  # an epoch
        self.watched: list[float] = []  # by our stopwatch, up to the end of each epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.batches = iter(self.loader)
        self.seconds.append(0.0)

    def on_train_batch_end(self, *_: Any) -> None:
        start = time.perf_counter()
        self.step(*next(self.batches))
        self.seconds[-1] += time.perf_counter() - start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        watch = next(c for c in trainer.callbacks if isinstance(c, Stopwatch))  # type: ignore[attr-defined]
        self.watched.append(watch.train_seconds)

    def step(self, image: torch.Tensor, target: torch.Tensor) -> None:
        """What timm's `train_one_epoch` does of a batch with these settings."""
        image = image.contiguous(memory_format=torch.channels_last)
        self.task(image, target)["loss"].backward()
        dispatch_clip_grad(self.task.get_clip_parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        self.task.update_ema(step=self.updates)
        self.scheduler.step_update(self.updates)

    def pairs(self) -> list[tuple[float, float]]:
        """Seconds of (our epoch, theirs); the first epoch warms up."""
        ends = zip(self.watched[1:], self.watched[:-1], self.seconds[1:], strict=True)
        return [(end - begin - theirs, theirs) for end, begin, theirs in ends]


def timm_loader(scene: Scene, files: Sequence[Path], *, workers: int) -> Any:
    """timm's loader of these files."""
    dataset = create_dataset("", root=str(files[0].parents[1]))
    samples = [(str(path), dataset.reader.class_to_idx[path.parent.name]) for path in files]
    dataset.reader.samples = samples
    return create_loader(
        dataset,
        input_size=(3, scene.size, scene.size),
        batch_size=scene.batch,
        is_training=True,
        vflip=0.5,
        color_jitter=JITTER,
        num_workers=workers,
        persistent_workers=workers > 0,
        device=torch.device("cpu"),
    )


def trained_files(data: LesionDataModule, *, n: int) -> list[Path]:
    """The files of our training rows, as many as an epoch takes."""
    table = data.train_rows.table.iloc[data.positions["train"][:n]]
    return [data.root / image for image in table["image"]]


def measure(scene: Scene, *, rounds: int, workers: int) -> list[tuple[float, float]]:
    """Seconds of (ours, theirs), a pair an epoch."""
    with tempfile.TemporaryDirectory() as runs:
        config = composed(scene, Path(runs), rounds=rounds, workers=workers)
        data = build_data(config)
        classifier = build_classifier(config, data)
        classifier.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        folder = RunFolder(Path(runs) / "timm_loop" / "fold0")
        folder.path.mkdir(parents=True)
        options = TrainerOptions(**{k: v for k, v in config["trainer"].items() if k != "_target_"})
        trainer = build_trainer(config, folder, options, build_loggers(config, folder))
        files = trained_files(data, n=scene.steps * scene.batch)
        theirs = TimmLoop(scene, files, epochs=rounds + 1, workers=workers)
        if len(theirs.loader) != scene.steps:
            raise RuntimeError(f"{len(theirs.loader)} steps of theirs, {scene.steps} of ours")
        trainer.callbacks.append(theirs)  # type: ignore[attr-defined]
        with pretended_terminal():
            trainer.fit(classifier, data)
    return theirs.pairs()


def bar(scene: Scene, *, rounds: int, workers: int) -> dict[str, Any]:
    """One line of the results, in images a second."""
    seconds = measure(scene, rounds=rounds, workers=workers)
    images = scene.steps * scene.batch
    ours, theirs = (images / median(column) for column in zip(*seconds, strict=True))
    ratios = sorted(their_epoch / our_epoch for our_epoch, their_epoch in seconds)
    log.info(
        "timm_loop: %s: %d rounds, ratios %.2f to %.2f, %d workers, %d threads",
        *(scene.words, rounds, ratios[0], ratios[-1], workers, torch.get_num_threads()),
    )
    return {
        "name": f"train_vs_timm_loop: {scene.words}",
        "ours": round(ours, 1),
        "baseline": round(theirs, 1),
        "ratio": round(median(ratios), 3),
        "target": scene.target,
        "ok": median(ratios) >= scene.target,
    }


def run(*, rounds: int = 7, workers: int = 0) -> list[dict[str, Any]]:
    """A bar a scene, on one thread and `workers` loader processes each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        return [bar(scene, rounds=rounds, workers=workers) for scene in SCENES]
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure train.py against timm's parts.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of each")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="# %(message)s")
    for line in run(rounds=arguments.rounds, workers=arguments.workers):
        print(" ".join(str(value) for value in line.values()))


if __name__ == "__main__":
    main()
