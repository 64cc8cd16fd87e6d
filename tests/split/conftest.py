"""Generated indexes of every archive, tables alone."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from isic.acquire import synthetic
from isic.index.schema import Index

ARCHIVES = ("isic2019", "isic2020", "isic2024", "milk10k")


@pytest.fixture(scope="session")
def tables_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Index]:
    """Make the index of a generated archive without images: name, number of rows, seed."""
    folder = tmp_path_factory.mktemp("tables")

    def make(name: str, n: int = 400, seed: int = 0) -> Index:
        root = Path(folder) / f"{name}-{n}-{seed}"
        getattr(synthetic, f"write_{name}")(root, n_images=n, seed=seed, images=False)
        index: Index = importlib.import_module(f"isic.index.{name}").build_index(root)
        return index

    return make
