"""Where the image file of each id lies below an archive's root, however it was unpacked.

Source: the folders themselves, walked once; a file's name without its extension is the id, so that
`<archive>_Input/x.jpg`, a folder in a folder, a folder a lesion or a class, upper-case extensions
and `.png` are all found. Only names are read, never a file. About 200,000 files a second.
Unit: one reference (`folder/x.jpg`, relative to the root) a row, null where there is no file.
Trap: one id in two folders may be two images (original and reduced); an official folder is taken
first, and between others nobody can choose but the user.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa

from isic.errors import DataError, first_five

# In order of choice where a folder holds an id twice; a DICOM file is the slowest way to a JPEG.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".dcm")


def find_images(
    root: Path, ids: pd.Series, *, official: Sequence[str] = (), within: str | None = None
) -> pd.Series:
    """Return the reference of each id, null where no file bears its name.

    official: Folders (relative to the root) whose files win over those elsewhere, best first; what
        lies in their subfolders counts as theirs.
    within: The only folder to look in, relative to the root.

    Raises:
        DataError: `within` is no folder, or ids that lie in several folders of the same rank.
    """
    wanted, found = set(ids.dropna()), dict[str, tuple[tuple[int, int], str]]()
    rivals: dict[str, list[str]] = {}
    for name in walk(root, within, suffixes=EXTENSIONS):
        stem, extension = os.path.splitext(name.rpartition("/")[2])
        if stem not in wanted:
            continue
        rank = _rank(name, extension.lower(), official)
        best = found.get(stem)
        if best is None or rank < best[0]:
            found[stem] = (rank, name)
            rivals.pop(stem, None)
        elif rank == best[0] and _folder(name) != _folder(best[1]):
            rivals[stem] = [best[1], name]
    if rivals:
        named = first_five(" and ".join(pair) for pair in rivals.values())
        raise DataError(
            f"{len(rivals)} images lie in more than one folder of {root.absolute()}: {named}; "
            f"name the folder to use with data.index.images=FOLDER"
        )
    return references(ids, {stem: name for stem, (_, name) in found.items()})


def references(ids: pd.Series, found: Mapping[str, str]) -> pd.Series:
    """The reference of each id as text, null where there is none; one type even if all are null."""
    refs: pd.Series = pa.array([found.get(i) for i in ids], pa.string()).to_pandas()
    return refs.set_axis(ids.index)


def zips_of(root: Path) -> list[str]:
    """Names of the zip files directly below the root: what may not be unpacked yet."""
    return sorted(p.name for p in root.iterdir() if p.suffix.lower() == ".zip")


def walk(root: Path, within: str | None, *, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Names of the files with one of these endings, relative to the root, in a fixed order.

    Links are followed. Raises DataError where `within` is no folder below the root.
    """
    start = root / (within or "")
    if ".." in start.parts or not start.is_relative_to(root) or not start.is_dir():
        raise DataError(
            f"data.index.images: expected a folder of data.root, got {start.absolute()}"
        )
    seen: set[str] = set()
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
            if name.lower().endswith(suffixes):
                yield name if place == "." else f"{place}/{name}"


def _rank(name: str, extension: str, official: Sequence[str]) -> tuple[int, int]:
    """Order of choice: kind of file before place; smaller is better."""
    place = next((i for i, f in enumerate(official) if name.startswith(f"{f}/")), len(official))
    return (int(extension == ".dcm"), place)


def _folder(name: str) -> PurePosixPath:
    return PurePosixPath(name).parent
