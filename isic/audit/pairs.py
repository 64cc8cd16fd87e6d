"""Which two columns give the class away together? Neither does alone, as in an exclusive or.

Method: all pairs of the `BEST` columns, and those pairs of all others that tell the class best on a
part of the rows in coarse bins, beyond what either tells (`_screened`). Each pair is guessed as one
column is, out of fold and on every row: by the bins of both at once, and where two numbers go
together also by what is left of one after the other (`width` minus `height`).
Cost: a bincount a pair, 3 ms for 401,059 rows; the screening is matrix products.
Trap: thousands of pairs are tried, and two good columns are better together: that is medicine. A
pair is named where its AUC is above the limit, beyond what chance gives so many pairs, and by
`GAIN` above both of its columns.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.audit.predictors import Codes, Numbers, Predictor, codes_of

BEST = 30  # columns whose pairs are all tried
SCREENED = 200  # further pairs that are tried, of all classes together
FEWEST = 5  # of each class
SCREEN_ROWS = 40_000
SCREEN_BINS = 6
BINS = 12  # of each of two columns; 144 cells
TOGETHER = 0.7  # |correlation| of ranks above which one number is a copy of the other, and a rest


class Pair(NamedTuple):
    """Two predictors, by position, and how they are brought together."""

    first: int
    second: int
    kind: str  # `together`, or `rest`: of the second after the first


def coarse(codes: Codes, n_bins: int, *, ordered: bool) -> Codes:
    """At most `n_bins` codes in place of more, missing (0) apart.

    Neighbouring numbers share a code, as many rows in each; of other values the rarest do.
    """
    counts = np.bincount(codes)
    present = np.flatnonzero(counts)
    place = np.zeros(len(counts), np.int64)
    if len(present) <= n_bins:
        place[present] = np.arange(len(present))
        return np.asarray(place[codes])
    missing = int(counts[0])
    known = counts.copy()
    known[0] = 0
    if not ordered:
        often = np.argsort(-known, kind="stable")
        place[often] = np.minimum(np.arange(len(counts)), n_bins - 2) + 1
        place[0] = 0
        return np.asarray(place[codes])
    # The middle of each code's rows, among those that are known.
    middle = (np.cumsum(known) - known / 2) / max(int(known.sum()), 1)
    n_known = n_bins - bool(missing)
    place = np.minimum((middle * n_known).astype(np.int64), n_known - 1) + bool(missing)
    place[0] = 0
    return np.asarray(place[codes])


def candidate_pairs(
    found: Sequence[Predictor], aucs: Sequence[float], target: Codes, classes: Sequence[int]
) -> tuple[list[Pair], int]:
    """Return the pairs worth trying, and how many rows the screening looked at.

    aucs: AUC of each predictor alone.
    """
    best = sorted(range(len(found)), key=lambda i: -aucs[i])[:BEST]
    chosen = dict.fromkeys(combinations(sorted(best), 2))
    rows = _some_rows(target)
    if len(found) > BEST:
        chosen |= dict.fromkeys(_screened(found, target, classes, rows))
    pairs = [Pair(i, j, "together") for i, j in chosen if found[i].column != found[j].column]
    pairs += _going_together(found, target, classes, rows)
    return pairs, len(rows)


def pair_codes(found: Sequence[Predictor], pair: Pair, coarsened: dict[int, Codes]) -> Codes:
    """Return one code a row for both columns. coarsened: Cache of coarse codes, by position."""
    if pair.kind == "rest":
        return _rest(found[pair.first].numbers, found[pair.second].numbers)
    for i in pair[:2]:
        if i not in coarsened:
            ordered = found[i].numbers is not None
            coarsened[i] = coarse(found[i].codes, BINS, ordered=ordered).astype(np.int16)
    first, second = coarsened[pair.first], coarsened[pair.second]
    return first * (int(second.max()) + 1) + second


def _rest(first: Numbers | None, second: Numbers | None) -> Codes:
    """Codes of the second number's residual after least squares on the first."""
    assert first is not None  # `_going_together` chooses numbers
    assert second is not None
    first, second = first.astype(np.float64), second.astype(np.float64)
    both = np.isfinite(first) & np.isfinite(second)
    x, y = first[both], second[both]
    slope = np.cov(x, y)[0, 1] / max(float(np.var(x, ddof=1)), 1e-30) if len(x) > 1 else 0.0
    return codes_of(pd.Series(second - slope * first))


