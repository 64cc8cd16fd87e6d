"""Where the image of each ISIC 2024 row lies: an HDF5 store, or loose files found by id.

Source: train-image.hdf5 and test-image.hdf5 of the Kaggle challenge win; then the official folders
(train-image/, *_Training_Input/ and those of test), then one HDF5 of another name for the train
rows, then any folder. Unit: one reference (`file.hdf5#<id>` or `folder/x.jpg`) a row, else null.
Trap: a store is taken for every id of its split without being opened; opening it would take longer
than the whole index.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from isic.errors import DataError, first_five
from isic.index.image_files import Folders, find_images

SUFFIXES = (".hdf5", ".h5")
FOLDERS = ("train-image/image", "train-image", "test-image/image", "test-image")
INPUTS = ("_training_input", "_test_input")


def image_references(root: Path, rows: pd.DataFrame, *, images: Folders = None) -> pd.Series:
    """The reference of each row, null where nothing is there; `rows`: image_id and split.

    images: The only store or folder to look in, or several, relative to the root.

    Raises:
        DataError: Several stores or folders of the same rank, or no such folder or store.
    """
    named = [images] if isinstance(images, str) else images
    stores = _stores(root, named)
    refs = pd.Series(pa.nulls(len(rows), pa.string()).to_pandas().to_numpy(), index=rows.index)
    refs = refs.astype(rows["image_id"].dtype)
    for split in ("train", "test"):
        own = [s for s in stores if s.lower().rpartition("/")[2] == f"{split}-image.hdf5"]
        if named is not None and split == "test":
            own = own or [s for s in stores if _of_test(s)]
        refs = _fill(refs, rows, own[:1], split=split)
    others = [s for s in stores if not _of_test(s)]
    if refs.isna().any():
        official = _official(root)
        within = official if others else None
        if named is not None:
            within = [n for n in named if not n.lower().endswith(SUFFIXES)]
        lacking = rows.loc[refs.isna(), "image_id"]
        refs = refs.fillna(find_images(root, lacking, official=official, within=within))
    if refs[rows["split"] == "train"].isna().all():
        if len(others) > 1:
            raise _several(root, others)
        refs = _fill(refs, rows, others, split="train")
    return refs


def _stores(root: Path, named: Sequence[str] | None) -> list[str]:
    """The HDF5 files directly below the root, or those that the user named."""
    if named is None:
        return sorted(p.name for p in root.iterdir() if p.suffix.lower() in SUFFIXES)
    stores = [n for n in named if n.lower().endswith(SUFFIXES)]
    absent = [n for n in stores if ".." in Path(n).parts or not (root / n).is_file()]
    if absent:
        raise DataError(
            f"data.index.images: expected a file or a folder of data.root, got "
            f"{first_five(absent)}; name it relative to {root.absolute()}"
        )
    return stores


def _of_test(store: str) -> bool:
    return store.lower().rpartition("/")[2].startswith("test")


def _official(root: Path) -> list[str]:
    """The folders of the Kaggle and the archive layout that are there, best first."""
    inputs = sorted(p.name for p in root.iterdir() if p.name.lower().endswith(INPUTS))
    return [name for name in (*FOLDERS, *inputs) if (root / name).is_dir()]


def _fill(refs: pd.Series, rows: pd.DataFrame, stores: Sequence[str], *, split: str) -> pd.Series:
    """Refer the rows of the split into the store, where there is one."""
    for store in stores:
        refs = refs.mask(rows["split"] == split, f"{store}#" + rows["image_id"])
    return refs


def _several(root: Path, stores: Sequence[str]) -> DataError:
    return DataError(
        f"{root.absolute()} must hold one source of train images, got {first_five(stores)}; "
        f"name the one to use with data.index.images={stores[0]}"
    )
