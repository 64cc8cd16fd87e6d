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
from operator import attrgetter
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from isic.config.paths import typed_path
from isic.errors import DataError, first_five
from isic.images.sources import TFRECORDS, reference, refuse_names
from isic.index.passed_over import UNREAD, PassedOver, unread_note
from isic.outputs import OUTPUT_MARK

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
    unread: dict[str, str] = {}
    met = PassedOver(root)
    for name in walk(root, within, suffixes=(*EXTENSIONS, *UNREAD), met=met):
        stem, extension = os.path.splitext(name.rpartition("/")[2])
        image_id = id_of(stem, wanted)
        if image_id is None:
            continue
        if extension.lower() in UNREAD:
            unread[image_id] = name
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
    refuse_names([name for _, name in found.values()])
    refs = references(ids, {image_id: reference(name) for image_id, (_, name) in found.items()})
    notes = marked_otherwise(i for i, (rank, _) in found.items() if rank[0]) + met.notes()
    if left := [name for image_id, name in unread.items() if image_id not in found]:
        notes.append(unread_note(left))
    return refs, notes


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


def walk(
    root: Path, within: Folders, *, suffixes: tuple[str, ...], met: PassedOver | None = None
) -> Iterator[str]:
    """Names of the files with one of these endings, relative to the root, in a fixed order.

    within: Look only there, in this order; None looks everywhere. Each folder is visited once.
    met: Collects what is passed over on the way, files of other image formats left aside.

    Links are followed. Raises DataError where `within` names no folder below the root.
    """
    folders = [within or ""] if within is None or isinstance(within, str) else list(within)
    starts = [_start(root, folder) for folder in folders]  # all of them before the first name
    met, seen = met or PassedOver(root), set[str]()
    for place in starts:
        yield from _walk(os.path.join(root, place), place, seen, suffixes, met)


def holds_images(folder: Path) -> bool:
    """Whether any image file lies below; stops at the first, so that 401,059 are not listed."""
    pending, seen = [os.fspath(folder)], set[str]()
    while pending:
        place = os.path.realpath(pending.pop())
        # `walk` passes over what may not be listed, and results of this program
        results = seen and os.path.exists(os.path.join(place, OUTPUT_MARK))
        if place in seen or results or not os.access(place, os.R_OK | os.X_OK):
            continue
        seen.add(place)
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if entry.name.lower().endswith(EXTENSIONS):
                    return True
                if entry.is_dir():
                    pending.append(entry.path)
    return False


def place_below(root: Path, given: str) -> str | None:
    """Where a file or folder lies below the root, as `a/b`, however it is spelled; else None.

    `..`, absolute names and links are fine as long as what they name is inside the root. A name is
    looked for in the root first, then from the working directory, as a shell completes it.
    """
    for path in (os.path.join(root, typed_path(given)), os.fspath(typed_path(given))):
        if not os.path.exists(path):
            continue
        # As it is spelled first: a link in the root that leads elsewhere keeps its own name.
        for resolve in (os.path.abspath, os.path.realpath):
            place = os.path.relpath(resolve(path), resolve(root))
            inside = place != ".." and not place.startswith("../")
            if inside and os.path.samefile(os.path.join(root, place), path):
                return "" if place == "." else place
    return None


def _start(root: Path, folder: str) -> str:
    """The folder of the root that `data.index.images` names; DataError where there is none."""
    place = place_below(root, folder)
    if place is None or not os.path.isdir(os.path.join(root, place)):
        raise DataError(
            f"data.index.images: expected a folder of data.root, got {folder!r}; "
            f"name it relative to {root.absolute()}"
        )
    return place


def _walk(
    folder: str, place: str, seen: set[str], suffixes: tuple[str, ...], met: PassedOver
) -> Iterator[str]:
    """Files of one folder, then of those in it; links to folders are followed."""
    real = os.path.realpath(folder)
    if real in seen:  # a link back up would never end
        return
    seen.add(real)
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=attrgetter("name"))
    except OSError:  # may not be listed
        return
    # The root itself is what was asked for, whatever wrote it.
    if place and any(e.name == OUTPUT_MARK for e in entries):
        met.outputs.append(place)
        return
    prefix, folders = f"{place}/" if place else "", []
    for entry in entries:
        name = entry.name
        # `__MACOSX` and dot folders hold resource forks under the images' own names.
        if name.startswith((".", "__MACOSX")):
            continue
        if entry.is_dir():
            folders.append(entry)
        elif name.lower().endswith(suffixes):
            if entry.is_symlink():
                met.follow(entry.path, prefix + name)
            yield prefix + name
    for entry in folders:
        if entry.is_symlink():
            met.follow(entry.path, prefix + entry.name)
        yield from _walk(entry.path, prefix + entry.name, seen, suffixes, met)


def _rank(name: str, extension: str, official: Sequence[str]) -> tuple[int, int]:
    """Order of choice: kind of file before place; smaller is better."""
    place = next((i for i, f in enumerate(official) if name.startswith(f"{f}/")), len(official))
    return (int(extension == ".dcm"), place)


def _folder(name: str) -> PurePosixPath:
    return PurePosixPath(name).parent
