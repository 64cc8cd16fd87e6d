"""Cross-fitting a stack of ISIC 2024's size: ours, and one fit after another on a DataFrame.

401,059 rows x 200 float32 features, 393 positives, 1,042 patients; 5 folds x 2 seeds x LightGBM of
200 trees on rows undersampled to 100 negatives a positive, each predicting its held-out fold. The
baseline is what public notebooks do: slices of a `DataFrame` as `read_csv` makes it, LightGBM's
default bins and threads. Both take turns in one process. Also: equality of one and two jobs, peak
memory in a process of its own, and growth from 50,000 rows on (seconds a row at 401,059 over that
at 100,265; 1 is linear).
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightgbm
import numpy as np
import pandas as pd

from benchmarks.metrics import bar
from isic.stack import Plan, Resample, cross_fit
from isic.stack.inputs import FoldInputs, Samples

ROOT = Path(__file__).resolve().parents[1]
N_ROWS, N_POSITIVES, N_PATIENTS, N_FEATURES, N_FOLDS = 401_059, 393, 1_042, 200, 5
SIZES = (50_132, 100_265, 200_530, N_ROWS)
SEEDS = (0, 1)
DRAWN = Resample(None, 0.01)
TREES = {"n_estimators": 200, "num_leaves": 31, "learning_rate": 0.05, "verbosity": -1}
OURS = partial(
    lightgbm.LGBMClassifier,
    **TREES, n_jobs=1, max_bin=63, deterministic=True, force_row_wise=True,
)  # fmt: skip
Rows = tuple[Samples, np.ndarray]


def archive(n_rows: int = N_ROWS) -> Rows:
    """Samples and column-major features; a tenth of the columns lean to the target."""
    rng = np.random.default_rng(0)
    patient = rng.integers(0, N_PATIENTS, n_rows)
    target = np.zeros(n_rows, dtype=np.int64)
    positives = max(N_POSITIVES * n_rows // N_ROWS, 40)
    target[rng.choice(n_rows, positives, replace=False)] = 1
    values = np.empty((n_rows, N_FEATURES), np.float32, order="F")
    for i in range(N_FEATURES):
        values[:, i] = rng.standard_normal(n_rows, dtype=np.float32)
        if i % 10 == 0:
            values[:, i] += 0.5 * target
    table = pd.DataFrame({"group": patient.astype(str), "fold": patient % N_FOLDS})
    return Samples(table, target, ("benign", "malignant")), values


def ours(rows: Rows, n_jobs: int = 2) -> np.ndarray:
    """Out-of-fold probabilities, (N, 2)."""
    samples, values = rows
    source = FoldInputs((values,), tuple(f"f{i}" for i in range(N_FEATURES)))
    plan = Plan(seeds=SEEDS, resample=DRAWN, n_jobs=n_jobs)
    return cross_fit(samples, dict.fromkeys(range(N_FOLDS), source), {"trees": OURS}, plan).oof


def baseline(rows: Rows, frame: pd.DataFrame) -> np.ndarray:
    """The same number of fits one after another, LightGBM as it comes."""
    samples, _ = rows
    fold, target = samples.table["fold"].to_numpy(), samples.target
    oof = np.zeros((len(target), 2))
    for k in range(N_FOLDS):
        for seed in SEEDS:
            training = np.flatnonzero(fold != k)
            drawn = DRAWN.rows(target[training], np.random.default_rng([seed, k]))
            chosen = frame.iloc[training[drawn]]
            model = lightgbm.LGBMClassifier(**TREES, random_state=seed)
            model.fit(chosen, target[training[drawn]])
            held_out = frame.iloc[np.flatnonzero(fold == k)]
            oof[fold == k] += model.predict_proba(held_out) / len(SEEDS)
    return oof


def seconds(call: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_memory() -> float:
    """GB of a process that makes the table and fits the stack."""
    code = (
        "import resource; from benchmarks.stack import archive, ours; ours(archive()); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def compared(rounds: int) -> tuple[float, float]:
    """Median seconds of ours and of the baseline, taking turns."""
    rows = archive()
    frame = pd.DataFrame(rows[1].astype(float), columns=[f"f{i}" for i in range(N_FEATURES)])
    pairs = [
        (seconds(partial(ours, rows)), seconds(partial(baseline, rows, frame)))
        for _ in range(rounds)
    ]
    fast, slow = np.median(pairs, axis=0).tolist()
    return fast, slow


def run(rounds: int = 1) -> list[dict[str, Any]]:
    """Ratio, memory and growth: `{"name", "ours", "baseline", "ratio", "target", "ok"}`."""
    fast, slow = compared(rounds)
    small = archive(SIZES[0])
    if not np.array_equal(ours(small, 1), ours(small, 2)):
        raise RuntimeError("two jobs give other bits than one; times mean nothing")
    each = {n: seconds(partial(ours, archive(n))) for n in SIZES[:-1]} | {N_ROWS: fast}
    print("# rows: seconds  " + "  ".join(f"{n}: {s:.1f}" for n, s in each.items()), flush=True)
    middle = SIZES[1]
    memory = peak_memory()
    return [
        bar("stack cross-fit, 5 folds x 2 seeds, vs DataFrame in a row", fast, slow, 1.8),
        bar("stack cross-fit within 4 GB", memory, 4.0, 1.0),
        bar(
            "stack cross-fit, s a row at 401,059 vs 100,265 (linear: 1)",
            fast / N_ROWS, each[middle] / middle, 0.8,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    for line in run():
        print(
            f"{line['name']}  {line['ours']:.3f}  {line['baseline']:.3f}  "
            f"{line['ratio']:.2f}x  target {line['target']}x  {'ok' if line['ok'] else 'short'}"
        )
