"""The curve under every ranking metric: how many negatives score below each positive.

A ROC curve walked from the lowest score up climbs only at positives, so with few positives it is
known from the count of negatives below each of them. `step_area` integrates it for one sample or
for thousands of resamples at once (leading axes).

- cutoffs: distinct scores of the positives, ascending, (K,)
- below, tied: negatives strictly below, and exactly at, each cutoff, (..., K)
- trap: a positive and a negative with the same score share a slanted piece of the curve; counting
  it as half only holds when the whole piece lies inside the area asked for.
"""

from collections.abc import Iterator

import numpy as np

from isic.metrics.inputs import Floats, Ints

N_BUCKETS = 8192  # fits the L2 cache; with fewer, more values need bisection
BLOCK = 65_536  # values at a time: temporaries that stay in the cache are several times faster


def places(cutoffs: Floats, values: Floats) -> Ints:
    """Number each value's place among the cutoffs: 2k just below cutoff k, 2k + 1 equal to it.

    Values above the last of K cutoffs get 2K. Exact, and several times faster than bisection on
    many values: equal-width buckets answer for all values in a bucket without a cutoff.
    """
    place = np.empty(len(values), dtype=np.intp)
    start = 0
    for part in _placed(cutoffs, values):
        place[start : start + len(part)] = part
        start += len(part)
    return place


def count_below(cutoffs: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Count the negatives strictly below and exactly at each cutoff: two arrays (K,)."""
    counts = np.zeros(2 * len(cutoffs) + 1)
    for part in _placed(cutoffs, negatives):
        counts += np.bincount(part, minlength=len(counts))
    return below_and_tied(counts)


def below_and_tied(counts: Floats) -> tuple[Floats, Floats]:
    """Turn the tally of places (..., 2K + 1) into (below (..., K), tied (..., K))."""
    return np.cumsum(counts, axis=-1)[..., 0:-1:2], counts[..., 1::2]


def _placed(cutoffs: Floats, values: Floats) -> Iterator[Ints]:
    """Yield the places of the values block by block."""
    answer, scale = _bucket_answers(cutoffs)
    size = max(BLOCK, 8 * len(cutoffs))  # a block must outweigh the caller's tally of it
    for start in range(0, len(values), size):
        part = values[start : start + size]
        if answer is None or len(part) < N_BUCKETS:
            yield _bisected(cutoffs, part)
            continue
        # mode="clip" skips a copy; every bucket number is in range
        place = np.take(answer, _bucket(part, cutoffs[0], scale), mode="clip")
        unsure = np.flatnonzero(place < 0)
        place[unsure] = _bisected(cutoffs, part[unsure])
        yield place


def _bisected(cutoffs: Floats, values: Floats) -> Ints:
    found = np.searchsorted(cutoffs, values)
    padded = np.append(cutoffs, np.nan)  # NaN equals nothing: no tie above the last
    place: Ints = 2 * found + (padded[found] == values)
    return place


def _bucket_answers(cutoffs: Floats) -> tuple[Ints | None, float]:
    """Place that all values of a bucket share, -1 where a cutoff lies in it; buckets per unit.

    None where the cutoffs are too few, too near each other or too far apart for buckets.
    """
    if len(cutoffs) < 2:
        return None, 0.0
    with np.errstate(all="ignore"):
        scale = (N_BUCKETS - 1) / (cutoffs[-1] - cutoffs[0])
    if not 0.0 < scale < np.inf:
        return None, 0.0
    holding = _bucket(cutoffs, cutoffs[0], scale)
    answer = 2 * np.searchsorted(holding, np.arange(N_BUCKETS + 2))
    answer[holding] = -1
    return answer, float(scale)


def _bucket(values: Floats, low: float, scale: float) -> Ints:
    """Number the buckets from 1, 0 and the last lying beyond; rounding keeps values in order."""
    with np.errstate(over="ignore"):
        raised = (values - low) * scale
    raised += 1.0
    np.clip(raised, 0.0, N_BUCKETS + 1.0, out=raised)
    return raised.astype(np.intp)


def n_needed(cumulative: Floats, max_miss: float) -> int:
    """Count the cutoffs up to the one where the share of missed positives reaches `max_miss`."""
    return min(int(np.searchsorted(cumulative, max_miss)) + 1, len(cumulative))


def step_area(
    weight: Floats,
    below: Floats,
    tied: Floats,
    *,
    positives: Floats,
    negatives: Floats,
    max_miss: float,
) -> Floats:
    """Integrate the share of negatives below, over the share of positives missed, 0..max_miss.

    Args:
        weight: Positives at each cutoff, (..., K); later cutoffs may be left out once the missed
            share exceeds `max_miss`.
        below: Negatives strictly below each cutoff, (..., K).
        tied: Negatives exactly at each cutoff, (..., K).
        positives: All positives, (...).
        negatives: All negatives, (...).
        max_miss: End of the area, 1 - the least sensitivity wanted.

    Returns:
        Area 0..max_miss, (...); NaN where a sample has only one class.
    """
    end = np.cumsum(weight, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = weight / positives[..., None]
        width = np.clip(max_miss - (end - weight) / positives[..., None], 0.0, each)
        crossed = np.where(weight > 0, width / each, 0.0)  # share of this piece inside the area
        height = (below + 0.5 * crossed * tied) / negatives[..., None]
    area: Floats = np.sum(width * height, axis=-1)
    return np.where((positives > 0) & (negatives > 0), area, np.nan)
