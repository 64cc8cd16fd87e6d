"""Generated JPEG tiles of 32 px and a small HDF5 archive."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import simplejpeg

Tile = Callable[..., bytes]


@pytest.fixture(scope="session")
def tile() -> Tile:
    """A smooth random RGB square as JPEG; the same seed gives the same bytes."""

    def make(seed: int = 0, side: int = 32) -> bytes:
        rng = np.random.default_rng(seed)
        ramp = np.linspace(0, 60, side)[:, None, None] + np.zeros((side, side, 1))
        image = rng.uniform(60, 180, 3) + ramp + rng.normal(0, 3, (side, side, 1))
        return simplejpeg.encode_jpeg(image.clip(0, 255).astype(np.uint8), quality=90)

    return make


@pytest.fixture
def archive(tmp_path: Path, tile: Tile) -> tuple[Path, list[str]]:
    """A folder with an HDF5 of twelve images, and references to them in a shuffled order."""
    root = tmp_path / "archive"
    root.mkdir()
    with h5py.File(root / "train.hdf5", "w") as file:
        for i in range(12):
            file.create_dataset(f"id{i}", data=np.bytes_(tile(i)))
    order = np.random.default_rng(0).permutation(12)
    return root, [f"train.hdf5#id{i}" for i in order]
