"""Parts of the rows as whole groups, stratified: what is held out, and a share to try things on.

Unit: group. Held out means that no fold trains or validates on a row, nor is it in out-of-fold
predictions; a share (`data.fraction`) keeps the folds of the full split.
Trap: a class that few groups hold is needed in every fold first; only what is left is held out.
"""

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import ConfigError, DataError
from isic.split.grouped import by_size, rarest_first
from isic.split.groups import Groups, count_groups, group_of, labelled
from isic.split.split_file import NEVER

log = logging.getLogger(__name__)

Flags = NDArray[np.bool_]


def held_out_groups(groups: Groups, *, share: float, seed: int, n_folds: int) -> Flags:
    """Choose groups with about `share` of the rows and of each class: bool (groups,).

    Leaves every class in at least `n_folds` groups where it is in as many, and takes one group of
    each class that more than `n_folds` hold.
    """
    if not 0 < share < 1:
        raise ConfigError(f"split.holdout: expected a share in [0, 1), got {share}")
    key, has = groups.key_class(), groups.counts > 0
    left = has.sum(axis=0)
    chosen = np.zeros(len(groups.names), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(groups.names))
    for c in rarest_first(groups):
        stratum = by_size(groups, order[key[order] == c], c)
        picked = _every_so_often(groups, stratum, c, share=share, taken=chosen)
        if not (picked.size or has[chosen, c].any()) and len(stratum):
            picked = stratum[-1:]
        for g in picked.tolist():
            if (left[has[g]] > n_folds).all():
                chosen[g] = True
                left -= has[g]
    if not chosen.any():
        raise DataError(
            f"split.holdout={share:g} leaves nothing to hold out: {n_folds} folds need each class "
            f"in {n_folds} groups, got {len(groups.names)} groups; lower split.n_folds"
        )
    _name_absent(groups, chosen)
    return chosen


def _every_so_often(
    groups: Groups, stratum: NDArray[np.int64], c: int, *, share: float, taken: Flags
) -> NDArray[np.int64]:
    """Walk the stratum in falling size and take a group whenever the share falls behind.

    What falls behind is the sum of three: rows of the class, all rows and groups, each by its mean.
    """
    counts = np.stack([groups.counts[stratum, c], groups.size[stratum], np.ones(len(stratum))])
    # What rarer classes took or left already is made up for here.
    have = np.array([groups.counts[taken, c].sum(), 0.0, 0.0])
    seen = have / share
    mean = np.maximum(counts.mean(axis=1), 1e-9) if len(stratum) else np.ones(3)
    picked = []
    for g, one in zip(stratum.tolist(), counts.T, strict=True):
        seen += one
        behind = ((share * seen - have) / mean).sum()
        if behind > (one / mean).sum() / 2:
            picked.append(g)
            have += one
    return np.array(picked, dtype=np.int64)


def _name_absent(groups: Groups, chosen: Flags) -> None:
    absent = np.flatnonzero(~(groups.counts[chosen] > 0).any(axis=0))
    if len(absent):
        named = ", ".join(
            f"{groups.titles[c]} (in {(groups.counts[:, c] > 0).sum()} groups)" for c in absent
        )
        log.warning("the held-out rows hold no %s: the folds need them", named)


def subsample_groups(
    table: pd.DataFrame,
    fold: pd.Series,
    *,
    fraction: float,
    seed: int,
    group: pd.Series | None = None,
) -> pd.Series:
    """Choose about `fraction` of the rows as whole groups: bool on the index of `fold`.

    Stratified by fold and by each group's rarest class, at least one group of each, so that no
    fold loses a class. A smaller fraction with the same seed is a subset of a larger one.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"data.fraction must be above 0 and at most 1, got {fraction}")
    rows = labelled(table.loc[fold.index])
    group = group_of(rows) if group is None else group
    groups = count_groups(rows[fold.loc[rows.index] != NEVER], group)
    size = groups.size
    # A group with rows that validate is of their fold, whatever else it holds.
    fold_of_group = np.full(len(size), fold.min(), dtype=np.int64)
    np.maximum.at(fold_of_group, groups.of_row, fold.loc[groups.rows].to_numpy())
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
