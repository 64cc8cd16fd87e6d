"""An archive's images in one memory-mapped file, made once: all that a DataLoader worker reads.

`build_pack` finds the pack of these images and options under the cache root, or makes it: under
a lock that dies with its holder, into a temporary file that gets its name after fsync. The key
covers root, references, each source's size and mtime, the options, and the versions of libraries
that make new pixels; the root is only read.
Every image is decoded once on the way, so that a broken one is known before the first epoch.
A packer that takes over from one that was stopped goes on where that one was.

Trap: a finished pack is found by its key alone, so that whatever changes its bytes, a decoder's
behaviour too, must change the key: see `_KEY_FORM`.
"""

import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2

from isic.errors import DataError, IsicError, first_five
from isic.files import waiting_lock
from isic.images.convert import QUALITY, Options, Row, convert
from isic.images.packfile import (
    HEADER_BYTES,
    MISSING,
    OK,
    TAIL_ROW_BYTES,
    UNREADABLE,
    Pack,
    holds_metadata,
)
from isic.images.partial import PartialPack, beside, remove_forgotten
from isic.images.progress import Progress
from isic.images.sources import (
    DICOM,
    Ref,
    Sources,
    Stat,
    check_refs,
    payload_estimate,
    read_refs,
    stat_files,
)
from isic.module_sources import versions

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.4  # of RAM that predecoded pixels may take; beyond it the page cache thrashes
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_CHUNK, _CHUNK_BYTES = 256, 1 << 24  # images, or bytes of them, handed to a thread at once
_KEY_FORM = 3  # 3: damaged bytes refused, 16 bits scaled by those used, no metadata


def build_pack(
    root: str | Path | Sources,
    images: Sequence[Ref],
    *,
    cache_root: str | Path,
    resize: int | None = None,
    pixels: int | None = None,
    crop_border: bool = False,
    colour_constancy: bool = False,
    progress: bool = True,
) -> Pack:
    """The pack of `images` (references below `root`, None where there is none), row for row.

    resize, pixels, crop_border, colour_constancy: See `convert.Options`.

    Raises:
        DataError: No archive at `root`, or references that leave it.
        IsicError: No room on the disk or in memory, or no writable cache root.
        ValueError: resize together with pixels, or a correction without either.
    """
    sources = (root if isinstance(root, Sources) else Sources(Path(root))).resolved()
    options = Options(
        resize, pixels, crop_border, colour_constancy, max_pixels=sources.max_pixels
    ).checked()
    cache_root = Path(cache_root)
    mounted = sources.mounts and all(ref is None or ref.startswith("@") for ref in images)
    # of merged archives each may lie elsewhere, and nothing in data.root
    for folder in (*(() if mounted else (sources.root,)), *sources.mounts.values()):
        if not folder.is_dir():
            raise DataError(f"expected an archive's folder, got none at {folder}; set data.root")
    check_refs(images)
    stats = stat_files(sources, images)
    path = cache_root / _file_name(sources, images, stats, options)
    if pixels is not None:
        _refuse_beyond_memory(len(images), pixels)
    found = _open_whole(path, warns=False)
    if found is not None:
        return found
    try:
        cache_root.mkdir(parents=True, exist_ok=True)
        with waiting_lock(Path(f"{path}.lock"), f"packing {path}"):
            found = _open_whole(path)  # another process may have made it while we waited
            if found is not None:
                return found
            remove_forgotten(cache_root)
            _warn_of_metadata(path, sources.root.name)
            needed = _bytes_needed(sources, images, stats, options)
            _refuse_without_space(path, needed)
            _write(path, sources, images, options, needed=needed, progress=progress)
            return Pack(path)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        message = f"expected a writable cache root at {cache_root}, got: {error}"
        raise IsicError(f"{message}; set ISIC_CACHE_ROOT") from error


def _file_name(sources: Sources, images: Sequence[Ref], stats: list[Stat], options: Options) -> str:
    """`<archive>-<kind>-<key>.pack`; another key for whatever changes a byte of the pack."""
    mounts = [f"{name}={path}" for name, path in sources.mounts.items()]
    made = [
        _KEY_FORM,
        str(sources.root),
        *mounts,
        QUALITY,
        options,
        stats,
        *_decoders(options, stats),
    ]
    head = json.dumps(made)
    body = "\n".join("" if ref is None else ref for ref in images)
    key = hashlib.blake2b(f"{head}\n{body}".encode(), digest_size=8).hexdigest()
    kind = f"pixels{options.pixels}" if options.pixels else f"jpeg{options.resize or ''}"
    return f"{sources.root.name}-{kind}-{key}.pack"


def _decoders(options: Options, stats: Sequence[Stat]) -> list[str]:
    """Versions of the libraries whose pixels a pack holds; none where it holds the source's bytes.

    A pack of the original bytes is decoded when it is read, by whatever is installed then.
    """
    made = options.resize is not None or options.pixels is not None
    names = ("pillow", "simplejpeg") if made else ()
    dicom = ("pydicom",) if any(name.lower().endswith(DICOM) for name, _, _ in stats) else ()
    return [*versions(*names, *dicom), *([f"opencv {cv2.__version__}"] if made else [])]


