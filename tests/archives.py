"""A small generated ISIC 2024 archive, and what is made of it, shared by the tests of a session."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
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


@pytest.fixture(scope="session")
def archive2019(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ISIC 2019: 120 training tiles of 32 px, classes of 4 to 56; 20 test tiles; read only."""
    from isic.acquire.synthetic import write_isic2019

    root = tmp_path_factory.mktemp("archive2019") / "isic2019"
    return write_isic2019(root, n_images=120, n_test=20, size_range=32)


@pytest.fixture(scope="session")
def archive2020(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SIIM-ISIC 2020: 120 training tiles of 32 px, 16 melanomas, 30 patients; 12 test tiles.

    JPEG files, read only. Two pairs of training tiles are duplicates.
    """
    from isic.acquire.synthetic import write_isic2020

    root = tmp_path_factory.mktemp("archive2020") / "isic2020"
    return write_isic2020(root, n_images=120, n_test=12, size_range=32, n_patients=30, positives=16)


@pytest.fixture(scope="session")
def milk32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MILK10k: 60 training lesions of two 32 px images, every class twice or more; 8 test lesions.

    Read only.
    """
    from isic.acquire.synthetic import write_milk10k

    root = tmp_path_factory.mktemp("milk32") / "milk10k"
    return write_milk10k(root, n_images=60, n_test=8, size_range=32)


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


@dataclass(frozen=True)
class Trained:
    """A finished little training: its classifier, trainer, data module and checkpoints."""

    classifier: Any
    trainer: Any
    data: Any
    last: Path
    best: Path


@pytest.fixture(scope="session")
def trained32(data32: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two epochs of a tiny network on the shared archive, weights averaged; treat as read only."""
    import pytorch_lightning as pl

    from isic.metrics.classification import roc_auc
    from isic.metrics.partial_auc import partial_auc
    from isic.training import SingleImageClassifier
    from isic.training.callbacks import ExponentialAverage, checkpoint_callbacks
    from isic.training.checkpoint import AtomicCheckpointIO

    folder = tmp_path_factory.mktemp("trained32")
    metrics = {"pauc": partial_auc, "auc": roc_auc}
    classifier = SingleImageClassifier(TINY, pretrained=False, image_size=32, metrics=metrics)
    data = data32()
    saving = checkpoint_callbacks(folder, monitor="val/auc", mode="max")
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=2,
        callbacks=[ExponentialAverage(0.99), *saving],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier, data)
    return Trained(classifier, trainer, data, folder / "last.ckpt", folder / "best.ckpt")
