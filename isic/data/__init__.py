"""Batches: `ISIC2024DataModule(root)` and its like in a notebook, `LesionDataModule` from a yaml."""

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
