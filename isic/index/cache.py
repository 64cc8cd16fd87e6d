"""An archive's index kept as parquet, so that 401,059 rows open in half a second.

The file is keyed by the reader, its options and code (`isic.code_hash`, also where it is the user's
own), the code of this package, the libraries that read tables, and the state of the folder: name,
size and mtime of its tables and stores, mtime of its image folders (which changes when a file comes
or goes). Folders that the reader mounted are checked in the same way when the file is opened.
Trap: an image that is replaced in place changes neither; nothing in the index depends on its bytes.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from isic.checksums import BLANK, check, fill_in
from isic.code_hash import code_hash, folders_hash
from isic.files import whole_file
from isic.index.schema import DatasetInfo, Index
from isic.module_sources import versions
from isic.outputs import OUTPUT_MARK

log = logging.getLogger(__name__)

METADATA = b"isic-index"
DEEPEST = 8  # folders below the root
LARGE = 100_000  # bytes of a folder's own entry, some thousands of files
# In place edits of other files (images) do not change a table.
STAMPED = (
    ".csv",
    ".tsv",
    ".tab",
    ".txt",
    ".json",
    ".hdf5",
    ".h5",
    ".tfrec",
    ".tfrecord",
    ".tfrecords",
)


def cached_index(builder: Callable[[Path], Index], root: Path, *, cache_root: Path) -> Index:
    """The index that `builder(root)` gives, read from the cache where nothing has changed.

    A cache root that cannot be written to costs speed only, and is said once.
    """
    root = Path(root)
    if not root.is_dir():
        return builder(root)  # says what is missing, and how to get it
    key = _key(builder, root)
    if key is None:
        log.info("the index of %s is not kept: %s has no source to compare", root, builder)
        return builder(root)
    path = Path(cache_root) / f"{root.resolve().name}-index-{key}.parquet"
    found = _read(path, root)
    if found is not None:
        return found
    index = builder(root)
    try:
        _write(path, index)
    except OSError as error:
        log.warning("the index of %s is not kept: %s; set ISIC_CACHE_ROOT", root, error)
    return index


def tree_stamp(root: Path) -> str:
    """Hash names, sizes and mtimes below `root`, without looking at single image files."""
    lines = "\n".join(sorted(_stamps(str(root), "", depth=0)))
    return hashlib.blake2b(os.fsencode(lines), digest_size=8).hexdigest()  # any bytes are a name


def _stamps(folder: str, name: str, *, depth: int) -> Iterator[str]:
    try:
        status = os.stat(folder)
    except FileNotFoundError:  # a link to nowhere
        return
    # Two links mean no subfolder: a leaf of 401,059 images need not be listed.
    if depth > 1 and status.st_nlink == 2 and status.st_size > LARGE:
        yield f"{name}/ {status.st_mtime_ns}"
        return
    with os.scandir(folder) as found:
        entries = list(found)
    # Results below the root change with every training, and are no data.
    if depth and any(entry.name == OUTPUT_MARK for entry in entries):
        return
    yield f"{name}/ {status.st_mtime_ns}"
    for entry in entries:
        inner = f"{name}/{entry.name}"
        if entry.is_dir() and depth < DEEPEST:  # a link may lead round in a circle
            yield from _stamps(entry.path, inner, depth=depth + 1)
        elif entry.name.lower().endswith(STAMPED) and entry.is_file():
            stat = entry.stat()
            yield f"{inner} {stat.st_size} {stat.st_mtime_ns}"


def _key(builder: Callable[[Path], Index], root: Path) -> str | None:
    """Hash all that decides the index; None where a reader's code cannot be compared."""
    code = code_hash(builder)
    if code is None:
        return None
    # Tables that the options name may lie where no folder tells that they were edited.
    named = [os.path.join(root, text) for text in _texts(builder)]
    tables = [
        f"{p} {os.stat(p).st_size} {os.stat(p).st_mtime_ns}" for p in named if os.path.isfile(p)
    ]
    ours = [folders_hash("index", "images"), *versions("numpy", "pandas", "pyarrow")]
    text = "\n".join([code, *ours, *tables, str(root.resolve()), tree_stamp(root)])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _texts(options: Any) -> Iterator[str]:
    """Every text in a reader's options: some are names of files."""
    if isinstance(options, str | Path):
        yield str(options)
    elif isinstance(options, partial):
        yield from _texts([options.func, options.args, options.keywords])
    elif isinstance(options, Mapping):
        yield from _texts(list(options.values()))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _texts(value)
    elif not isinstance(options, type):
        yield from _texts(list(getattr(options, "__dict__", {}).values()))


def _write(path: Path, index: Index) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {
        "info": index.info.to_dict(),
        "mounts": {name: [str(p), tree_stamp(p)] for name, p in index.mounts.items()},
        "notes": index.notes,
        "untrained": index.untrained,
        "ids": index.ids,
        "unread": index.unread,
    }
    table = pa.Table.from_pandas(index.table, preserve_index=False)
    metadata = {METADATA: json.dumps(about).encode(), b"checksum": BLANK.encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    with whole_file(path) as file:
        pq.write_table(table, file, compression="lz4")
        fill_in(file)


def _read(path: Path, root: Path) -> Index | None:
    """None where it is not there, not whole, or a mounted folder has changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check(path, mend="it is a copy of what the tables say")
        about = json.loads(pq.read_metadata(path).metadata[METADATA])
        mounts = {name: Path(folder) for name, (folder, _) in about["mounts"].items()}
        if any(tree_stamp(mounts[name]) != stamp for name, (_, stamp) in about["mounts"].items()):
            return None
        table = pq.read_table(path, memory_map=True)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            log.warning("%s is no whole index and is made again: %s", path, error)
        return None
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    info = DatasetInfo.from_dict(about["info"])
    kept = {key: about[key] for key in ("notes", "untrained", "ids", "unread")}
    return Index(frame, info, root, mounts, **kept)
