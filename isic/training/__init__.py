"""The training loop: `SingleImageClassifier(backbone)` in a notebook, `load(ckpt)` to use one."""

from isic.training.checkpoint import load
from isic.training.module import LesionClassifier, SingleImageClassifier

__all__ = ["LesionClassifier", "SingleImageClassifier", "load"]
