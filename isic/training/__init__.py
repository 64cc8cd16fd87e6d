"""The training loop: `SingleImageClassifier(backbone)` in a notebook, `load(ckpt)` to use one."""

from isic.training.checkpoint import load
from isic.training.classifiers import (
    DualImageClassifier,
    ImageTabularClassifier,
    SingleImageClassifier,
)
from isic.training.module import LesionClassifier

__all__ = [
    "DualImageClassifier",
    "ImageTabularClassifier",
    "LesionClassifier",
    "SingleImageClassifier",
    "load",
]