def _open_whole(path: Path, *, warns: bool = True) -> Pack | None:
    """The pack at `path`, or None where there is none or not a whole one.

    warns: Whether a damaged one is logged; it is looked at again under the lock.
    """
    try:
        return Pack(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        if warns:
            log.warning("not a whole pack, made again: %s", error)
        return None


def _warn_of_metadata(path: Path, archive: str) -> None:
    """Packs of original bytes that an earlier release made: nothing reads them any more."""
    others = path.parent.glob(f"{glob.escape(archive)}-jpeg-*.pack")
    old = sorted(str(other.resolve()) for other in others if holds_metadata(other))
    if old:
        log.warning(
            "packs of an earlier release keep the images' EXIF (places, names, dates); this one "
            "is made anew without. Delete what nothing reads any more: %s", first_five(old),
        )  # fmt: skip


def _bytes_needed(
    sources: Sources, images: Sequence[Ref], stats: list[Stat], options: Options
) -> int:
    """Size of the finished pack; an estimate from the sources' sizes unless it holds pixels."""
    tables = HEADER_BYTES + sum(TAIL_ROW_BYTES + len(ref or "") for ref in images)
    if options.pixels is not None:
        return tables + len(images) * options.pixels**2 * 3
    if options.resize is not None:
        return tables + len(images) * options.resize**2 // 2  # 4 bits a pixel at QUALITY
    return tables + payload_estimate(sources, images, stats)


def _refuse_beyond_memory(rows: int, side: int) -> None:
    needed = rows * side**2 * 3
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > MEMORY_SHARE * memory:
        raise IsicError(
            f"{rows:,} images of {side} px take {needed:,} bytes ({needed / 1e9:.1f} GB) as "
            f"pixels, more than {MEMORY_SHARE:.0%} of this machine's {memory / 1e9:.1f} GB of "
            "memory; use data.cache=bytes, a smaller size or data.fraction"
        )


def _refuse_without_space(path: Path, needed: int) -> None:
    """Refuse before writing; what an earlier packer has left counts as written."""
    free, partial = shutil.disk_usage(path.parent).free, beside(path, "partial")
    if needed > free + (partial.stat().st_size if partial.exists() else 0):
        raise _no_space(path.parent, needed, free)


def _no_space(cache_root: Path, needed: int, free: int) -> IsicError:
    return IsicError(
        f"the pack needs {needed:,} bytes ({needed / 1e9:.2f} GB), but only {free:,} are free in "
        f"{cache_root.resolve()}; nothing was left there; free space or set ISIC_CACHE_ROOT"
    )


def _write(
    path: Path,
    sources: Sources,
    images: Sequence[Ref],
    options: Options,
    *,
    needed: int,
    progress: bool,
) -> None:
    """Write the pack under a temporary name, fsync, rename."""
    start = time.monotonic()
    try:
        with PartialPack(path, images, side=options.pixels or 0) as partial:
            rest = images[partial.done :]
            with Progress("packing", total=len(images), done=partial.done, enabled=progress) as bar:
                for rows in _converted(sources, rest, options):
                    partial.add(rows)
                    bar.advance(len(rows))
            partial.finish()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(path.parent, needed, shutil.disk_usage(path.parent).free) from error
        raise
    tally = Counter(partial.status)
    log.info(
        "packed %s images (%.2f GB, %s unreadable, %s missing) in %.1f s: %s",
        f"{tally[OK]:,}", path.stat().st_size / 1e9, f"{tally[UNREADABLE]:,}",
        f"{tally[MISSING]:,}", time.monotonic() - start, path,
    )  # fmt: skip


def _converted(sources: Sources, images: Sequence[Ref], options: Options) -> Iterator[list[Row]]:
    """Chunks of finished rows in order: this thread reads, others decode (they free the GIL)."""
    threads = min(len(os.sched_getaffinity(0)), 8)  # one reader cannot feed more
    waiting: deque[Future[list[Row]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for chunk in _chunks(read_refs(sources, images)):
            waiting.append(pool.submit(_convert_chunk, chunk, options))
            if len(waiting) > 2 * threads:  # bounds memory to a few chunks
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # who is told to stop does not first decode the queue


def _chunks(source: Iterable[bytes | OSError | None]) -> Iterator[list[bytes | OSError | None]]:
    """Images for a thread at a time: _CHUNK of them, or _CHUNK_BYTES where they are large."""
    chunk: list[bytes | OSError | None] = []
    size = 0
    for data in source:
        chunk.append(data)
        size += len(data) if isinstance(data, bytes) else 0
        if len(chunk) >= _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _convert_chunk(chunk: list[bytes | OSError | None], options: Options) -> list[Row]:
    return [convert(data, options) for data in chunk]
