"""The data path against what people write: images a second, one process, 128 px, batch 64.

Variants take turns in one process over the same random positions; a bar's ratio is the median of
the rounds' ratios. Baselines: `h5 per item` opens the HDF5 file for each image (a common Kaggle
notebook); `h5 once` keeps it open (the ISIC 2024 2nd place's dataset); both decode with Pillow and
run albumentations to normalised float32. `decode` is libjpeg-turbo alone on the packed bytes.
Ours gives uint8 (normalised on the device) unless the bar says float32.
"""

import argparse
import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch load
    sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks PyPI on import

import albumentations
import cv2
import h5py
import numpy as np
import simplejpeg
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.tiles import HDF5, KEYS, archive, bench_root, copy_of
from isic.data.dataset import LesionDataset
from isic.data.transforms import FastAugment
from isic.images.pack import Pack, build_pack

SIZE, BATCH = 128, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PARTIAL_KEYS = 20_000  # of the pixel and resized packs: 1 GB as pixels
WARM_READS = 50_000

Measured = dict[str, list[float]]


class FloatPipeline(Dataset[Any]):
    """HDF5 -> Pillow -> albumentations -> normalised float32, opened once or for each item."""

    def __init__(self, path: Path, ids: list[str]) -> None:
        self.path, self.ids = path, ids
        self.file: h5py.File | None = None
        self.transform = albumentations.Compose(
            [
                albumentations.Resize(SIZE, SIZE),
                albumentations.HorizontalFlip(p=0.5),
                albumentations.VerticalFlip(p=0.5),
                albumentations.ColorJitter((0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.05, 0.05), p=1),
                albumentations.Normalize(MEAN, STD),
                ToTensorV2(),
            ]
        )

    def keep_open(self) -> None:
        """Open once, and read enough for HDF5's index to be in memory as deep in an epoch."""
        self.file = h5py.File(self.path, "r")
        for i in np.random.default_rng(1).integers(0, len(self.ids), WARM_READS).tolist():
            self.file[self.ids[i]][()]

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        if self.file is None:
            with h5py.File(self.path, "r") as file:
                data = file[self.ids[i]][()]
        else:
            data = self.file[self.ids[i]][()]
        image = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        return self.transform(image=image)["image"], 0


