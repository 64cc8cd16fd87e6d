"""What the framework costs: `train.py` against a bare PyTorch loop, one process, one model.

Ours is the whole of a training as `train.py` composes it: Lightning, averaged weights, clipping,
schedule, validation metrics, metrics.csv, and the progress bar drawn as on a terminal. The bare
loop trains the same by hand: forward, backward, clip, step, average. Both read the same batches;
within one fit each of our steps is followed by one of the bare loop, so that a busy machine slows
both alike. A pair is an epoch of each; ours counts what `train.py` counts for its img/s:
everything but validation.
"""

import argparse
import contextlib
import copy
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.tiles import bench_root
from isic.acquire.synthetic import write_isic2024
from isic.cli import CONF
from isic.config import SCHEMAS
from isic.engine.build import build_classifier, build_data, build_loggers, build_trainer
from isic.runs import RunFolder
from isic.training.callbacks import Stopwatch
from isic.training.hardware import TrainerOptions
from isic.training.optim import parameter_groups

TARGET, LEAST_STEP = 0.97, 0.1  # seconds of a model step, so that the share means something
N_IMAGES, BATCH, SIZE, STEPS = 800, 16, 64, 24

log = logging.getLogger(__name__)


def composed(root: Path, runs: Path, *, pairs: int) -> dict[str, Any]:
    """The config of `python train.py model=resnet18 logger=csv ...`."""
    ConfigStore.instance().store(name="train_schema", node=SCHEMAS["train"])
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose(
            "train",
            overrides=[
                *("model=resnet18", "model.pretrained=false", "trainer=cpu", "logger=csv"),
                *(f"data.root={root}", f"data.image_size={SIZE}", f"data.batch_size={BATCH}"),
                *("data.num_workers=0", f"data.samples_per_epoch={STEPS * BATCH}"),
                *("callbacks.progress=bar", f"trainer.max_epochs={pairs + 1}"),
                *(f"paths.runs={runs}", f"paths.cache={bench_root()}", "name=overhead"),
            ],
        )
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return config


class BareLoop(pl.Callback):
    """A copy of the network and its own optimizer: a step of it after each of ours."""

    def __init__(self, network: nn.Module, loader: Any) -> None:
        self.network = copy.deepcopy(network).train()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.network), lr=3e-4)
        self.average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True
        )
        self.loader = loader
        self.seconds: list[float] = []  # an epoch
        self.watched: list[float] = []  # by the stopwatch, up to the end of each epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.loader.sampler.set_epoch(trainer.current_epoch)
        self.batches = iter(self.loader)
        self.seconds.append(0.0)

    def on_train_batch_end(self, *_: Any) -> None:
        start = time.perf_counter()
        batch = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        target = batch["target"][:, None].float()
        binary_cross_entropy_with_logits(self.network(batch), target).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.seconds[-1] += time.perf_counter() - start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        watch = next(c for c in trainer.callbacks if isinstance(c, Stopwatch))
        self.watched.append(watch.train_seconds)

    def pairs(self) -> list[tuple[float, float]]:
        """Seconds of (our epoch, the bare one); the first epoch warms up."""
        ends = zip(self.watched[1:], self.watched[:-1], self.seconds[1:], strict=True)
        return [(end - begin - bare, bare) for end, begin, bare in ends]


@contextlib.contextmanager
def pretended_terminal() -> Iterator[None]:
    """Rich draws its bar in full, into nothing."""
    before = os.environ.get("FORCE_COLOR")
    os.environ["FORCE_COLOR"] = "1"
    try:
        with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
            yield
    finally:
        if before is None:
            del os.environ["FORCE_COLOR"]
        else:
            os.environ["FORCE_COLOR"] = before


def measure(pairs: int) -> list[tuple[float, float]]:
    """Seconds of (ours, bare), a pair an epoch."""
    root = write_isic2024(bench_root() / "overhead", n_images=N_IMAGES, n_test=8)
    with tempfile.TemporaryDirectory() as runs:
        config = composed(root, Path(runs), pairs=pairs)
        data = build_data(config)
        classifier = build_classifier(config, data)
        classifier.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        folder = RunFolder(Path(runs) / "overhead" / "fold0")
        folder.path.mkdir(parents=True)
        options = TrainerOptions(**{k: v for k, v in config["trainer"].items() if k != "_target_"})
        trainer = build_trainer(config, folder, options, build_loggers(config, folder))
        bare = BareLoop(classifier.network, data.train_dataloader())
        trainer.callbacks.append(bare)  # type: ignore[attr-defined]
        with pretended_terminal():
            trainer.fit(classifier, data)
    return bare.pairs()


def run(*, pairs: int = 7) -> list[dict[str, Any]]:
    """The one bar, in images a second."""
    seconds = measure(pairs)
    images = STEPS * BATCH
    ours, bare = (images / median(column) for column in zip(*seconds, strict=True))
    ratios = sorted(theirs / mine for mine, theirs in seconds)
    step = BATCH / bare
    log.info(
        "overhead: %d pairs, ratios %.3f to %.3f; bare step %.0f ms (batch %d, %d px, %d threads)",
        *(pairs, ratios[0], ratios[-1], 1000 * step, BATCH, SIZE, torch.get_num_threads()),
    )
    if step < LEAST_STEP:
        log.warning("overhead: a step of %.0f ms is too short to say much", 1000 * step)
    return [
        {
            "name": "train_vs_bare_loop",
            "ours": round(ours, 1),
            "baseline": round(bare, 1),
            "ratio": round(median(ratios), 4),
            "target": TARGET,
            "ok": median(ratios) >= TARGET and step >= LEAST_STEP,
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the framework costs.")
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="# %(message)s")
    for bar in run(pairs=arguments.pairs):
        print(" ".join(str(value) for value in bar.values()))


if __name__ == "__main__":
    main()
