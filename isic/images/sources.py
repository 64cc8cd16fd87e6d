"""Where a row's bytes lie, relative to the archive's root, and those bytes.

`folder/name.jpg`; `file.hdf5#<id>`; `file.tfrec#<offset>` (feature `image` of the record at that
byte); `name.dcm` (the image alone, without a tag). A name `@mount/...` lies in the folder of that
mount instead: `Sources` knows both.
Trap: a reference comes from a CSV, so that it may try to leave the root; `check_refs` refuses
absolute paths and `..` before anything is opened.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from isic.errors import DataError, first_five
from isic.images.decode import MAX_PIXELS, ImageError
from isic.images.dicom import dicom_image
from isic.images.hdf5 import Hdf5Images
from isic.images.limits import refuse_bytes
from isic.images.tfrecord import read_record

Ref = str | None
Stat = tuple[str, int, int]  # file, bytes, mtime in ns; (file, -1, -1) where it cannot be found
TFRECORDS = (".tfrec", ".tfrecord", ".tfrecords")
DICOM = ".dcm"
_NO_NAME = re.compile("[#\x00-\x1f\ud800-\udfff]")  # the last are bytes that are no UTF-8


@dataclass(frozen=True)
class Sources:
    """The folders that references are relative to: the archive's own, and those mounted beside.

    max_pixels: Of an image; what is larger, or would take more bytes than it, is refused unread.
    """

    root: Path
    mounts: Mapping[str, Path] = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS

    def path(self, name: str) -> Path:
        """The file of a reference without its `#` part. Raises DataError for an unknown mount."""
        if not name.startswith("@"):
            return self.root / name
        mount, _, rest = name[1:].partition("/")
        if mount not in self.mounts:
            raise DataError(
                f"expected one of the mounts {', '.join(self.mounts) or '(none)'}, got @{mount}"
            )
        return self.mounts[mount] / rest

    def resolved(self) -> "Sources":
        """The same folders under absolute names without links; a loop of links stays as it is."""
        mounts = {n: Path(os.path.realpath(path)) for n, path in sorted(self.mounts.items())}
        return replace(self, root=Path(os.path.realpath(self.root)), mounts=mounts)


def refuse_names(names: Sequence[str]) -> None:
    """Refuse files whose names mean something else in a reference or are no text.

    Raises:
        DataError: Names the first of them.
    """
    bad = [n for n in names if _NO_NAME.search(n)]
    if bad:
        raise DataError(
            f"image files must have UTF-8 names without #, got {len(bad)} others: "
            f"{first_five(map(ascii, bad))}; rename them"
        )


def reference(name: str) -> str:
    """The reference of a file; a folder named `@...` is kept from being read as a mount."""
    return f"./{name}" if name.startswith("@") else name


def check_refs(
    refs: Sequence[Ref],
    *,
    where: str = "data.root",
    mend: str = "correct the ids in the metadata CSV, or set data.root to a folder that holds them",
) -> None:
    """Refuse references that leave the root; a link in it may lead anywhere.

    where, mend: What the root is to the user, and what to do.
    """
    bad = [r for r in refs if r is not None and ("\0" in r or _leaves_root(_file_of(r)))]
    if bad:
        raise DataError(
            f"expected image paths inside {where}, got {len(bad)} outside: {first_five(bad)}; "
            f"{mend}"
        )


def stat_files(sources: Sources, refs: Sequence[Ref]) -> list[Stat]:
    """Size and mtime of each distinct file that `refs` names, in order of first appearance."""
    files = dict.fromkeys(_file_of(ref) for ref in refs if ref is not None)
    # Plain strings: a Path for each of 401,059 files would take seconds.
    root, stats = str(sources.root), []
    for name in files:
        path = f"{root}/{name}" if not name.startswith("@") else str(sources.path(name))
        try:
            found = os.stat(path)
            stats.append((name, found.st_size, found.st_mtime_ns))
        except OSError:  # absent, a loop of links, no permission: reading it says which
            stats.append((name, -1, -1))
    return stats


def payload_estimate(sources: Sources, refs: Sequence[Ref], stats: Sequence[Stat]) -> int:
    """Bytes that `refs` hold, from file sizes; of an HDF5 file, the share of its ids asked for.

    Of TFRecords the whole file: how many records it holds is not known without reading it.
    """
    asked: dict[str, int] = {}
    for ref in refs:
        if ref is not None and "#" in ref:
            asked[_file_of(ref)] = asked.get(_file_of(ref), 0) + 1
    total = 0.0
    for name, size, _ in stats:
        share = 1.0
        if name in asked and size > 0 and not _is_tfrecord(name):
            with Hdf5Images(sources.path(name)) as images:
                share = min(1.0, asked[name] / max(len(images), 1))
        total += share * max(size, 0)
    return int(total)


def read_refs(sources: Sources, refs: Sequence[Ref]) -> Iterator[bytes | OSError | None]:
    """The bytes of each reference in turn; None where missing, the error where unreadable."""
    with ExitStack() as stack:
        opened: dict[str, Hdf5Images] = {}

        def read(ref: str) -> bytes | None:
            name, separator, item = ref.partition("#")
            path = sources.path(name)
            if separator and _is_tfrecord(name):
                return _image_of_record(path, item)
            if separator:
                if name not in opened:
                    opened[name] = stack.enter_context(Hdf5Images(path, sources.max_pixels))
                return opened[name].read(item)
            data = read_image_file(path, sources.max_pixels)
            if name.lower().endswith(DICOM):
                return dicom_image(data, max_pixels=sources.max_pixels)
            return data

        for ref in refs:
            try:
                yield None if ref is None else read(ref)
            except FileNotFoundError:
                yield None
            except ImageError as error:
                yield OSError(str(error))
            except OSError as error:
                yield error


def read_image_file(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of a file; ImageError where there are more than an image can take."""
    with path.open("rb") as file:
        refuse_bytes(os.fstat(file.fileno()).st_size, "a file", max_pixels)
        return file.read()


def _image_of_record(path: Path, offset: str) -> bytes:
    if not offset.isdecimal():
        raise ImageError(f"{path}: expected the offset of a record after #, got {offset!r}")
    image = read_record(path, int(offset)).get("image")
    if not isinstance(image, bytes):
        raise ImageError(f"{path}: the record at byte {offset} has no feature `image`")
    return image


def _is_tfrecord(name: str) -> bool:
    return name.lower().endswith(TFRECORDS)


def _file_of(ref: str) -> str:
    return ref.partition("#")[0]


def _leaves_root(name: str) -> bool:
    path = PurePosixPath(name.partition("/")[2] if name.startswith("@") else name)
    return path.is_absolute() or ".." in path.parts
