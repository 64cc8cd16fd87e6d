"""The image files below a folder, whoever made it, and ids for them that are safe and unique.

Source: the folder as it lies on disk; only names are read. What `is_hidden` is left out.
Unit: one relative path with forward slashes; ids match `ID_PATTERN` of the index.
Links: a link to a file is a file, a dangling one is not there. A link to a folder is followed once,
after all real folders; one that leads back into the tree or above it would never end and is cut.
Trap: `#` separates a container from an id in a reference, and `@` begins a mount.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from isic.errors import DataError, first_five
from isic.images.sources import reference, refuse_names
from isic.index.passed_over import UNREAD, PassedOver
from isic.index.schema import ID_PATTERN
from isic.outputs import OUTPUT_MARK

# In order of choice where one image is there in two formats.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dcm")
UNREAD_ENDINGS = tuple(UNREAD)
MAX_ID = 64
DIGEST = 9  # a dash and eight hex digits

Links = list[tuple[str, str]]  # relative name, real path


def image_names(root: Path) -> tuple[list[str], list[str]]:
    """Return the sorted paths of all image files below `root`, and notes on what was passed over.

    Raises:
        DataError: A folder that may not be listed, or names that no reference can hold.
    """
    start = os.path.realpath(root)
    seen, links, cut = {start}, Links(), list[str]()
    met = PassedOver(root)
    names = list(_walk(start, "", seen, links, met))
    while links:
        name, real = links.pop(0)
        if real in seen or os.path.join(start, "").startswith(os.path.join(real, "")):
            cut.append(name)
            continue
        seen.add(real)
        if not os.path.join(real, "").startswith(os.path.join(start, "")):
            met.outside.append(name)
        names += _walk(real, f"{name}/", seen, links, met)
    refuse_names(names)
    notes = [f"{len(cut)} links to folders that are read already: {first_five(cut)}"] if cut else []
    return sorted(reference(n) for n in names), notes + met.notes()


def _walk(start: str, prefix: str, seen: set[str], links: Links, met: PassedOver) -> Iterator[str]:
    """Yield image files of real folders below `start`; note folders and links to folders."""
    pending = [(start, prefix)]
    while pending:
        folder, place = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
        if place and any(e.name == OUTPUT_MARK for e in entries):
            met.outputs.append(place.rstrip("/"))
            continue
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                seen.add(entry.path)
                pending.append((entry.path, f"{place}{entry.name}/"))
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append((place + entry.name, os.path.realpath(entry.path)))
            elif entry.name.lower().endswith(EXTENSIONS) and os.path.isfile(entry.path):
                if entry.is_symlink():
                    met.follow(entry.path, place + entry.name)
                yield place + entry.name
            elif entry.name.lower().endswith(UNREAD_ENDINGS) and os.path.isfile(entry.path):
                met.unread.append(place + entry.name)


def is_hidden(name: str) -> bool:
    """What a system leaves behind: dot files, `__MACOSX` of a Mac's zip, `@eaDir` of a Synology."""
    return name.startswith((".", "__MACOSX", "@ea"))


def without_extension(name: str) -> str:
    """`a/b.JPG` -> `a/b`; endings of no image format are part of the name.

    A table goes on naming `b.heic` after the file has been converted to `b.jpg`.
    """
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in (*EXTENSIONS, *UNREAD) else name


def safe_ids(names: Sequence[str]) -> list[str]:
    """One id a path: its stem, or the path made safe where stems are not safe or not unique.

    names: Distinct relative paths. What two paths would be made into alike, or what is longer than
    64 characters, ends in eight hex digits of the path itself.
    """
    paths = [without_extension(n) for n in names]
    stems = [p.rpartition("/")[2] for p in paths]
    count = Counter(s.lower() for s in stems)
    ids = [
        stem if count[stem.lower()] == 1 and re.fullmatch(ID_PATTERN, stem) else _made_safe(path)
        for stem, path in zip(stems, paths, strict=True)
    ]
    count = Counter(i.lower() for i in ids)
    return [
        i if count[i.lower()] == 1 and len(i) <= MAX_ID else f"{i[: MAX_ID - DIGEST]}-{_digest(n)}"
        for i, n in zip(ids, names, strict=True)
    ]


def _made_safe(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", path.removeprefix("./")).strip("_") or "image"


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
