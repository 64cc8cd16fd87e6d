"""Fingerprints -> pairs of images that show the same, however they were flipped, turned or encoded.

Distance: root mean square difference in grey levels (0-255) of two thumbnails of 32 px up to 16
cycles, luminance and both colour differences together, at the best of the eight flips and turns.
Measured on real archives at JPEG quality 60 to 95, mirrored, turned and resized by 0.8 to 1.25:
copies lie within 1.6 (99 of 100 within 4.9 where they are 32 px small), the nearest others 4.1
apart among 8,281 crops of ISIC 2024 and 5.6 among 8,286 images of MILK10k, which falls with the
16th root of the number of pairs: 2.4 and 3.4 at 401,059. Near are those within `limits`.
Trap: blank images are all alike; without `CONTRAST` only their bytes are compared.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isic.images.fingerprint import COLOUR, SCALE, Prints

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NEAR = 2.0  # grey levels
SMALL, GROWTH = 72, 1.3  # px, exponent; below it JPEG's noise grows as the image shrinks
SMALLEST = 32  # px; measured down to here
NEAR_PHOTOGRAPHS, PHOTOGRAPH = 2.5, 256  # grey levels, px; above it there is more to differ in
CONTRAST = 1.5  # grey levels; the flattest of 8,281 real crops has 3.1
COARSE = 8  # frequencies a side that the search looks at
SEARCHED = 12  # numbers that the tree holds: more make it slower, fewer let more through
_CHUNK = 4096  # pairs looked at in one go


class Likeness(NamedTuple):
    """Two images by their row, `bytes` (equal files) or `near`, and how far apart they are."""

    first: int
    second: int
    kind: str
    distance: float


def same_images(prints: Prints) -> list[Likeness]:
    """Every two images that show the same; equal files are chained, each to the one before it.

    Of several equal files the first alone is compared with others by what it shows. Files that
    do not decode show nothing: a page that says 404 under a thousand names ties no patients.
    """
    known = np.flatnonzero(prints["side"] > 0)
    _, code = np.unique(prints["digest"][known], axis=0, return_inverse=True)
    order = np.argsort(code.ravel(), kind="stable")
    equal = np.diff(code.ravel()[order]) == 0
    pairs = zip(known[order[:-1][equal]], known[order[1:][equal]], strict=True)
    found = [Likeness(int(a), int(b), "bytes", 0.0) for a, b in pairs]
    first = np.ones(len(known), dtype=bool)
    first[order[1:][equal]] = False
    return sorted(found + _near(prints, known[first]))


def _near(prints: Prints, rows: Ints) -> list[Likeness]:
    """The pairs among `rows` that are within their limit of each other."""
    rows = rows[_contrast(prints, rows) >= CONTRAST]
    if len(rows) < 2:
        return []
    invariant = np.concatenate([_invariants(prints[part]) for part in _chunks(rows)])
    limit = limits(prints["side"][rows])
    pairs = _candidates(invariant, limit)
    found = []
    for part in _chunks(pairs):
        distance = distances(prints[rows[part[:, 0]]], prints[rows[part[:, 1]]])
        near = distance <= limit[part].max(axis=1)
        for (a, b), d in zip(rows[part[near]].tolist(), distance[near].tolist(), strict=True):
            found.append(Likeness(min(a, b), max(a, b), "near", float(d)))
    return found


def limits(side: NDArray[np.uint16]) -> NDArray[np.float64]:
    """How far a copy may lie from an image of this shorter side, in grey levels. (n,)"""
    small = NEAR * (SMALL / np.maximum(side, SMALLEST)) ** GROWTH
    return np.where(side >= PHOTOGRAPH, NEAR_PHOTOGRAPHS, np.maximum(NEAR, small))


def distances(first: Prints, second: Prints) -> Floats:
    """How far apart the images of each pair are, at the best flip or turn. (pairs,)"""
    squares = np.zeros((8, len(first)), np.float32)
    for name in ("luminance", "red", "blue"):
        still = _levels(first[name])
        for i, view in enumerate(_eight(_levels(second[name]))):
            squares[i] += ((view - still) ** 2).sum(axis=(1, 2))
    return np.asarray(np.sqrt(squares.min(axis=0)))


def _eight(plane: Floats) -> list[Floats]:
    """The coefficients of the eight flips and turns of each image. (n, k, k) each"""
    sign = (-1.0) ** np.arange(plane.shape[1], dtype=np.float32)
    return [
        np.asarray(turned * down * across, dtype=np.float32)
        for turned in (plane, plane.transpose(0, 2, 1))
        for down in (np.float32(1), sign[:, None])
        for across in (np.float32(1), sign)
    ]


def _levels(stored: NDArray[np.int16]) -> Floats:
    """Stored units to grey levels."""
    return np.asarray(stored / np.float32(SCALE), dtype=np.float32)


def _contrast(prints: Prints, rows: Ints) -> Floats:
    """Root mean square of the luminance about its mean, in grey levels. (rows,)"""
    parts = []
    for part in _chunks(rows):
        plane = _levels(prints["luminance"][part])
        plane[:, 0, 0] = 0
        parts.append(np.sqrt((plane**2).sum(axis=(1, 2))))
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _invariants(prints: Prints) -> Floats:
    """Numbers that no flip or turn changes and that differ by no more than the images do.

    Absolute values without the sign that a flip changes, each two that a turn swaps in order.
    """
    parts = []
    for name, n in (("luminance", COARSE), ("red", COLOUR), ("blue", COLOUR)):
        plane = _levels(prints[name][:, :n, :n])
        size = np.abs(plane)
        upper, lower = np.triu_indices(n, 1)
        a, b = size[:, upper, lower], size[:, lower, upper]
        diagonal = size[:, range(n), range(n)]
        diagonal[:, 0] = plane[:, 0, 0]  # the mean has a sign that nothing changes
        parts += [diagonal, np.minimum(a, b), np.maximum(a, b)]
    return np.concatenate(parts, axis=1)


def _candidates(invariant: Floats, limit: NDArray[np.float64]) -> Ints:
    """Pairs whose invariants are within the greater of their limits. (pairs, 2)"""
    from scipy.spatial import cKDTree

    widest = np.argsort(-invariant.var(axis=0), kind="stable")[:SEARCHED]
    points = invariant[:, widest].astype(np.float64)
    # Sliding midpoints take a tenth of the time of medians, and copies do no harm to them.
    tree = cKDTree(points, balanced_tree=False)
    pairs = [tree.query_pairs(NEAR, output_type="ndarray")]
    wide = np.flatnonzero(limit > NEAR)
    for i, near in zip(wide, tree.query_ball_point(points[wide], limit[wide]), strict=True):
        others = np.array([j for j in near if j != i], dtype=np.int64)
        pairs.append(np.column_stack([np.full(len(others), i), others]))
    found = np.unique(np.sort(np.concatenate(pairs).reshape(-1, 2), axis=1), axis=0)
    apart = [
        ((invariant[part[:, 0]] - invariant[part[:, 1]]) ** 2).sum(axis=1)
        <= limit[part].max(axis=1) ** 2
        for part in _chunks(found)
    ]
    return np.asarray(found[np.concatenate([np.zeros(0, bool), *apart])], dtype=np.int64)


def _chunks(rows: Ints) -> list[Ints]:
    return [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]
