"""The archive that the loader is measured on: 401,059 HDF5 keys, made once under the cache root.

Sizes follow ISIC 2024's real crops: squares of 61-239 px, mean 133, JPEG 4:2:0 of 2.8 KB. The
bytes repeat among `DISTINCT` generated tiles; what an access costs depends on the number of keys.
"""

import os
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import simplejpeg

KEYS, DISTINCT = 401_059, 60_000
HDF5 = "train-image.hdf5"


def bench_root() -> Path:
    """Where generated archives and their packs are kept: `$ISIC_CACHE_ROOT/bench`."""
    return Path(os.environ.get("ISIC_CACHE_ROOT", ".cache/isic")) / "bench"


def archive(keys: int) -> tuple[Path, list[str]]:
    """A folder that holds `keys` images, made where it is absent, and their ids."""
    root = bench_root() / f"archive{keys}"
    ids = [f"ISIC_{i:07d}" for i in range(keys)]
    if not (root / HDF5).exists():
        root.mkdir(parents=True, exist_ok=True)
        partial = root / f".{HDF5}.partial"
        _write(partial, ids)
        partial.replace(root / HDF5)
    return root, ids


def copy_of(path: Path) -> Path:
    """A second file of the same content, made once.

    HDF5 shares an open file's index with every other handle of the process: beside a handle that
    stays open on the same file, opening per item would cost almost nothing.
    """
    copy = path.with_name(f"copy-{path.name}")
    if not copy.exists():
        partial = path.with_name(f".{copy.name}.partial")
        shutil.copyfile(path, partial)
        partial.replace(copy)
    return copy


def _write(path: Path, ids: list[str]) -> None:
    rng = np.random.default_rng(0)
    sides = rng.normal(133, 19, min(DISTINCT, len(ids))).clip(61, 239).astype(int)
    tiles = [np.bytes_(_tile(rng, int(side))) for side in sides]
    drawn = rng.integers(0, len(tiles), len(ids))
    with h5py.File(path, "w") as file:  # the library's default layout, as Kaggle's file has it
        for image_id, i in zip(ids, drawn.tolist(), strict=True):
            file.create_dataset(image_id, data=tiles[i])


def _tile(rng: np.random.Generator, side: int) -> bytes:
    """Skin texture at three scales, a darker blob and sensor noise."""
    image = np.broadcast_to(rng.uniform((150, 100, 80), (235, 190, 170)), (side, side, 3))
    for cells, strength in ((4, 9), (12, 5), (40, 3)):
        coarse = rng.standard_normal((cells, cells)).astype(np.float32) * strength
        image = image + cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)[..., None]
    y, x = np.mgrid[:side, :side] / side - 0.5
    inside = 1 / (1 + np.exp((np.hypot(x, y) - rng.uniform(0.1, 0.25)) * 30))
    noise = rng.standard_normal((side, side, 1)) * 3
    image = image - inside[..., None] * (50, 60, 55) + noise
    pixels = image.clip(0, 255).astype(np.uint8)
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=85, colorsubsampling="420")
    return encoded
