"""Small tables for the tests of stacks: samples with folds, features that know something."""

import numpy as np
import pandas as pd

from isic.stack.inputs import FoldInputs, Samples


def samples(n: int = 600, *, classes: int = 2, folds: int = 3, seed: int = 0) -> Samples:
    """Groups of four rows, a tenth of the rows in each class but the first."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) // 4
    table = pd.DataFrame({"group": group.astype(str), "fold": group % folds})
    target = np.zeros(n, dtype=np.int64)
    for label in range(1, classes):
        target[rng.choice(n, n // 10, replace=False)] = label
    return Samples(table, target, tuple(f"c{i}" for i in range(classes)))


def features(rows: Samples, *, width: int = 6, seed: int = 0) -> FoldInputs:
    """Noise; the first column leans to the target; a tenth is missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(rows.target), width)).astype(np.float32)
    values[:, 0] += rows.target
    values[rng.random(values.shape) < 0.1] = np.nan
    return FoldInputs((np.asfortranarray(values),), tuple(f"f{i}" for i in range(width)))
