"""Batches: `ISIC2024DataModule(root)` in a notebook, `LesionDataModule` from a yaml."""

from isic.data.datamodule import ISIC2024DataModule, LesionDataModule

__all__ = ["ISIC2024DataModule", "LesionDataModule"]
