"""Labelled train rows -> folds that keep a patient together and give each fold every class.

A greedy deal in the spirit of scikit-learn's StratifiedGroupKFold: groups that hold the rarest
class first, big ones before small ones, each to the fold that lacks it most. Groups of like size
are shuffled by the seed; 401,059 rows take about a second.
Unit: row = image; group = patient, else lesion, else the image itself.
Trap: StratifiedGroupKFold silently returns folds without a positive; here that is repaired by
moving groups, or refused with the shortfall named.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]


@dataclass
class Groups:
    """The groups of a table's labelled train rows, sorted by name.

    of_row: int64 (rows,), the position of each row's group.
    counts: int64 (groups, classes), rows of each class.
    classes: The target values that occur.
    """

    rows: pd.Index
    names: list[str]
    of_row: Ints
    counts: Ints
    classes: list[int]

    def key_class(self) -> Ints:
        """Each group's rarest class, by the number of groups that hold it. (groups,)"""
        held = (self.counts > 0).sum(axis=0)
        # A class that a group lacks must never be its rarest.
        rank = np.where(self.counts > 0, held, np.iinfo(np.int64).max)
        return np.asarray(rank.argmin(axis=1), dtype=np.int64)


def group_of(table: pd.DataFrame) -> pd.Series:
    """Name each row's group: its patient, else its lesion, else the image itself."""
    group = table["image_id"].astype("object")
    for column in ("lesion_id", "patient_id"):
        if column in table:
            known = table[column].notna()
            group = group.mask(known, table[column].astype("object"))
    return group.rename("group")


def assign_folds(table: pd.DataFrame, *, n_folds: int = 5, seed: int = 0) -> pd.Series:
    """Deal the labelled train rows into folds 0..n_folds-1: int64, on those rows' index labels.

    The same rows in another order get the same folds. Raises DataError where a fold would hold
    one class only; with more than two classes a rare one that cannot reach every fold is logged.
    """
    if n_folds < 2:
        raise ConfigError(f"split.n_folds must be 2 or more, got {n_folds}; use fold=all for one")
    groups = labelled_groups(table)
    if len(groups.names) < n_folds:
        raise DataError(
            f"{n_folds} folds need as many groups (patients, lesions or images), got "
            f"{len(groups.names)}; lower split.n_folds"
        )
    fold_of_group = _deal(groups, n_folds=n_folds, seed=seed)
    _repair(groups, fold_of_group, n_folds=n_folds)
    _check_classes(groups, fold_of_group, n_folds=n_folds)
    return pd.Series(fold_of_group[groups.of_row], index=groups.rows, name="fold")


def labelled_groups(table: pd.DataFrame) -> Groups:
    """Group the rows that a fold can hold: train rows with a target.

    A table without `split` is taken as train rows throughout. Raises DataError when none is left.
    """
    usable = table["target"].notna()
    if "split" in table:
        usable &= table["split"] == "train"
    rows = table[usable]
    if rows.empty:
        raise DataError("a split needs labelled train rows, got none; check the train table")
    # Sorted names make the codes, and so the deal, independent of the row order.
    codes, names = pd.factorize(group_of(rows), sort=True)
    target, classes = pd.factorize(rows["target"].to_numpy(dtype=np.int64), sort=True)
    shape = (len(names), len(classes))
    flat = np.bincount(codes * len(classes) + target, minlength=shape[0] * shape[1])
    return Groups(
        rows=rows.index,
        names=[str(n) for n in names],
        of_row=codes.astype(np.int64),
        counts=flat.reshape(shape).astype(np.int64),
        classes=[int(c) for c in classes],
    )


def _deal(groups: Groups, *, n_folds: int, seed: int) -> Ints:
    """Hand out the groups of the rarest class first; returns the fold of each group.

    Groups of one rarest class go in falling order of size, so that the last and smallest ones
    level what the big ones left uneven.
    """
    counts, key = groups.counts, groups.key_class()
    size = counts.sum(axis=1)
    fold = np.full(len(size), -1, dtype=np.int64)
    total = [0] * n_folds
    held = np.zeros((n_folds, counts.shape[1]), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(size))
    rarest_first = np.argsort((counts > 0).sum(axis=0), kind="stable")
    # A common class can be levelled with what is left; a rare one has few groups to choose from.
    for c in rarest_first.tolist():
        chosen = order[key[order] == c]
        # Exact sizes would leave the seed nothing to shuffle among patients: half octaves do.
        bucket = np.floor(2 * np.log2(size[chosen] + counts[chosen, c] * len(size)))
        chosen = chosen[np.argsort(-bucket, kind="stable")]
        # The commonest class follows the row count; the others are levelled by their own.
        level_rows = c == rarest_first[-1]
        of_class = held[:, c].tolist()
        for g, n_class, n_rows in zip(
            chosen.tolist(), counts[chosen, c].tolist(), size[chosen].tolist(), strict=True
        ):
            f = _neediest(of_class, total, level_rows=level_rows)
            fold[g] = f
            of_class[f] += n_class
            total[f] += n_rows
        for f in range(n_folds):
            held[f] = counts[fold == f].sum(axis=0)
    return fold


