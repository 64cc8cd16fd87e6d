"""Random bits as a pure function of (seed, epoch, row): no generator, no state, no order.

A numpy generator for each sample would cost 10 us; one step of splitmix64 over a whole batch
(Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195) costs that once.
"""

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint64]
_DRAW_BITS = 15  # a factor in 32,768 steps: finer than a uint8 can show


def mix(values: Bits) -> Bits:
    """One step of splitmix64: 64 well-mixed bits from each value."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def sample_seeds(seed: int, *, epoch: int, rows: npt.NDArray[np.int64]) -> Bits:
    """One seed a row, (N,)."""
    base = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return mix(base + rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def view_seeds(seeds: Bits, view: int) -> Bits:
    """Other seeds for each further view of the same samples; those of the first are `seeds`."""
    return mix(seeds + np.uint64(view)) if view else seeds


def uniform(bits: Bits, count: int) -> npt.NDArray[np.float64]:
    """`count` (at most 4) independent numbers in [-1, 1] from each value's low bits, (count, N)."""
    top = (1 << _DRAW_BITS) - 1
    shifts = np.arange(count, dtype=np.uint64)[:, None] * np.uint64(_DRAW_BITS)
    return np.asarray(bits >> shifts & np.uint64(top), np.float64) * (2 / top) - 1
