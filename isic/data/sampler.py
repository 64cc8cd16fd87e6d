"""Batches of positions, an order that follows from (seed, epoch) alone, one share a rank.

`ShuffledBatches` and `NegativeRatioBatches` draw rows; `isic.data.balanced` draws classes and
patients.

Every sampler yields `(epoch, positions)`, which is what `LesionDataset` takes: pass it as
`DataLoader(dataset, sampler=..., batch_size=None)`, or as `batch_sampler` with a `collate_fn`
that changes nothing. Either way Lightning finds its `set_epoch`.

Trap: `batch_size` is that of one rank. A global step is the same set of samples whatever the
number of ranks, as long as batch_size * world_size is.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from isic.errors import ConfigError

Positions = npt.NDArray[np.int64]
Batch = tuple[int, Positions]


def walk(n: int, *, start: int, count: int, seed: int) -> Positions:
    """`count` positions from `start` on in an endless run of seeded permutations of 0..n-1.

    Whoever takes the next `count` at each epoch misses none: all are seen within ceil(n / count).
    """
    parts: list[Positions] = []
    while count > 0:
        lap, offset = divmod(start, n)
        part = np.random.default_rng((seed, lap)).permutation(n)[offset : offset + count]
        parts.append(part)
        start += len(part)
        count -= len(part)
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


class TrainingBatches:
    """Order of one epoch, dealt out to ranks and cut into batches; a subclass draws the order.

    unit: With `drop_last`, an epoch's samples a rank are a multiple of it: `batch_size`, or what
        that was when a run began that goes on in batches of another size.
    """

    def __init__(
        self, *, n_epoch: int, batch_size: int, rank: int, world_size: int, drop_last: bool
    ) -> None:
        if n_epoch < 1 or batch_size < 1 or not 0 <= rank < world_size:
            raise ConfigError(
                "expected at least one sample, batch_size >= 1 and 0 <= rank < world_size, got "
                f"{n_epoch} samples, batch_size={batch_size}, rank={rank}, world_size={world_size}"
            )
        self.batch_size, self.drop_last, self.epoch = batch_size, drop_last, 0
        self.unit = batch_size
        self._n_epoch, self._rank, self._world = n_epoch, rank, world_size

    @property
    def sampler(self) -> "TrainingBatches":
        """Itself: Lightning calls set_epoch on `DataLoader.batch_sampler.sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return -(-self._shown // self.batch_size)

    @property
    def _shown(self) -> int:
        """Samples an epoch that this rank shows."""
        share = -(-self._n_epoch // self._world)
        return share - share % self.unit if self.drop_last and share >= self.unit else share

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        order = self._order(epoch)
        # Ranks must agree on the number of batches, or DDP hangs: the first samples fill up.
        order = np.resize(order, -(-len(order) // self._world) * self._world)
        mine = order[self._rank :: self._world][: self._shown]
        for i in range(len(self)):
            yield epoch, mine[i * self.batch_size : (i + 1) * self.batch_size]

    def _order(self, epoch: int) -> Positions:
        raise NotImplementedError


class ShuffledBatches(TrainingBatches):
    """Every sample once an epoch, or the next `samples_per_epoch` of an endless shuffle.

    target: (N,); here only its length counts.
    """

    def __init__(
        self,
        target: Positions,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        samples_per_epoch: int | None = None,
        drop_last: bool = True,
    ) -> None:
        super().__init__(
            n_epoch=samples_per_epoch or len(target),
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        self._n, self._seed = len(target), seed

    def _order(self, epoch: int) -> Positions:
        count = self._n_epoch
        return walk(self._n, start=epoch * count, count=count, seed=self._seed)


class NegativeRatioBatches(TrainingBatches):
    """All positives with `ratio` negatives each, other negatives every epoch.

    Negatives are walked through, not drawn afresh: each is seen within ceil(N / (ratio P))
    epochs (a published winner's sampler only ever saw 2P of them).

    target: (N,) int, 1 positive and 0 negative; other values are never drawn.
    samples_per_epoch: Positives and negatives together, in the same ratio.
    """

    def __init__(
        self,
        target: Positions,
        *,
        ratio: float,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        samples_per_epoch: int | None = None,
        drop_last: bool = True,
    ) -> None:
        self._positive, self._negative = np.flatnonzero(target == 1), np.flatnonzero(target == 0)
        counts = len(self._positive), len(self._negative)
        if min(counts) == 0 or ratio <= 0:
            raise ConfigError(
                "expected positives, negatives and ratio > 0, got "
                f"{counts[0]} positives, {counts[1]} negatives and ratio={ratio}"
            )
        self._n_positive = counts[0]
        if samples_per_epoch is not None:
            self._n_positive = max(1, round(samples_per_epoch / (1 + ratio)))
        self._n_negative = min(max(1, round(ratio * self._n_positive)), counts[1])
        super().__init__(
            n_epoch=self._n_positive + self._n_negative,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        self._seed = seed

    def _order(self, epoch: int) -> Positions:
        drawn = [
            of[walk(len(of), start=epoch * count, count=count, seed=self._seed)]
            for of, count in (
                (self._positive, self._n_positive),
                (self._negative, self._n_negative),
            )
        ]
        return np.random.default_rng((self._seed, epoch, 1)).permutation(np.concatenate(drawn))


class SequentialBatches:
    """Every sample in order, for evaluation: rank r takes r, r + world_size, ...

    A rank that is one short repeats its last position, so that all have as many batches;
    whoever gathers predictions drops duplicates by row.
    """

    drop_last = False

    def __init__(
        self, target: Positions, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        n = len(target)
        if n < 1 or batch_size < 1 or not 0 <= rank < world_size:
            raise ConfigError(
                "expected at least one sample, batch_size >= 1 and 0 <= rank < world_size, got "
                f"{n} samples, batch_size={batch_size}, rank={rank}, world_size={world_size}"
            )
        self.batch_size = batch_size
        self._mine = _own_share(n, rank, world_size)

    def __len__(self) -> int:
        return -(-len(self._mine) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._mine), self.batch_size):
            yield 0, self._mine[start : start + self.batch_size]


def _own_share(n: int, rank: int, world_size: int) -> Positions:
    share = np.arange(-(-n // world_size)) * world_size + rank
    if share[-1] >= n:
        share[-1] = share[-2] if len(share) > 1 else n - 1
    return share
