"""Where the image of each ISIC 2024 row lies: an HDF5 store, or loose files found by id.

Source: train-image.hdf5 and test-image.hdf5 of the Kaggle challenge win; then the official folders
(train-image/, *_Training_Input/ and those of test), then one HDF5 of another name for the train
rows, then any folder. Stores lie in the root, or else one folder below it. Unit: one reference
(`file.hdf5#<id>` or `folder/x.jpg`) a row, else null.
Trap: a store is taken for every id of its split without being opened; listing its 401,059 ids would
take longer than the whole index. Where loose files lie beside it, it is asked how many it holds,
and which ones only where these are too few: then the loose files complete it.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import pandas as pd
import pyarrow as pa

from isic.errors import DataError, first_five
from isic.images.hdf5 import lock_refused
from isic.index.image_files import (
    STORES,
    Folders,
    find_images,
    holds_images,
    listed,
    place_below,
)
from isic.index.passed_over import PassedOver

FOLDERS = ("train-image/image", "train-image", "test-image/image", "test-image")
INPUTS = ("_training_input", "_test_input")
FEW = 20_000  # ids that are listed in no time


def image_references(
    root: Path, rows: pd.DataFrame, *, images: Folders = None
) -> tuple[pd.Series, list[str]]:
    """The reference of each row, null where nothing is there, and notes; `rows`: image_id, split.

    images: The only store or folder to look in, or several, relative to the root.

    Raises:
        DataError: Several stores or folders of the same rank, or no such folder or store.
    """
    named = [images] if isinstance(images, str) else images
    stores = _stores(root, named)
    met = PassedOver(root)
    for store in stores:
        met.look_at(store)
    refs = pd.Series(pa.nulls(len(rows), pa.string()).to_pandas().to_numpy(), index=rows.index)
    refs, notes = refs.astype(rows["image_id"].dtype), met.notes()
    folders = None if named is None else [n for n in named if not n.lower().endswith(STORES)]
    below = [""] if folders is None else [place_below(root, n) for n in folders]
    places = [root / place for place in below if place is not None and (root / place).is_dir()]
    loose = bool(stores) and any(map(holds_images, places))
    for split in ("train", "test"):
        own = [s for s in stores if s.lower().rpartition("/")[2] == f"{split}-image.hdf5"]
        if named is not None and split == "test":
            own = own or [s for s in stores if _of_test(s)]
        refs = _fill(root, refs, rows, own[:1], split=split, loose=loose)
    others = [s for s in stores if not _of_test(s)]
    if refs.isna().any():
        official = _official(root)
        within = folders
        if named is None and others and refs.isna().all():
            within = official  # what lies elsewhere beside a store of another name may be anything
        lacking = rows.loc[refs.isna(), "image_id"]
        files, found = find_images(root, lacking, official=official, within=within)
        notes += [*found, *_sources(refs, files)]
        refs = refs.fillna(files)
    if refs[rows["split"] == "train"].isna().all():
        if len(others) > 1:
            raise _several(root, others)
        refs = _fill(root, refs, rows, others, split="train", loose=False)
    return refs, notes


def _sources(stored: pd.Series, files: pd.Series) -> list[str]:
    """A note of how many rows are in stores and how many are loose files, where both are."""
    n_stored, n_loose = int(stored.notna().sum()), int(files.notna().sum())
    if not n_stored or not n_loose:
        return []
    names = stored.dropna().str.partition("#")[0].unique()
    return [f"images: {n_stored} rows are in {first_five(names)}, {n_loose} are loose files"]


def _stores(root: Path, named: Sequence[str] | None) -> list[str]:
    """The HDF5 files directly below the root, else one folder below; or those the user named."""
    if named is None:
        if own := _stores_in(root, ""):
            return own
        return [s for n in listed(root) if (root / n).is_dir() for s in _stores_in(root, f"{n}/")]
    stores = [n for n in named if n.lower().endswith(STORES)]
    places = {n: place_below(root, n) for n in stores}
    absent = [n for n, place in places.items() if place is None or not (root / place).is_file()]
    if absent:
        raise DataError(
            f"data.index.images: expected a file or a folder of data.root, got "
            f"{first_five(absent)}; name it relative to {root.absolute()}"
        )
    return [place for place in places.values() if place is not None]


def _stores_in(root: Path, folder: str) -> list[str]:
    return [folder + name for name in listed(root / folder) if name.lower().endswith(STORES)]


def _of_test(store: str) -> bool:
    return store.lower().rpartition("/")[2].startswith("test")


def _official(root: Path) -> list[str]:
    """The folders of the Kaggle and the archive layout that are there, best first."""
    inputs = [name for name in listed(root) if name.lower().endswith(INPUTS)]
    return [name for name in (*FOLDERS, *inputs) if (root / name).is_dir()]


def _fill(
    root: Path,
    refs: pd.Series,
    rows: pd.DataFrame,
    stores: Sequence[str],
    *,
    split: str,
    loose: bool,
) -> pd.Series:
    """Refer the rows of the split into the store, where there is one.

    loose: Whether files lie beside it that may hold what it lacks.
    """
    for store in stores:
        of_split = rows["split"] == split
        if loose:
            of_split &= _held(root / store, rows["image_id"], at_least=int(of_split.sum()))
        refs = refs.mask(of_split, f"{store}#" + rows["image_id"])
    return refs


def _held(path: Path, ids: pd.Series, *, at_least: int) -> pd.Series:
    """Which ids a store holds; all of them where it is large and holds enough. bool (rows,)"""
    every = pd.Series(True, index=ids.index)
    try:
        with h5py.File(path, "r") as images:
            enough = len(images) > FEW and len(images) >= at_least
            return every if enough else ids.isin(list(images))
    except OSError as error:  # one that does not open is said when images are read
        if refused := lock_refused(path, error):
            raise refused from None  # it is whole: an index made without it would be kept
        return every


def _several(root: Path, stores: Sequence[str]) -> DataError:
    return DataError(
        f"{root.absolute()} must hold one source of train images, got {first_five(stores)}; "
        f"name the one to use with data.index.images={stores[0]}"
    )
