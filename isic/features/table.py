"""Families of features over a table of samples -> one float32 matrix with names and ids.

The way of a stack:

    samples = with_scores(sample_rows(index), {"effnet": oof_and_test})   # image_scores.py
    fixed, learned = split_families(families)
    base = make_features(fixed, samples, info=info, cache_root=cache)      # once, every row
    for fold in folds:
        states = fit_features(learned, samples[training], info=info)       # plain JSON: keep it
        extra = make_features(learned, samples, states, info=info)
        table = join_features([base, extra])

A saved stack applies `make_features(families, test_samples, states, info=info)` and gets the same
names in the same order.
Row unit: a sample. Missing is NaN; infinite values become NaN, and the log counts them. Constant
columns stay here, so that train and test cannot differ; a stack leaves them out of its fits.
Trap: within-patient features are made of all rows of a patient that are given together, so give
whole patients, and train and test rows in one table or in two, but never half a patient.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.features.cache import cached_features
from isic.features.family import LARGEST, Family, FeatureTable, State, require
from isic.features.lesion_shape import FORMULAS
from isic.index.schema import DatasetInfo, refuse_train_only

log = logging.getLogger(__name__)

# LightGBM refuses JSON's own characters, XGBoost brackets; these are safe in both and in a CSV.
NAME = re.compile(r"[A-Za-z0-9_]+")


def split_families(
    families: Mapping[str, Family],
) -> tuple[dict[str, Family], dict[str, Family]]:
    """Those that depend on a row or a patient alone, and those that learn from training rows."""
    fixed = {key: f for key, f in families.items() if not f.learns}
    return fixed, {key: f for key, f in families.items() if f.learns}


def fit_features(
    families: Mapping[str, Family], training: pd.DataFrame, *, info: DatasetInfo
) -> dict[str, State]:
    """Fit every family on training rows; the states are plain JSON by key of the family.

    Raises:
        DataError: A train-only column, or one the table lacks.
    """
    check_columns(families, training, info)
    return {key: family.fit(training) for key, family in families.items()}


def make_features(
    families: Mapping[str, Family],
    samples: pd.DataFrame,
    states: Mapping[str, State] | None = None,
    *,
    info: DatasetInfo,
    cache_root: Path | None = None,
) -> FeatureTable:
    """Apply families to samples, in the order of `families`.

    states: From `fit_features`; families that do not learn need none.
    cache_root: Keep the table there, by content; None: make it each time.

    Raises:
        DataError: As `fit_features`; two families that share a feature's name; a row twice.
        ConfigError: A family that learns, without a state.
    """
    states = states or {}
    check_columns(families, samples, info)
    if unfitted := [k for k, f in families.items() if f.learns and k not in states]:
        raise ConfigError(f"features: {', '.join(unfitted)} learn from training rows; fit first")
    if cache_root is None:
        return _make(families, samples, states)
    return cached_features(
        lambda: _make(families, samples, states), families, samples, states, cache_root=cache_root
    )


def join_features(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Put tables of the same rows side by side."""
    first = tables[0]
    if any(not np.array_equal(first.ids, other.ids) for other in tables[1:]):
        raise DataError("features: tables of different rows cannot stand side by side")
    names = [name for table in tables for name in table.names]
    _refuse_shared(names, {})
    if len(tables) == 1:
        return first
    values = np.empty((len(first.ids), len(names)), np.float32, order="F")
    at = 0
    for table in tables:
        values[:, at : at + len(table.names)] = table.values
        at += len(table.names)
    return FeatureTable(first.ids, tuple(names), values)


def check_columns(families: Mapping[str, Family], rows: pd.DataFrame, info: DatasetInfo) -> None:
    """Refuse columns that give the label away, or that the table lacks, before any work."""
    for key, family in families.items():
        needed = family.needs(list(rows.columns))
        refuse_train_only(needed, info)
        require(rows, needed, by=key, formulas=FORMULAS)


def _make(
    families: Mapping[str, Family], samples: pd.DataFrame, states: Mapping[str, State]
) -> FeatureTable:
    ids = samples["image_id"].to_numpy(dtype=object)
    if samples["image_id"].duplicated().any():
        twice = samples["image_id"][samples["image_id"].duplicated()]
        raise DataError(f"features: {len(twice)} samples stand twice: {first_five(twice)}")
    _say_infinities(families, samples)
    parts = {key: f.transform(samples, states.get(key, {})) for key, f in families.items()}
    names = [str(name) for part in parts.values() for name in part.columns]
    _refuse_shared(names, {key: [str(c) for c in part.columns] for key, part in parts.items()})
    values = np.empty((len(samples), len(names)), np.float32, order="F")
    at = 0
    for key in list(parts):
        part = parts.pop(key).to_numpy()  # freed as it is copied: half the peak memory
        values[:, at : at + part.shape[1]] = part
        at += part.shape[1]
    _no_infinities(values, names)
    return FeatureTable(ids, tuple(names), values)


def _refuse_shared(names: Sequence[str], owners: Mapping[str, Sequence[str]]) -> None:
    """Each name once, and such that every booster takes it."""
    counts = Counter([*names, "image_id"])  # the kept table's column of ids
    shared = sorted(name for name, count in counts.items() if count > 1)
    if shared:
        whose = [k for k, own in owners.items() if {*own} & {*shared}] or ["two tables"]
        raise DataError(
            f"features: {first_five(shared)} is made by {' and '.join(whose)}; leave one of them "
            "out with features=[...]"
        )
    if odd := [name for name in names if not NAME.fullmatch(name)]:
        raise DataError(f"features: names hold letters, digits and _, got {first_five(odd)}")


def _say_infinities(families: Mapping[str, Family], samples: pd.DataFrame) -> None:
    """Log how many input values are no numbers of this world; families take them as missing."""
    needed = {c for f in families.values() for c in f.needs(list(samples.columns))}
    numbers = [c for c in samples if c in needed and samples[c].dtype.kind == "f"]
    found = {c: int((samples[c].abs() > LARGEST).sum()) for c in numbers}
    if found := {c: count for c, count in found.items() if count}:
        total = sum(found.values())
        log.warning("features: %d infinite values in %s are missing", total, first_five(found))


def _no_infinities(values: npt.NDArray[np.float32], names: Sequence[str]) -> None:
    """Infinite to NaN in place; says in how many cells of which columns."""
    found: dict[str, int] = {}
    for i, name in enumerate(names):
        infinite = np.isinf(values[:, i])
        if infinite.any():
            found[name] = int(infinite.sum())
            values[infinite, i] = np.nan
    if found:
        total = sum(found.values())
        log.info("features: %d infinite values taken as missing in %s", total, first_five(found))
