"""The training loop: `SingleImageClassifier(backbone)` in a notebook, `load(ckpt)` to use one."""

from isic.training.checkpoint import load
from isic.training.module import (
    DualImageClassifier,
    ImageTabularClassifier,
    LesionClassifier,
    SingleImageClassifier,
)

__all__ = [
    "DualImageClassifier",
    "ImageTabularClassifier",
    "LesionClassifier",
    "SingleImageClassifier",
    "load",
]
