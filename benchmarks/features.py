"""Feature tables of ISIC 2024's size: against pandas, their memory, and how they grow with rows.

The set: 25 row-wise formulas, and 35 columns x (z-score, percentile, ratio to the mean) within the
patient, on generated metadata of 401,059 rows and 1,042 patients. `lambda` is what notebooks
write, `groupby.transform(lambda)` a column; `vectorised` uses pandas' own mean, std and rank.
Variants take turns, a bar's ratio is that of the medians; the log has the spread. Memory is what a
fresh process needs above the table itself. Growth: seconds at 401k rows over those at 50k, divided
by the ratio of rows; 1 is linear. Patients keep their size, so fewer rows are fewer patients.
"""

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import pandas as pd

from benchmarks.index import seconds
from benchmarks.tiles import KEYS, bench_root
from isic.acquire.synthetic.isic2024 import write_isic2024
from isic.features.cross_patient import LesionClusters
from isic.features.family import Family
from isic.features.lesion_shape import FORMULAS, MEASURED, LesionShape
from isic.features.outliers import Outliers
from isic.features.patient_context import PatientContext
from isic.features.table import fit_features, make_features
from isic.index.cache import cached_index
from isic.index.isic2024 import INFO, build_index

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
STEPS = (50_000, 100_000, 200_000, KEYS)
FORMULA_NAMES = [name for name in FORMULAS if name != "lesion_color_difference"][:25]
COLUMNS = [*MEASURED, "lesion_color_difference", "size_to_age"]  # 35
LAMBDA, VECTORISED, MEMORY_GB = 8.0, 2.5, 1.0
LINEAR = 1.3  # how much above linear the growth may be
SECONDS = {"lof": 120.0, "k-means": 120.0}
OURS: Mapping[str, Family] = {
    "lesion_shape": LesionShape(formulas=FORMULA_NAMES, measured=False),
    "patient_context": PatientContext(
        columns=COLUMNS,
        within={"patient": ("z", "percentile", "ratio")},
        counts=False,
        sums=(),
        summary=False,
    ),
}
_PEAK = """
import re, sys, logging
from pathlib import Path
from benchmarks.features import ours, samples
rows = samples(int(sys.argv[1]))
def peak():
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", text).group(1)) / 2**20
Path("/proc/self/clear_refs").write_text("5")  # the peak of reading the table is not ours
before = peak()
made = ours(rows)
print(peak() - before)
"""


def samples(keys: int) -> pd.DataFrame:
    """The training rows of a generated archive of `keys` rows, from the index's cache."""
    root = bench_root() / f"tables{keys}"
    write_isic2024(root, n_images=keys, n_test=3, images=False)
    table = cached_index(build_index, root, cache_root=bench_root() / "index").table
    return table[table["split"] == "train"].reset_index(drop=True)


