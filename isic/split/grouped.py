"""Labelled train rows -> folds that keep a group together and are alike in three ways.

Deotte's triple stratification (SIIM-ISIC 2020, Kaggle discussion 165526): no group in two folds,
equal shares of each class, and as many groups of each size. Groups that hold the rarest class go
first, big ones before small ones, in rounds: each fold gets one of a round, that which levels most.
Groups of like size are shuffled by the seed; 401,059 rows take a second.
Unit: row = image or lesion; group = what `isic.split.groups` ties together.
Trap: StratifiedGroupKFold silently returns folds without a positive; here that is repaired by
moving groups, or refused with the shortfall named.
"""

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import ConfigError, DataError
from isic.split.groups import Groups, Ints, count_groups, group_of, labelled
from isic.split.levelling import level_rows
from isic.split.split_file import NEVER, TRAINS

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


def assign_folds(
    table: pd.DataFrame, *, n_folds: int = 5, seed: int = 0, group: pd.Series | None = None
) -> pd.Series:
    """Deal the labelled train rows into folds 0..n_folds-1: int64, on those rows' index labels.

    Rows with `duplicate_of` get -1 (never used), `external` ones -2 (train in every fold); neither
    counts when folds are levelled. The same rows in another order get the same folds.

    group: Name of each row's group, where it is known already.

    Raises:
        DataError: A fold would hold one class only; with more than two classes, a rare one that
            cannot reach every fold is logged.
    """
    if n_folds < 2:
        raise ConfigError(f"split.n_folds must be 2 or more, got {n_folds}; use fold=all for one")
    rows = labelled(table)
    if group is None:
        group = group_of(rows)
    fold = fixed_folds(rows)
    groups = count_groups(rows[fold == 0], group)
    fold.loc[groups.rows] = _deal_groups(groups, n_folds=n_folds, seed=seed)[groups.of_row]
    return fold


def fixed_folds(rows: pd.DataFrame) -> pd.Series:
    """-1 for copies of another row, -2 for external rows, 0 for those to be dealt; as int64."""
    fold = pd.Series(0, index=rows.index, name="fold", dtype=np.int64)
    if "external" in rows:
        fold[rows["external"].astype("boolean").fillna(False).to_numpy(dtype=bool)] = TRAINS
    if "duplicate_of" in rows:
        copy = rows["duplicate_of"].astype("string").fillna("") != ""
        fold[copy.to_numpy(dtype=bool)] = NEVER
    if not (fold == 0).any():
        raise DataError(
            f"folds need rows of the archive's own, got {len(fold)} labelled train rows that are "
            "all copies (duplicate_of) or external; add rows, or train with fold=all"
        )
    return fold


def _deal_groups(groups: Groups, *, n_folds: int, seed: int) -> Ints:
    """The fold of each group (groups,). Raises DataError where a fold would hold one class."""
    if len(groups.names) < n_folds:
        raise DataError(
            f"{n_folds} folds need as many groups (patients, lesions or images), got "
            f"{len(groups.names)}; lower split.n_folds"
        )
    fold = _deal(groups, n_folds=n_folds, seed=seed)
    _repair(groups, fold, n_folds=n_folds)
    level_rows(groups, fold, n_folds=n_folds)
    _check_classes(groups, fold, n_folds=n_folds)
    return fold


def by_size(groups: Groups, chosen: Ints, c: int) -> Ints:
    """Order `chosen` by falling numbers of class `c`, then of rows, in half octaves.

    Exact sizes would leave the seed nothing to shuffle among patients.
    """
    of_class = half_octave(groups.counts[chosen, c])
    return chosen[np.lexsort((-half_octave(groups.size[chosen]), -of_class))]


def half_octave(numbers: Ints) -> Ints:
    """Twice the logarithm to base 2, rounded down: 1, 2 and 3 stand alone, 4 with 5, 6 with 7."""
    return np.asarray(np.floor(2 * np.log2(np.maximum(numbers, 1))), dtype=np.int64)


