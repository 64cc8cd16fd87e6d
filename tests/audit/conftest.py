"""A generated archive in which shortcuts can be looked for, and how to plant faults in it."""

import shutil
from pathlib import Path

import pytest

from isic.index.isic2024 import build_index
from isic.index.schema import Index


@pytest.fixture(scope="session")
def archive600(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 training tiles of 32 px (60 malignant, 150 patients), 20 test tiles; read only."""
    from isic.acquire.synthetic.isic2024 import write_isic2024

    root = tmp_path_factory.mktemp("archive600") / "isic2024"
    return write_isic2024(
        root, n_images=600, n_test=20, size_range=32, n_patients=150, positives=60
    )


@pytest.fixture
def copy600(archive600: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(archive600, tmp_path / "isic2024"))


@pytest.fixture(scope="session")
def whole(archive600: Path) -> Index:
    """The index of the archive; copy its table before changing it."""
    return build_index(archive600)
