"""What an image's bytes are and what it shows, in 594 bytes: to find copies among 401,059 images.

A fingerprint is the hash of the bytes and the low frequencies of a 32 px thumbnail: its cosine
transform, 16 x 16 of the luminance and 4 x 4 of each colour difference, in grey levels, so that the
distance of two of them is the root mean square difference of what they show. Flips and turns only
change signs of coefficients and swap rows with columns: `isic.images.likeness` uses that.
Kept under the cache root, keyed like a pack by references, sources' sizes and mtimes.
Trap: libjpeg's reduced decoding rounds sides up to whole pixels, which stretches a small picture by
a per cent; from `DECODED_SIDE` pixels on that is far below what JPEG itself does.
"""

import errno
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isic.checksums import BLANK, check, fill_in
from isic.errors import IsicError
from isic.files import waiting_lock, whole_file
from isic.images.decode import MAX_PIXELS, ImageError, Pixels, decode
from isic.images.scan import scan
from isic.images.sources import Ref, Sources, Stat, stat_files

log = logging.getLogger(__name__)

VERSION = 2  # of what is stored; 2: damaged bytes have no print, 16 bits scaled by those used
SIDE = 32  # px of the thumbnail
DECODED_SIDE = 8 * SIDE  # px that large images are decoded to, at least
LUMINANCE, COLOUR = 16, 4  # frequencies a side
SCALE = 64  # stored units a grey level
LARGE = 2_000  # images from which on a reading is announced
_NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC,
)  # fmt: skip

PRINT = np.dtype(
    [
        ("digest", "<u8", (2,)),  # of the bytes; 0 where there are none
        ("side", "<u2"),  # px, the shorter one; 0 where the image cannot be decoded
        ("luminance", "<i2", (LUMINANCE, LUMINANCE)),
        ("red", "<i2", (COLOUR, COLOUR)),
        ("blue", "<i2", (COLOUR, COLOUR)),
    ]
)
Prints = NDArray[np.void]

_TO_PLANES = np.array(
    [[0.299, 0.587, 0.114], [0.701, -0.587, -0.114], [-0.299, -0.587, 0.886]], np.float32
)  # RGB -> Y, R - Y, B - Y of JPEG (ITU-R BT.601)


