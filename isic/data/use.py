"""Which rows of a split are trained on, looked at while training, and held out to be scored."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isic.errors import DataError
from isic.prepare import Rows
from isic.split.options import training_mask

Use = dict[Literal["train", "val", "held_out"], NDArray[np.int64]]


def targets(rows: Rows) -> NDArray[np.int64]:
    """Class indices of all rows, -1 where unlabelled."""
    return rows.table["target"].fillna(-1).to_numpy(dtype=np.int64)


def weights(rows: Rows) -> dict[str, NDArray[np.float32]]:
    """`weight` of each row's loss, 1.0 where it has none; nothing where no row has one."""
    if "weight" not in rows.table:
        return {}
    return {"weight": rows.table["weight"].fillna(1.0).to_numpy(np.float32)}


def use_of(rows: Rows, fold: int | str, *, val_negatives: int | None = None, seed: int = 0) -> Use:
    """Positions among `rows` by use; rows without a readable image are in none.

    `held_out` is the fold, `val` what of it is looked at while training: all positives and a fixed
    sample of `val_negatives` negatives.

    Raises:
        DataError: Nothing to train on, or nothing to validate.
    """
    folds = rows.table["fold"].to_numpy()
    train = np.flatnonzero(training_mask(rows.table, fold) & rows.readable)
    held_out = np.flatnonzero((folds == fold) & rows.readable)
    if not len(train) or (fold != "all" and not len(held_out)):
        others = sorted({int(f) for f in folds[rows.readable] if f >= 0})
        raise DataError(
            f"fold {fold}: expected rows with a readable image to train on and to hold out, got "
            f"{len(train)} and {len(held_out)} of {len(folds)}; folds with images: "
            f"{', '.join(map(str, others)) or 'none'}"
        )
    return {
        "train": train,
        "val": _partial(held_out, targets(rows), val_negatives, seed),
        "held_out": held_out,
    }


def _partial(
    rows: NDArray[np.int64], target: NDArray[np.int64], negatives: int | None, seed: int
) -> NDArray[np.int64]:
    negative, positive = rows[target[rows] == 0], rows[target[rows] != 0]
    if negatives is None or len(negative) <= negatives:
        return rows
    kept = np.random.default_rng(seed).choice(negative, negatives, replace=False)
    return np.sort(np.concatenate([positive, kept]))
