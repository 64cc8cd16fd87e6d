"""Where the image file of each id lies below an archive's root, however it was unpacked.

Source: the folders themselves, walked once; a file's name without its extension is the id, so that
`<archive>_Input/x.jpg`, a folder in a folder, a folder a lesion or a class, upper-case extensions
and other formats are all found. Only names are read, never a file. About 200,000 files a second.
Unit: one reference (`folder/x.jpg`, relative to the root) a row, null where there is no file.
Trap: one id in two folders may be two images (original and reduced); an official folder is taken
first, and between others nobody can choose but the user.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from isic.errors import DataError, first_five
from isic.images.sources import TFRECORDS

Folders = str | Sequence[str] | None  # one, several, or everywhere
Rank = tuple[int, int, int]
# What the decoder reads; of an id twice in a folder a DICOM file is the slowest way to a JPEG.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dcm")
STORES = (".hdf5", ".h5")
CONTAINERS = (*STORES, *TFRECORDS)
# ISIC 2019's mark on images that other years hold in full; the ISIC Archive saves them without.
MARK = "_downsampled"


def find_images(
    root: Path, ids: pd.Series, *, official: Sequence[str] = (), within: Folders = None
) -> tuple[pd.Series, list[str]]:
    """Return the reference of each id, null where no file bears its name, and notes.

    A file that bears the id with or without `MARK` is taken where none bears the id itself.

    official: Folders (relative to the root) whose files win over those elsewhere, best first; what
        lies in their subfolders counts as theirs.
    within: The only folder to look in, or folders, relative to the root.

    Raises:
        DataError: `within` names what is no folder, or ids that lie in several folders of one rank.
    """
    wanted, found = set(ids.dropna().tolist()), dict[str, tuple[Rank, str]]()
    rivals: dict[str, list[str]] = {}
    for name in walk(root, within, suffixes=EXTENSIONS):
        stem, extension = os.path.splitext(name.rpartition("/")[2])
        image_id = id_of(stem, wanted)
        if image_id is None:
            continue
        rank = (int(stem != image_id), *_rank(name, extension.lower(), official))
        best = found.get(image_id)
        if best is None or rank < best[0]:
            found[image_id] = (rank, name)
            rivals.pop(image_id, None)
        elif rank == best[0] and _folder(name) != _folder(best[1]):
            rivals[image_id] = [best[1], name]
    if rivals:
        named = first_five(" and ".join(pair) for pair in rivals.values())
        raise DataError(
            f"{len(rivals)} images lie in more than one folder of {root.absolute()}: {named}; "
            f"name the folder to use with data.index.images=FOLDER, or those of train and test "
            f"with data.index.images=[FOLDER,FOLDER]"
        )
    refs = references(ids, {image_id: name for image_id, (_, name) in found.items()})
    return refs, marked_otherwise(i for i, (rank, _) in found.items() if rank[0])


def id_of(stem: str, wanted: Set[str]) -> str | None:
    """The wanted id that a file's name means: its own, else that with or without `MARK`."""
    if stem in wanted:
        return stem
    other = stem.removesuffix(MARK) if stem.endswith(MARK) else stem + MARK
    return other if other in wanted else None


def marked_otherwise(ids: Iterable[str]) -> list[str]:
    """A note of images that were found under the other form of their ids."""
    if not (found := sorted(ids)):
        return []
    return [
        f"{len(found)} images are named with {MARK} where their id has none, or the reverse, as "
        f"the ISIC Archive saves them, and are taken: {first_five(found)}"
    ]


def references(ids: pd.Series, found: Mapping[str, str]) -> pd.Series:
    """The reference of each id as text, null where there is none; one type even if all are null."""
    names = pa.array(found.values(), pa.string())
    place = pc.index_in(pa.array(ids, pa.string()), value_set=pa.array(found, pa.string()))
    refs: pd.Series = names.take(place).to_pandas()
    return refs.set_axis(ids.index)


def listed(folder: Path) -> list[str]:
    """The sorted names in a folder without hidden ones, such as the `._x.jpg` of macOS."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def zips_of(root: Path) -> list[str]:
    """Names of the zip files directly below the root: what may not be unpacked yet."""
    return [name for name in listed(root) if name.lower().endswith(".zip")]


def walk(root: Path, within: Folders, *, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Names of the files with one of these endings, relative to the root, in a fixed order.

    within: Look only there, in this order; None looks everywhere. Each folder is visited once.

    Links are followed. Raises DataError where `within` names no folder below the root.
    """
    folders = [within or ""] if within is None or isinstance(within, str) else list(within)
    starts = [_start(root, folder) for folder in folders]  # all of them before the first name
    seen: set[str] = set()
    for start in starts:
        yield from _walk(root, start, seen, suffixes)


def holds_images(folder: Path) -> bool:
    """Whether any image file lies below; stops at the first, so that 401,059 are not listed."""
    pending, seen = [os.fspath(folder)], set[str]()
    while pending:
        place = os.path.realpath(pending.pop())
        if place in seen:
            continue
        seen.add(place)
        if not os.access(place, os.R_OK | os.X_OK):  # `walk` passes it over, too
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if entry.name.lower().endswith(EXTENSIONS):
                    return True
                if entry.is_dir():
                    pending.append(entry.path)
    return False


def _start(root: Path, folder: str) -> Path:
    """The folder of the root that `data.index.images` names; DataError where there is none."""
    start = root / folder
    if ".." in start.parts or not start.is_relative_to(root) or not start.is_dir():
        raise DataError(
            f"data.index.images: expected a folder of data.root, got {start.absolute()}; "
            f"name it relative to {root.absolute()}"
        )
    return start


def _walk(root: Path, start: Path, seen: set[str], suffixes: tuple[str, ...]) -> Iterator[str]:
    for folder, inner, files in os.walk(start, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up would never end
            inner.clear()
            continue
        seen.add(real)
        # `__MACOSX` and dot folders hold resource forks under the images' own names.
        inner[:] = sorted(d for d in inner if not d.startswith((".", "__MACOSX")))
        place = Path(folder).relative_to(root).as_posix()
        for name in sorted(files):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield name if place == "." else f"{place}/{name}"


def _rank(name: str, extension: str, official: Sequence[str]) -> tuple[int, int]:
    """Order of choice: kind of file before place; smaller is better."""
    place = next((i for i, f in enumerate(official) if name.startswith(f"{f}/")), len(official))
    return (int(extension == ".dcm"), place)


def _folder(name: str) -> PurePosixPath:
    return PurePosixPath(name).parent
