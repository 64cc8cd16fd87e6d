"""The data module of each archive by name: which index is read, and nothing else."""

from isic.data.datamodule import LesionDataModule
from isic.index import isic2019, isic2020, isic2024, milk10k


class ISIC2019DataModule(LesionDataModule):
    """ISIC 2019: dermoscopic images in eight classes and unknown ones, grouped by lesion."""

    index_builder = staticmethod(isic2019.build_index)


class ISIC2020DataModule(LesionDataModule):
    """SIIM-ISIC 2020: dermoscopic images, benign or malignant, grouped by patient."""

    index_builder = staticmethod(isic2020.build_index)


class ISIC2024DataModule(LesionDataModule):
    """ISIC 2024 (SLICE-3D): crops of 61-239 px, benign or malignant, grouped by patient."""

    index_builder = staticmethod(isic2024.build_index)


class MILK10kDataModule(LesionDataModule):
    """MILK10k: lesions in eleven classes, each with a dermoscopic and a clinical image."""

    index_builder = staticmethod(milk10k.build_index)
