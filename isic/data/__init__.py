"""Batches: `ISIC2024DataModule(root)` and others in a notebook, `LesionDataModule` from yaml."""

from isic.data.archives import (
    ISIC2019DataModule,
    ISIC2020DataModule,
    ISIC2024DataModule,
    MILK10kDataModule,
)
from isic.data.datamodule import LesionDataModule

__all__ = [
    "ISIC2019DataModule",
    "ISIC2020DataModule",
    "ISIC2024DataModule",
    "LesionDataModule",
    "MILK10kDataModule",
]