def _some_rows(target: Codes) -> Codes:
    """At most `SCREEN_ROWS` rows, in order: the same number of each class, the rarest whole."""
    if len(target) <= SCREEN_ROWS:
        return np.arange(len(target))
    counts = np.bincount(target)
    left, share = SCREEN_ROWS, np.zeros(len(counts), np.int64)
    for place, c in enumerate(np.argsort(counts)):
        share[c] = min(counts[c], left // (len(counts) - place))
        left -= share[c]
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(target == c))[:n] for c, n in enumerate(share)]
    return np.sort(np.concatenate(chosen))


def _screened(
    found: Sequence[Predictor], target: Codes, classes: Sequence[int], rows: Codes
) -> Iterator[tuple[int, int]]:
    """Yield the pairs that tell most beyond their columns, by the class's spread over cells."""
    width = SCREEN_BINS
    hot = np.zeros((len(rows), len(found) * width), np.float32)
    for i, predictor in enumerate(found):
        codes = coarse(predictor.codes[rows], width, ordered=predictor.numbers is not None)
        hot[np.arange(len(rows)), i * width + codes] = 1
    counts = hot.T @ hot
    for c in classes:
        positive = hot[target[rows] == c]
        hits, prior = positive.T @ positive, float((target[rows] == c).mean())
        # (columns, columns): how far the rates of the cells lie apart
        spread = (hits - counts * prior) ** 2 / (counts + 10)
        spread = spread.reshape(len(found), width, len(found), width).sum(axis=(1, 3))
        alone = np.diagonal(spread)
        beyond = np.triu(spread - np.maximum(alone[:, None], alone[None]), k=1)
        most = max(FEWEST, SCREENED // len(classes))
        for at in np.argsort(-beyond, axis=None, kind="stable")[:most].tolist():
            yield divmod(at, len(found))


def _going_together(
    found: Sequence[Predictor], target: Codes, classes: Sequence[int], rows: Codes
) -> list[Pair]:
    """Pairs of correlated numbers whose residual tells most about some class."""
    numbers = [i for i, p in enumerate(found) if p.numbers is not None and p.codes.max() > BINS]
    if len(numbers) < 2:
        return []
    ranks = np.stack([found[i].codes[rows] for i in numbers]).astype(np.float64)
    together = np.triu(np.abs(np.corrcoef(ranks)) > TOGETHER, k=1)
    pairs = [Pair(numbers[a], numbers[b], "rest") for a, b in np.argwhere(together).tolist()]
    values = {i: found[i].numbers[rows] for pair in pairs for i in pair[:2]}  # type: ignore[index]
    rests = [_rest(values[pair.first], values[pair.second]) for pair in pairs]
    chosen: dict[Pair, None] = {}
    for c in classes:
        said = [_spread(rest, target[rows] == c) for rest in rests]
        most = max(FEWEST, BEST // len(classes))
        chosen |= dict.fromkeys(pairs[at] for at in np.argsort(said)[::-1][:most].tolist())
    return list(chosen)


def _spread(codes: Codes, positive: NDArray[np.bool_]) -> float:
    """Chi-squared spread of a class's rates over the codes."""
    counts = np.bincount(codes)
    hits = np.bincount(codes, weights=positive, minlength=len(counts))
    return float(((hits - counts * positive.mean()) ** 2 / (counts + 10)).sum())
