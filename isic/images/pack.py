"""An archive's images in one memory-mapped file, made once: all that a DataLoader worker reads.

`build_pack` finds the pack of these images and options under the cache root, or makes it: under
a lock that dies with its holder, into a temporary file that gets its name after fsync. The key
covers root, references, each source's size and mtime, and the options; the root is only read.
Every image is decoded once on the way, so that a broken one is known before the first epoch.

Trap: `resize` encodes each image again (quality 95) and so changes its pixels a little; without
it the original bytes are kept.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from isic.errors import DataError, IsicError
from isic.images.decode import ImageError, decode, fit
from isic.images.packfile import (
    HEADER_BYTES,
    MISSING,
    OK,
    TAIL_ROW_BYTES,
    UNREADABLE,
    Pack,
    PackWriter,
)
from isic.images.progress import Progress
from isic.images.sources import (
    Ref,
    Sources,
    Stat,
    check_refs,
    payload_estimate,
    read_refs,
    stat_files,
)
from isic.runs import waiting_lock

log = logging.getLogger(__name__)

QUALITY = 95  # of `resize`: 35.8 dB against a direct resize, measured at 1024 -> 256
MEMORY_SHARE = 0.4  # of RAM that predecoded pixels may take; beyond it the page cache thrashes
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_CHUNK = 256  # images handed to a thread at once


class _Options(NamedTuple):
    resize: int | None
    pixels: int | None


class _Row(NamedTuple):
    data: bytes
    status: int
    reason: str


def build_pack(
    root: str | Path | Sources,
    images: Sequence[Ref],
    *,
    cache_root: str | Path,
    resize: int | None = None,
    pixels: int | None = None,
    progress: bool = True,
) -> Pack:
    """The pack of `images` (references below `root`, None where there is none), row for row.

    resize: Shorter side in pixels that images are brought to and encoded again with.
    pixels: Side in pixels of decoded squares to store in place of encoded bytes.
    """
    sources = (root if isinstance(root, Sources) else Sources(Path(root))).resolved()
    cache_root, options = Path(cache_root), _Options(resize, pixels)
    if resize is not None and pixels is not None:
        raise ValueError(f"expected resize or pixels, got both: {resize} and {pixels}")
    for folder in (sources.root, *sources.mounts.values()):
        if not folder.is_dir():
            raise DataError(f"expected an archive's folder, got none at {folder}; set data.root")
    check_refs(images)
    stats = stat_files(sources, images)
    path = cache_root / _file_name(sources, images, stats, options)
    if pixels is not None:
        _refuse_beyond_memory(len(images), pixels)
    found = _open_whole(path)
    if found is not None:
        return found
    try:
        cache_root.mkdir(parents=True, exist_ok=True)
        with waiting_lock(Path(f"{path}.lock"), f"packing {path}"):
            found = _open_whole(path)  # another process may have made it while we waited
            if found is not None:
                return found
            needed = _bytes_needed(sources, images, stats, options)
            _refuse_without_space(cache_root, needed)
            _write(path, sources, images, options, needed=needed, progress=progress)
            return Pack(path)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        message = f"expected a writable cache root at {cache_root}, got: {error}"
        raise IsicError(f"{message}; set ISIC_CACHE_ROOT") from error


def _file_name(sources: Sources, images: Sequence[Ref], stats: list[Stat], options: _Options) -> str:
    """`<archive>-<kind>-<key>.pack`; another key for whatever changes a byte of the pack."""
    mounts = [f"{name}={path}" for name, path in sources.mounts.items()]
    head = json.dumps([1, str(sources.root), *mounts, QUALITY, options, stats])
    body = "\n".join("" if ref is None else ref for ref in images)
    key = hashlib.blake2b(f"{head}\n{body}".encode(), digest_size=8).hexdigest()
    kind = f"pixels{options.pixels}" if options.pixels else f"jpeg{options.resize or ''}"
    return f"{sources.root.name}-{kind}-{key}.pack"


def _open_whole(path: Path) -> Pack | None:
    """The pack at `path`, or None where there is none or not a whole one."""
    try:
        return Pack(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        log.warning("not a whole pack, made again: %s", error)
        return None


def _bytes_needed(sources: Sources, images: Sequence[Ref], stats: list[Stat], options: _Options) -> int:
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


def _refuse_without_space(cache_root: Path, needed: int) -> None:
    free = shutil.disk_usage(cache_root).free
    if needed > free:
        raise _no_space(cache_root, needed, free)


def _no_space(cache_root: Path, needed: int, free: int) -> IsicError:
    return IsicError(
        f"the pack needs {needed:,} bytes ({needed / 1e9:.2f} GB), but only {free:,} are free in "
        f"{cache_root.resolve()}; nothing was left there; free space or set ISIC_CACHE_ROOT"
    )


def _write(
    path: Path,
    sources: Sources,
    images: Sequence[Ref],
    options: _Options,
    *,
    needed: int,
    progress: bool,
) -> None:
    """Write the pack under a temporary name, fsync, rename; on any failure remove it."""
    start = time.monotonic()
    # One name, not a random one: whoever takes over from a killed packer truncates its file.
    partial = path.with_name(f".{path.name}.partial")
    tally: Counter[int] = Counter()
    try:
        with (
            open(partial, "wb") as file,
            Progress("packing", total=len(images), enabled=progress) as bar,
        ):
            writer = PackWriter(file, side=options.pixels or 0)
            names = iter(images)
            for rows in _converted(sources, images, options):
                for row, name in zip(rows, names, strict=False):
                    writer.add(name, row.data, status=row.status, reason=row.reason)
                tally.update(row.status for row in rows)
                bar.advance(len(rows))
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _fsync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(path.parent, needed, shutil.disk_usage(path.parent).free) from error
        raise
    log.info(
        "packed %s images (%.2f GB, %s unreadable, %s missing) in %.1f s: %s",
        f"{tally[OK]:,}", path.stat().st_size / 1e9, f"{tally[UNREADABLE]:,}",
        f"{tally[MISSING]:,}", time.monotonic() - start, path,
    )  # fmt: skip


def _fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _converted(sources: Sources, images: Sequence[Ref], options: _Options) -> Iterator[list[_Row]]:
    """Chunks of finished rows in order: this thread reads, others decode (they free the GIL)."""
    threads = min(len(os.sched_getaffinity(0)), 8)  # one reader cannot feed more
    source = read_refs(sources, images)
    waiting: deque[Future[list[_Row]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(islice(source, _CHUNK)):
            waiting.append(pool.submit(_convert_chunk, chunk, options))
            if len(waiting) > 2 * threads:  # bounds memory to a few chunks
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _convert_chunk(chunk: list[bytes | OSError | None], options: _Options) -> list[_Row]:
    return [_convert(data, options) for data in chunk]


def _convert(data: bytes | OSError | None, options: _Options) -> _Row:
    """Check one image by decoding it, and bring it into the pack's form."""
    blank = bytes(3 * options.pixels**2) if options.pixels else b""
    if data is None:
        return _Row(blank, MISSING, "no such image in the archive")
    if isinstance(data, OSError):
        return _Row(blank, UNREADABLE, str(data))
    try:
        image = decode(data, min_side=options.pixels or options.resize)
    except ImageError as error:
        return _Row(blank, UNREADABLE, str(error))
    if options.pixels:
        return _Row(fit(image, options.pixels).tobytes(), OK, "")
    if options.resize:
        return _Row(_encode_with_short_side(image, options.resize), OK, "")
    return _Row(data, OK, "")


def _encode_with_short_side(image: np.ndarray, side: int) -> bytes:
    """Resize so that the shorter side is `side`, and encode as JPEG with 4:2:0 colour."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    if size != (width, height):
        method = cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR
        image = cv2.resize(image, size, interpolation=method)
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=QUALITY, colorsubsampling="420"
    )
    return encoded