class Order:
    """A batch sampler over given positions; ours also takes an epoch."""

    def __init__(self, positions: np.ndarray, *, epoch: int | None = None) -> None:
        self.positions, self.epoch = positions, epoch

    def __len__(self) -> int:
        return -(-len(self.positions) // BATCH)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.positions), BATCH):
            batch = self.positions[start : start + BATCH]
            yield batch.tolist() if self.epoch is None else (self.epoch, batch)


class Variant(NamedTuple):
    """One way to load: images at given positions, and how many batches make a turn."""

    load: Callable[[np.ndarray], None]
    batches: int = 32


def baseline(path: Path, ids: list[str], *, per_item: bool) -> Variant:
    """The float pipeline in a plain DataLoader; fewer batches a turn, since it takes longer."""
    dataset = FloatPipeline(path, ids)
    if not per_item:
        dataset.keep_open()

    def load(order: np.ndarray) -> None:
        for _ in DataLoader(dataset, batch_sampler=Order(order)):
            pass

    return Variant(load, batches=2 if per_item else 6)


def ours(pack: Pack, *, normalize: bool = False, batches: int = 32) -> Variant:
    """The pack through LesionDataset, with the baselines' augmentations."""
    rows = np.arange(len(pack))
    stats = (MEAN, STD) if normalize else None
    transform = FastAugment(SIZE, transpose=False, normalize=stats)
    dataset = LesionDataset(pack, rows, np.zeros_like(rows), transform=transform)

    def load(order: np.ndarray) -> None:
        sampler = Order(order % len(pack), epoch=0)
        for _ in DataLoader(dataset, batch_sampler=sampler, collate_fn=lambda batch: batch):
            pass

    return Variant(load, batches)


def decode_only(pack: Pack) -> Variant:
    """libjpeg-turbo on the packed bytes, at full size, nothing else."""

    def load(order: np.ndarray) -> None:
        for row in (order % len(pack)).tolist():
            simplejpeg.decode_jpeg(pack.encoded(row))

    return Variant(load)


def packs(keys: int) -> tuple[Path, list[str], dict[str, Pack]]:
    """The archive and its three packs; says what packing took, once it has been done."""
    root, ids = archive(keys)
    refs = [f"{HDF5}#{i}" for i in ids]
    part, times = refs[:PARTIAL_KEYS], bench_root() / f"packing{keys}.json"
    wanted: dict[str, tuple[list[str], dict[str, int]]] = {
        "bytes": (refs, {}),
        f"resized {SIZE}": (part, {"resize": SIZE}),
        "pixels": (part, {"pixels": SIZE}),
    }
    seconds: dict[str, float] = json.loads(times.read_text()) if times.exists() else {}
    made: dict[str, Pack] = {}
    for name, (rows, options) in wanted.items():
        before = set(bench_root().glob("*.pack"))
        start = time.perf_counter()
        made[name] = build_pack(root, rows, cache_root=bench_root(), **options)
        if made[name].path not in before:
            seconds[name] = time.perf_counter() - start
            times.write_text(json.dumps(seconds))
        pack = made[name]
        pack.warm()  # as the baseline's index is: the state deep in an epoch
        print(
            f"# packing {name}: {len(pack):,} images, {pack.nbytes / 1e9:.2f} GB, "
            f"{seconds.get(name, float('nan')):.1f} s, once",
            flush=True,
        )
    return root, ids, made


def variants(keys: int) -> dict[str, Variant]:
    """Everything that is measured, by name."""
    root, ids, made = packs(keys)
    return {
        "h5 per item": baseline(root / HDF5, ids, per_item=True),
        "h5 once": baseline(copy_of(root / HDF5), ids, per_item=False),
        "ours": ours(made["bytes"]),
        "ours float32": ours(made["bytes"], normalize=True),
        "decode": decode_only(made["bytes"]),
        "ours resized": ours(made[f"resized {SIZE}"]),
        "decode resized": decode_only(made[f"resized {SIZE}"]),
        "ours pixels": ours(made["pixels"], batches=128),
    }


def measure(calls: dict[str, Variant], *, keys: int, rounds: int) -> Measured:
    """Images a second of each variant in each round; a first round to warm up is not counted.

    Each turn has positions of its own: on those of the turn before, memory would be warm.
    """
    rates: Measured = {name: [] for name in calls}
    rng = np.random.default_rng(0)
    for _ in range(rounds + 1):
        for name, variant in calls.items():
            order = rng.integers(0, keys, variant.batches * BATCH)
            start = time.perf_counter()
            variant.load(order)
            rates[name].append(len(order) / (time.perf_counter() - start))
    return {name: values[1:] for name, values in rates.items()}


def bar(rates: Measured, mine: str, theirs: str, name: str, target: float) -> dict[str, Any]:
    """One line of the results, in images a second, with the spread of the rounds' ratios."""
    ratios = [a / b for a, b in zip(rates[mine], rates[theirs], strict=True)]
    return {
        "name": f"loader: {name}, img/s",
        "ours": round(median(rates[mine]), 1),
        "baseline": round(median(rates[theirs]), 1),
        "ratio": round(median(ratios), 3),
        "target": target,
        "ok": median(ratios) >= target,
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "rounds": len(ratios),
    }


def run(*, keys: int = KEYS, rounds: int = 15) -> list[dict[str, Any]]:
    """Measure every bar; each has name, ours, baseline, ratio, target, ok, low, high, rounds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        rates = measure(variants(keys), keys=keys, rounds=rounds)
    finally:
        torch.set_num_threads(threads)
    return [
        bar(rates, "ours", "h5 per item", "uint8 vs h5 per item", 25),
        bar(rates, "ours", "h5 once", "uint8 vs h5 once", 8),
        bar(rates, "ours float32", "h5 once", "float32 vs h5 once", 4.5),
        bar(rates, "ours", "decode", "uint8 vs JPEG decode alone", 0.5),
        bar(rates, "ours resized", "h5 once", f"uint8, pack resized to {SIZE}, vs h5 once", 8),
        bar(rates, "ours resized", "decode resized", f"same vs decode of the {SIZE} px pack", 0.5),
        bar(rates, "ours pixels", "h5 once", "uint8 from predecoded pixels vs h5 once", 40),
    ]


def main() -> None:
    """Print one line a bar, with the spread of its rounds."""
    parser = argparse.ArgumentParser(description="Measure the data path.")
    parser.add_argument("--keys", type=int, default=KEYS, help="HDF5 keys; fewer is a quick look")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="# %(message)s")
    cores = len(os.sched_getaffinity(0))
    print(f"# {cores} cores, OpenCV {cv2.__version__}, torch {torch.__version__}")
    for line in run(keys=arguments.keys, rounds=arguments.rounds):
        print(
            f"{line['name']:<56} {line['ours']:>9,.0f} {line['baseline']:>9,.0f} "
            f"{line['ratio']:>7.2f} {line['target']:>6} {'ok' if line['ok'] else 'short'}"
            f"  [{line['low']:.2f}, {line['high']:.2f}]"
        )


if __name__ == "__main__":
    main()
