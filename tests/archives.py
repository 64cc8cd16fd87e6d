"""A small generated ISIC 2024 archive, and what is made of it, shared by the tests of a session."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = "test_resnet.r160_in1k"
"""timm's own test model: 0.5 M parameters, batch norm, built in 20 ms."""


@pytest.fixture(scope="session")
def archive32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 training tiles of 32 px (24 malignant) from about 24 patients, 8 test tiles; read only.

    Copy it before changing anything in it: `archive_copy`.
    """
    from isic.acquire.synthetic import write_isic2024

    root = tmp_path_factory.mktemp("archive32") / "isic2024"
    return write_isic2024(root, n_images=120, n_test=8, size_range=32, n_patients=24, positives=24)


@pytest.fixture
def archive_copy(archive32: Path, tmp_path: Path) -> Path:
    """A copy of the archive that a test may break."""
    return Path(shutil.copytree(archive32, tmp_path / "isic2024"))


@pytest.fixture(scope="session")
def data32(archive32: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Make a data module of the shared archive; its split and pack are made once a session."""
    from isic.data import ISIC2024DataModule

    folder = tmp_path_factory.mktemp("data32")

    def make(root: Path = archive32, **options: Any) -> ISIC2024DataModule:
        fixed = {"image_size": 32, "batch_size": 16, "num_workers": 0, "fold": 0}
        places = {"runs_root": folder / "runs", "cache_root": folder / "cache"}
        return ISIC2024DataModule(root, **{**fixed, **places, **options})

    return make
