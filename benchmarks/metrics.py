"""Scores of the full ISIC 2024 size, 401,059 rows, 393 malignant, 1,042 patients, one core.

Ours and the baselines take turns in one process; times are medians over the rounds, in seconds.
scikit-learn's bootstrap is timed on `SLOW_REPLICATES` resamples a round and scaled to 1,000.
Run it with OMP_NUM_THREADS=1; started as a script it sets that itself.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # before numpy loads its BLAS: all variants on one core, from any folder
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from sklearn.metrics import auc, roc_auc_score, roc_curve

from isic.metrics import bootstrap_interval
from isic.metrics.partial_auc import partial_auc

N_ROWS, N_POSITIVES, N_PATIENTS = 401_059, 393, 1_042
REPLICATES, SLOW_REPLICATES = 1_000, 5
MAX_FPR = abs(1 - 0.80)


def archive(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, skewed scores (AUC about 0.95) and patients of heavy-tailed sizes."""
    rng = np.random.default_rng(seed)
    target = np.zeros(N_ROWS, dtype=np.int64)
    target[rng.choice(N_ROWS, N_POSITIVES, replace=False)] = 1
    score = 1 / (1 + np.exp(5.0 - rng.normal(size=N_ROWS) - 2.3 * target))
    share = rng.pareto(1.2, N_PATIENTS) + 0.1
    patient = rng.choice(N_PATIENTS, N_ROWS, p=share / share.sum())
    return target, score, patient


def official(target: np.ndarray, score: np.ndarray) -> float:
    """The Kaggle scorer, on arrays: ROC of the flipped problem, cut by interpolation."""
    fpr, tpr, _ = roc_curve(np.abs(target - 1), -1.0 * score)
    stop = np.searchsorted(fpr, MAX_FPR, "right")
    edge = np.interp(MAX_FPR, fpr[stop - 1 : stop + 1], tpr[stop - 1 : stop + 1])
    return float(auc(np.append(fpr[:stop], MAX_FPR), np.append(tpr[:stop], edge)))


def scikit_learn(target: np.ndarray, score: np.ndarray) -> float:
    """The same area through `roc_auc_score(max_fpr=)`, unscaled again."""
    scaled = roc_auc_score(np.abs(target - 1), -score, max_fpr=0.2)
    return float(0.5 * 0.2**2 + (0.2 - 0.5 * 0.2**2) / 0.5 * (scaled - 0.5))


def slow_bootstrap(target: np.ndarray, score: np.ndarray, patient: np.ndarray) -> None:
    """Resample patients in a loop, as one writes it with numpy and scikit-learn."""
    rng = np.random.default_rng(0)
    order = np.argsort(patient, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(patient, minlength=N_PATIENTS))[:-1])
    for _ in range(SLOW_REPLICATES):
        drawn = rng.integers(0, N_PATIENTS, N_PATIENTS)
        rows = np.concatenate([rows_of[p] for p in drawn])
        scikit_learn(target[rows], score[rows])


def medians(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each variant, taking turns; one round to warm up is not counted."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(t[1:])) for name, t in times.items()}


def run(rounds: int = 7) -> list[dict[str, Any]]:
    """Time every bar: `{"name", "ours", "baseline", "ratio", "target", "ok"}`, seconds."""
    target, score, patient = archive()
    if abs(partial_auc(target, score) - official(target, score)) > 1e-12:
        raise RuntimeError("partial_auc differs from the official scorer; times mean nothing")
    point = medians(
        {
            "ours": lambda: partial_auc(target, score),
            "official": lambda: official(target, score),
            "scikit_learn": lambda: scikit_learn(target, score),
        },
        rounds,
    )
    interval = medians(
        {
            "ours": lambda: bootstrap_interval(
                partial_auc, target, score, group=patient, n_replicates=REPLICATES
            ),
            "scikit_learn": lambda: slow_bootstrap(target, score, patient),
        },
        max(5, rounds),
    )
    slow = interval["scikit_learn"] * REPLICATES / SLOW_REPLICATES
    return [
        bar("pauc vs official scorer", point["ours"], point["official"], 12),
        bar("pauc vs scikit-learn", point["ours"], point["scikit_learn"], 3),
        bar(
            f"pauc bootstrap x{REPLICATES} vs scikit-learn loop "
            f"(timed on {SLOW_REPLICATES}, scaled)",
            interval["ours"],
            slow,
            1000,
        ),
        bar(f"pauc bootstrap x{REPLICATES} within 0.2 s", interval["ours"], 0.2, 1),
    ]


def bar(name: str, ours: float, baseline: float, target: float) -> dict[str, Any]:
    """One line of the results: how many times faster, and whether that is enough."""
    ratio = baseline / ours
    return {
        "name": name,
        "ours": ours,
        "baseline": baseline,
        "ratio": ratio,
        "target": target,
        "ok": ratio >= target,
    }


if __name__ == "__main__":
    for line in run():
        print(
            f"{line['name']}  {line['ours']:.5f} s  {line['baseline']:.5f} s  "
            f"{line['ratio']:.1f}x  target {line['target']}x  {'ok' if line['ok'] else 'short'}"
        )