def _neediest(of_class: list[int], total: list[int], *, level_rows: bool) -> int:
    """Choose the fold that lacks the class, then the one with least of it or fewest rows."""
    keys = [
        (int(n > 0) if level_rows else n, rows) for n, rows in zip(of_class, total, strict=True)
    ]
    return keys.index(min(keys))


def _repair(groups: Groups, fold: Ints, *, n_folds: int) -> None:
    """Move groups, smallest first, into folds that lack a class which enough groups hold."""
    # Each move fills one gap and opens none, so that there are at most as many moves as cells.
    for _ in range(n_folds * len(groups.classes)):
        lacking = _lacking(groups, fold, n_folds)
        move = next((m for f, c in lacking if (m := _best_move(groups, fold, f, c, n_folds))), None)
        if move is None:
            return
        fold[move[0]] = move[1]


def _lacking(groups: Groups, fold: Ints, n_folds: int) -> list[tuple[int, int]]:
    """List each (fold, class position) where the fold holds no row of the class."""
    has = groups.counts > 0
    present = np.stack([has[fold == f].any(axis=0) for f in range(n_folds)])
    return [(int(f), int(c)) for f, c in np.argwhere(~present)]


def _best_move(groups: Groups, fold: Ints, to: int, c: int, n_folds: int) -> tuple[int, int] | None:
    """Find the smallest group with class `c` whose own fold keeps every class without it."""
    has = groups.counts > 0
    in_fold = np.stack([has[fold == f].sum(axis=0) for f in range(n_folds)])  # (folds, classes)
    spare = (in_fold[fold] > has) | ~has
    able = np.flatnonzero(has[:, c] & (fold != to) & spare.all(axis=1))
    if not len(able):
        return None
    smallest = able[groups.counts[able].sum(axis=1).argmin()]
    return int(smallest), to


def _check_classes(groups: Groups, fold: Ints, *, n_folds: int) -> None:
    """Refuse folds of one class only; log classes that cannot reach every fold."""
    lacking = _lacking(groups, fold, n_folds)
    holders = (groups.counts > 0).sum(axis=0)
    if len(groups.classes) < 2:
        raise DataError(
            f"a split needs two classes, got only target {groups.classes[0]} in all "
            f"{len(groups.rows)} labelled rows; check the train table"
        )
    for f in range(n_folds):
        absent = [c for g, c in lacking if g == f]
        named = ", ".join(
            f"target {groups.classes[c]} (in {holders[c]} groups of {len(groups.names)})"
            for c in absent
        )
        if len(groups.classes) - len(absent) < 2:
            raise DataError(
                f"every fold needs two classes, got fold {f} of {n_folds} without {named}; "
                f"a group (patient, lesion or image) is never divided: set split.n_folds to "
                f"{max(2, int(holders.min()))} or fewer, or add rows"
            )
        if absent:
            log.warning("fold %d of %d holds no %s", f, n_folds, named)


def subsample_groups(
    table: pd.DataFrame, fold: pd.Series, *, fraction: float, seed: int
) -> pd.Series:
    """Choose about `fraction` of the rows as whole groups: bool on the index of `fold`.

    Stratified by fold and by each group's rarest class, at least one group of each, so that no
    fold loses a class. A smaller fraction with the same seed is a subset of a larger one.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"data.fraction must be above 0 and at most 1, got {fraction}")
    groups = labelled_groups(table.loc[fold.index])
    size = groups.counts.sum(axis=1)
    fold_of_group = np.zeros(len(size), dtype=np.int64)
    fold_of_group[groups.of_row] = fold.loc[groups.rows].to_numpy()
    stratum = fold_of_group * len(groups.classes) + groups.key_class()
    order = np.random.default_rng(seed).permutation(len(size))
    kept = np.zeros(len(size), dtype=bool)
    for s in np.unique(stratum):
        members = order[stratum[order] == s]
        # A group is kept where its middle row lies within the share: the nearest whole number.
        middle = np.cumsum(size[members]) - size[members] / 2
        kept[members[middle <= fraction * size[members].sum()]] = True
        # One huge first group could leave a stratum empty.
        kept[members[0]] = True
    mask = pd.Series(kept[groups.of_row], index=groups.rows, name="kept")
    return mask.reindex(fold.index, fill_value=False)