def rarest_first(groups: Groups) -> list[int]:
    """Class positions by the number of groups that hold them."""
    holders = (groups.counts > 0).sum(axis=0)
    return [int(c) for c in np.argsort(holders, kind="stable")]


def _deal(groups: Groups, *, n_folds: int, seed: int) -> Ints:
    """Hand out the groups, those of the rarest class first; returns the fold of each.

    How many a fold gets levels their class, and with the commonest the number of groups; which
    ones it gets levels all classes and the rows.
    """
    key = groups.key_class()
    amounts = np.column_stack([groups.counts, groups.size]).astype(np.float64)
    # In units of a typical group, so that a rare class weighs as much as the rows do.
    amounts /= amounts.sum(axis=0) / (amounts > 0).sum(axis=0)
    fold = np.full(len(key), -1, dtype=np.int64)
    have, number = np.zeros((n_folds, amounts.shape[1])), np.zeros(n_folds)
    order = np.random.default_rng(seed).permutation(len(key))
    classes = rarest_first(groups)
    for c in classes:
        chosen = by_size(groups, order[key[order] == c], c)
        bucket = half_octave(groups.counts[chosen, c])
        last = c == classes[-1]
        parts = [chosen] if last else np.split(chosen, np.flatnonzero(np.diff(bucket)) + 1)
        for part in (p for p in parts if len(p)):
            level = number if last else have[:, c] / amounts[part, c].mean()
            quota = _quotas(level, len(part), tie=number)
            _hand_out(part, quota, amounts, have, fold)
            number += quota
    return fold


def _quotas(level: Floats, n: int, *, tie: Floats) -> Ints:
    """How many of `n` each fold gets for `level + quota` to be even. (folds,)"""
    # Filled up like water: folds above the surface get none.
    ascending = np.sort(level)
    surface = (np.cumsum(ascending) + n) / np.arange(1, len(level) + 1)
    wet = int((surface > ascending).sum())
    quota: Ints = np.asarray(np.maximum(surface[wet - 1] - level, 0), dtype=np.int64)
    while quota.sum() < n:
        quota[np.lexsort((tie + quota, np.round(level + quota, 6)))[0]] += 1
    return quota


def _hand_out(part: Ints, quota: Ints, amounts: Floats, have: Floats, fold: Ints) -> None:
    """Give each fold its quota of `part`, in rounds of neighbours: at most one a fold and round.

    Who gets which is what levels most of what the folds `have`, which is brought up to date.
    """
    from scipy.optimize import linear_sum_assignment

    if (amounts[part] == amounts[part[0]]).all():
        # An archive without patients is 401,059 groups of one image: nothing to choose.
        fold[part] = np.repeat(np.arange(len(quota)), quota)
        have += quota[:, None] * amounts[part[0]]
        return
    n_rounds, start = int(quota.max()), 0
    for r in range(n_rounds):
        folds = np.flatnonzero((r + 1) * quota // n_rounds > r * quota // n_rounds)
        these = part[start : start + len(folds)]
        # The change of the sum of squares is linear in a group's amounts, but for a constant.
        cost = amounts[these] @ (have[folds] - have.mean(axis=0)).T
        taken = folds[linear_sum_assignment(cost)[1]]
        fold[these] = taken
        have[taken] += amounts[these]
        start += len(folds)


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
            f"a split needs two classes, got only {groups.titles[0]} in all "
            f"{len(groups.rows)} labelled rows; check the train table"
        )
    for f in range(n_folds):
        absent = [c for g, c in lacking if g == f]
        named = ", ".join(
            f"{groups.titles[c]} (in {holders[c]} groups of {len(groups.names)})" for c in absent
        )
        if len(groups.classes) - len(absent) < 2:
            raise DataError(
                f"every fold needs two classes, got fold {f} of {n_folds} without {named}; "
                f"a group (patient, lesion or image) is never divided: set split.n_folds to "
                f"{max(2, int(holders.min()))} or fewer, or add rows"
            )
        if absent:
            log.warning("fold %d of %d holds no %s", f, n_folds, named)