def first_patients(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """About `n` rows: whole patients in order of their ids."""
    sizes = rows["patient_id"].value_counts().sort_index()
    chosen = sizes.index[sizes.cumsum() <= n]
    return rows[rows["patient_id"].isin(chosen)].reset_index(drop=True)


def ours(rows: pd.DataFrame) -> Any:
    """The set as a stack makes it."""
    return make_features(OURS, rows, info=INFO)


def _row_wise(rows: pd.DataFrame) -> pd.DataFrame:
    """The 25 formulas and the two further columns, as pandas expressions."""
    short = {c: rows[f"tbp_lv_{c}"] for c in (m.removeprefix("tbp_lv_") for m in MEASURED[1:])}
    names = short | {"D": rows["clin_size_long_diam_mm"], "age": rows["age"], "e": 1e-5}
    names |= {"s": short["symm_2axis"], "b": short["norm_border"], "c": short["norm_color"]}
    names |= {"dA": short["deltaA"], "dB": short["deltaB"], "dL": short["deltaL"]}
    names |= {"sqrt": np.sqrt, "log": np.log, "atan2": np.arctan2, "abs": np.abs}
    made: dict[str, Any] = {}
    for name in [*FORMULA_NAMES, *COLUMNS[-2:]]:
        made[name] = eval(FORMULAS[name], {}, names | made)
    return pd.DataFrame(made)


def with_lambda(rows: pd.DataFrame) -> pd.DataFrame:
    """One `groupby.transform(lambda)` a column and statistic."""
    shape = _row_wise(rows)
    table = pd.concat([rows, shape[COLUMNS[-2:]]], axis=1)
    made = {}
    for column in COLUMNS:
        grouped = table.groupby("patient_id")[column]
        made[f"{column}_z"] = grouped.transform(lambda x: (x - x.mean()) / (x.std() + 1e-5))
        made[f"{column}_percentile"] = grouped.transform(lambda x: x.rank(pct=True))
        made[f"{column}_ratio"] = grouped.transform(lambda x: x / x.mean())
    return pd.concat([shape[FORMULA_NAMES], pd.DataFrame(made)], axis=1).astype(np.float32)


def vectorised(rows: pd.DataFrame) -> pd.DataFrame:
    """pandas' own grouped mean, std and rank over all columns at once."""
    shape = _row_wise(rows)
    table = pd.concat([rows[COLUMNS[:-2]], shape[COLUMNS[-2:]]], axis=1)
    grouped = table.groupby(rows["patient_id"])
    mean = grouped.transform("mean")
    z = (table - mean) / (grouped.transform("std") + 1e-5)
    rank = grouped.rank(pct=True)
    parts = [
        shape[FORMULA_NAMES],
        z.add_suffix("_z"),
        rank.add_suffix("_p"),
        (table / mean).add_suffix("_r"),
    ]
    return pd.concat(parts, axis=1).astype(np.float32)


def _check(rows: pd.DataFrame) -> None:
    """The three ways agree before they are timed."""
    made, slow, fast = ours(rows).values, with_lambda(rows), vectorised(rows)
    at = len(FORMULA_NAMES)
    np.testing.assert_allclose(made, slow.to_numpy(), rtol=2e-5, atol=2e-6)
    for i, part in enumerate("zpr"):
        block = fast.to_numpy()[:, at + i * len(COLUMNS) :][:, : len(COLUMNS)]
        np.testing.assert_allclose(block, made[:, at + i :: 3], rtol=2e-5, atol=2e-6, err_msg=part)


def _medians(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of calls that take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    for name, values in taken.items():
        log.info(
            "features: %s %.2f s (%.2f to %.2f)", name, median(values), min(values), max(values)
        )
    return {name: median(values) for name, values in taken.items()}


def _bar(name: str, ours: float, baseline: float, target: float) -> dict[str, Any]:
    ratio = baseline / ours
    bar = {"name": name, "ours": ours, "baseline": baseline, "ratio": ratio, "target": target}
    return {**bar, "ok": ratio >= target}


def _growth(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Seconds of each part at growing numbers of rows, and how far from linear."""
    clusters = {"clusters": LesionClusters()}
    parts: dict[str, Callable[[pd.DataFrame], Any]] = {
        "set": ours,
        "lof": lambda part: Outliers().transform(part, {}),
        "k-means": lambda part: make_features(
            clusters, part, fit_features(clusters, part, info=INFO), info=INFO
        ),
    }
    tables = [first_patients(rows, n) if n < len(rows) else rows for n in STEPS]
    bars = []
    for name, call in parts.items():
        call(tables[0])  # imports and thread pools are no part of the growth
        taken = [seconds(lambda t=table, c=call: c(t)) for table in tables]
        listed = ", ".join(f"{len(t):,}: {s:.2f}" for t, s in zip(tables, taken, strict=True))
        log.info("features: %s, s by rows: %s", name, listed)
        growth = taken[-1] / taken[0] / (len(tables[-1]) / len(tables[0]))
        if name in SECONDS:
            bars.append(
                _bar(f"features: {name}, {len(rows):,} rows, s", taken[-1], SECONDS[name], 1)
            )
        bars.append(_bar(f"features: {name}, growth over linear", growth, LINEAR, 1.0))
    return bars


def run(*, keys: int = KEYS, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Measure every bar; each has name, ours, baseline, ratio, target and ok."""
    rows = samples(keys)
    _check(first_patients(rows, 20_000))
    calls = {"ours": ours, "lambda": with_lambda, "vectorised": vectorised}
    taken = _medians({n: lambda c=call: c(rows) for n, call in calls.items()}, rounds)
    command = [sys.executable, "-c", _PEAK, str(keys)]
    peak = float(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    return [
        _bar(
            "features: set of 25 + 105, s, against lambda", taken["ours"], taken["lambda"], LAMBDA
        ),
        _bar(
            "features: the same against vectorised pandas",
            taken["ours"],
            taken["vectorised"],
            VECTORISED,
        ),
        _bar("features: extra memory at the peak, GB", peak, MEMORY_GB, 1.0),
        *_growth(rows),
    ]


if __name__ == "__main__":
    from benchmarks.run import line

    logging.basicConfig(level=logging.INFO, format="# %(message)s")
    for found in run():
        print(line(found))
