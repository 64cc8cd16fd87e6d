"""Swaps of groups that level the folds' rows and leave all else as it is.

Where few groups hold many rows (230 patients, 20,000 images) a deal leaves some per cent; groups
that hold the same of every class but the commonest change places until nothing gets better.
Unit: group.
"""

from itertools import permutations

import numpy as np

from isic.split.groups import Groups, Ints

MOST_SWAPS = 200  # each at least halves a gap: far fewer are needed


def level_rows(groups: Groups, fold: Ints, *, n_folds: int) -> None:
    """Swap groups between folds, in place, while that brings their rows closer together."""
    size, like = groups.size, _alike(groups)
    for _ in range(MOST_SWAPS):
        rows = np.bincount(fold, weights=size, minlength=n_folds).astype(np.int64)
        pairs = sorted(permutations(range(n_folds), 2), key=lambda p: rows[p[1]] - rows[p[0]])
        swaps = (_best_swap(size, like, fold, int(rows[a] - rows[b]), a, b) for a, b in pairs)
        swap = next((s for s in swaps if s is not None), None)
        if swap is None:
            return
        fold[list(swap)] = fold[list(reversed(swap))]


def _alike(groups: Groups) -> Ints:
    """Number the groups by their counts of every class but the commonest. (groups,)"""
    commonest = groups.counts.sum(axis=0).argmax()
    rarer = np.delete(groups.counts, commonest, axis=1)
    # Its holders stay apart from the others, so that no fold loses it.
    kinds = np.column_stack([rarer, groups.counts[:, commonest] > 0])
    return np.asarray(np.unique(kinds, axis=0, return_inverse=True)[1], dtype=np.int64).ravel()


def _best_swap(
    size: Ints, like: Ints, fold: Ints, gap: int, full: int, empty: int
) -> tuple[int, int] | None:
    """The groups of two folds whose swap leaves least of the `gap` in rows; None if none helps."""
    ours, theirs = np.flatnonzero(fold == full), np.flatnonzero(fold == empty)
    if gap < 2 or not len(ours) or not len(theirs):
        return None
    # One number a group, kinds far apart: its neighbours are of its kind and near in size.
    scale = 4 * int(size.max()) + 2 * gap
    theirs = theirs[np.argsort(like[theirs] * scale + 2 * size[theirs], kind="stable")]
    place = like[theirs] * scale + 2 * size[theirs]
    wanted = like[ours] * scale + 2 * size[ours] - gap
    best: tuple[int, int, int] | None = None
    for side in (-1, 0):
        at = np.clip(np.searchsorted(place, wanted) + side, 0, len(place) - 1)
        left = np.abs(gap - 2 * (size[ours] - size[theirs[at]]))
        left[like[ours] != like[theirs[at]]] = gap
        i = int(left.argmin())
        if left[i] < gap and (best is None or left[i] < best[0]):
            best = (int(left[i]), int(ours[i]), int(theirs[at[i]]))
    return None if best is None else best[1:]