def fingerprint(data: bytes, image: Pixels | None = None, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """One element of `PRINT` as bytes. What does not decode has the hash of its bytes alone.

    image: `data` decoded with `min_side=DECODED_SIDE`, where that is done already.
    """
    digest = hashlib.blake2b(data, digest_size=16).digest()
    try:
        if image is None:
            image = decode(data, min_side=DECODED_SIDE, max_pixels=max_pixels)
    except ImageError:
        return digest.ljust(PRINT.itemsize, b"\0")
    side: bytes = min(*image.shape[:2], 0xFFFF).to_bytes(2, "little")
    thumbnail = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    # (3, SIDE * SIDE): Y, R - Y, B - Y
    planes = _TO_PLANES @ thumbnail.reshape(-1, 3).T.astype(np.float32)
    fine, coarse = _cosines(LUMINANCE), _cosines(COLOUR)
    luminance = fine @ planes[0].reshape(SIDE, SIDE) @ fine.T
    colours = coarse @ planes[1:].reshape(2, SIDE, SIDE) @ coarse.T
    stored = np.rint(SCALE * np.concatenate([luminance.ravel(), colours.ravel()])).astype("<i2")
    content: bytes = stored.tobytes()
    return digest + side + content


@cache
def _cosines(n: int) -> NDArray[np.float32]:
    """The first `n` cosines over the thumbnail; a coefficient is an amplitude. (n, SIDE)"""
    frequency, at = np.arange(n)[:, None], np.arange(SIDE)[None] + 0.5
    basis = np.sqrt(2) * np.cos(np.pi * frequency * at / SIDE)
    basis[0] = 1
    return np.asarray(basis / SIDE, dtype=np.float32)


def read_fingerprints(
    sources: Sources, refs: Sequence[Ref], *, cache_root: Path, workers: int | None = None
) -> Prints:
    """The fingerprint of each reference; made where absent, and kept.

    Raises:
        DataError: A reference that leaves the root, or a store that does not open.
        IsicError: A cache root that cannot be written to.
    """
    path = _path(sources, refs, cache_root)
    found = _open_whole(path, len(refs))
    if found is not None:
        return found
    with (
        _writable(path, len(refs)),
        waiting_lock(Path(f"{path}.lock"), f"reading images for {path}"),
    ):
        found = _open_whole(path, len(refs))  # another process may have made it meanwhile
        if found is None:
            _write(path, sources, refs, workers)
            found = _open_whole(path, len(refs))
    assert found is not None  # written whole
    return found


def has_fingerprints(sources: Sources, refs: Sequence[Ref], *, cache_root: Path) -> bool:
    """Whether they are kept already."""
    return _open_whole(_path(sources, refs, cache_root), len(refs)) is not None


def keep_fingerprints(
    sources: Sources, refs: Sequence[Ref], prints: bytearray, *, cache_root: Path
) -> None:
    """Keep what another pass over the images made: one `fingerprint` a reference, end to end.

    Raises:
        IsicError: A cache root that cannot be written to.
    """
    path = _path(sources, refs, cache_root)
    with _writable(path, len(refs)), waiting_lock(Path(f"{path}.lock"), f"writing {path}"):
        _save(path, prints)


def _path(sources: Sources, refs: Sequence[Ref], cache_root: Path) -> Path:
    name = f"{sources.root.name}-fingerprints-{images_key(sources, refs)}.npy"
    return Path(cache_root) / name


@contextmanager
def _writable(path: Path, rows: int) -> Iterator[None]:
    """Say what to do where the cache root cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise IsicError(
            f"expected a cache root to write {rows * PRINT.itemsize:,} bytes to, got {error} "
            f"at {path}; set ISIC_CACHE_ROOT, or split.overlap=false to go on without"
        ) from error


def images_key(sources: Sources, refs: Sequence[Ref]) -> str:
    """Sixteen hex digits over the references and their sources' places, sizes and mtimes."""
    resolved = sources.resolved()
    stats: list[Stat] = stat_files(resolved, refs)
    mounts = [f"{name}={path}" for name, path in resolved.mounts.items()]
    limit = resolved.max_pixels
    head = json.dumps([VERSION, str(resolved.root), *mounts, limit, stats])
    body = "\n".join("" if ref is None else ref for ref in refs)
    return hashlib.blake2b(f"{head}\n{body}".encode(), digest_size=8).hexdigest()


def _write(path: Path, sources: Sources, refs: Sequence[Ref], workers: int | None) -> None:
    """Read every image once and store all fingerprints, whole or not at all."""
    present = sum(ref is not None for ref in refs)
    if present >= LARGE:
        log.info(
            "looking for copies among %s images: one pass over them, kept in %s "
            "(split.overlap=false goes without)", f"{present:,}", path,
        )  # fmt: skip
    stored, empty = bytearray(), bytes(PRINT.itemsize)
    work = partial(fingerprint, max_pixels=sources.max_pixels)
    for part in scan(sources, refs, work, workers=workers, title="comparing images"):
        stored += part if isinstance(part, bytes) else empty
    _save(path, stored)


def _save(path: Path, stored: bytes | bytearray) -> None:
    with whole_file(path) as file:
        np.save(file, np.frombuffer(stored, PRINT))
        file.write(BLANK.encode())  # behind the array, where no reader looks
        fill_in(file)


def _open_whole(path: Path, rows: int) -> Prints | None:
    """The stored fingerprints, mapped; None where there are none or not those of `rows` images."""
    try:
        check(path)
        prints = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError) as error:
        log.warning("not whole fingerprints, made again: %s", error)
        return None
    if prints.dtype != PRINT or prints.shape != (rows,):
        log.warning("%s holds other fingerprints, made again", path)
        return None
    return np.asarray(prints)
