"""Feature families over the rows of a stack -> what each fold's fits see.

Families that do not learn are made once for all rows; those that learn are fitted on the training
rows of each fold alone, and so is a selection. Unit: row = sample, train and test rows in one
table, because a patient's context is made of all of its rows. A feature without a value, or with a
single one, in a fold's training rows can teach nothing and is left out there.
Trap: a column that only train rows have would be empty when the stack is applied; it is refused.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import DataError, first_five
from isic.features.family import Family, FeatureTable, State
from isic.features.selection import Selection
from isic.features.table import (
    check_columns,
    fit_features,
    join_features,
    make_features,
    split_families,
)
from isic.index.in_test import refuse_unseen_in_test, say_strange_texts, texts_among
from isic.index.metadata import IDS
from isic.index.schema import DatasetInfo
from isic.stack.inputs import Fold, FoldInputs, Samples

log = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]
States = Mapping[str, State]

_FIRST = 1000  # rows that are looked at first


class Selector(Protocol):
    """A node of conf/selection."""

    def fit(
        self,
        values: Matrix,
        names: Sequence[str],
        target: Ints,
        groups: npt.NDArray[Any] | None = None,
    ) -> Selection:
        """What training rows say is worth keeping."""
        ...


def fold_inputs(
    families: Mapping[str, Family],
    rows: pd.DataFrame,
    samples: Samples,
    folds: Iterable[Fold],
    *,
    info: DatasetInfo,
    cache_root: Path | None = None,
    selector: Selector | None = None,
    always: Collection[str] = (),
) -> tuple[dict[Fold, FoldInputs], dict[Fold, States]]:
    """Features of all rows for each fold, and what the families that learn took from it.

    rows: Train and test samples with `score_*` columns, in the order of `samples`.
    selector: Fitted on each fold's training rows; None keeps every column that varies.
    always: Features that stay even where they do not vary.

    Raises:
        DataError: A train-only column, one the table lacks or test rows have nothing in, a name
            that two families share, features of which none varies.
    """
    check_columns(families, rows, info)
    refuse_unseen_in_test(
        rows, needed_columns(families, rows), texts=category_columns(families, rows), key="features"
    )
    fixed, learned = split_families(families)
    shared = _made(fixed, rows, {}, info, cache_root)
    inputs: dict[Fold, FoldInputs] = {}
    states: dict[Fold, States] = {}
    for fold in folds:
        training = samples.training(fold)
        states[fold] = fit_features(learned, rows.iloc[training], info=info) if learned else {}
        own = _made(learned, rows, states[fold], info, None)
        source = laid_out([t for t in (shared, own) if t is not None])
        inputs[fold] = source = without_blank(source, training, always=always)
        if selector is not None:
            group = samples.table["group"].to_numpy()[training]
            chosen = selector.fit(
                source.take(training), source.columns, samples.target[training], group
            )
            inputs[fold] = keep(source, chosen.kept)
    return inputs, states


def without_blank(source: FoldInputs, training: Ints, *, always: Collection[str]) -> FoldInputs:
    """Leave out the columns that have no value, or a single one, in the training rows.

    Missing beside one value counts as two: that a value is known may say something.

    Raises:
        DataError: None is left.
    """
    blank: list[str] = []
    names = iter(source.names)
    for part in source.parts:
        for at in range(part.shape[1]):
            name = next(names)
            if name not in always and _is_blank(part[:, at], training):
                blank.append(name)
    if len(blank) == len(source.names):
        raise DataError(
            f"features: none of {len(blank)} has more than one value in {len(training)} training "
            f"rows: {first_five(blank)}. Does the table hold the columns behind them? Choose "
            "families that suit it with features=[...]"
        )
    if not blank:
        return source
    left = set(source.names) - set(blank)
    return replace(keep(source, [n for n in source.names if n in left]), blank=tuple(blank))


def _is_blank(column: Matrix, training: Ints) -> bool:
    """Return whether the training rows hold at most one value."""
    for rows in (training[:_FIRST], training[_FIRST:]):  # most columns differ within some rows
        values = column[rows]
        if len(values) and not np.array_equal(
            values, np.full_like(values, column[training[0]]), equal_nan=True
        ):
            return False
    return True


def applied_inputs(
    families: Mapping[str, Family],
    rows: pd.DataFrame,
    states: Mapping[Fold, States],
    columns: Mapping[str, Sequence[str]],
    *,
    info: DatasetInfo,
) -> dict[Fold, FoldInputs]:
    """Features of new rows for each fold of a saved stack.

    columns: Fold -> names that its models were fitted on.

    Raises:
        DataError: As `fold_inputs`; a feature that these rows do not give.
    """
    needed = needed_columns(families, rows)
    if empty := [c for c in needed if rows[c].isna().all()]:
        log.warning(
            "no row has a value in %s, which features are made of: what they say is missing",
            first_five(empty),
        )
    for column, texts in _categories(states).items():
        if column in rows:
            say_strange_texts(rows[column], texts)
    fixed, learned = split_families(families)
    shared = _made(fixed, rows, {}, info, None)
    inputs: dict[Fold, FoldInputs] = {}
    for fold, state in states.items():
        own = _made(learned, rows, state, info, None)
        source = laid_out([t for t in (shared, own) if t is not None])
        inputs[fold] = keep(source, columns[str(fold)])
    return inputs


def _categories(states: Mapping[Fold, States]) -> dict[str, list[str]]:
    """The texts that the families of each fold learned, by column."""
    found: dict[str, list[str]] = {}
    for of_fold in states.values():
        for state in of_fold.values():
            for column, texts in state.get("categories", {}).items():
                found[column] = sorted({*found.get(column, ()), *texts})
    return found


def laid_out(tables: Sequence[FeatureTable]) -> FoldInputs:
    """Tables of the same rows side by side, sharing their memory."""
    join_features([FeatureTable(t.ids[:0], t.names, t.values[:0]) for t in tables])  # the names
    names = tuple(name for table in tables for name in table.names)
    return FoldInputs(tuple(table.values for table in tables), names)


def keep(source: FoldInputs, names: Sequence[str]) -> FoldInputs:
    """Only some columns, in the order of `names`. Raises DataError for one it has not."""
    if absent := sorted(set(names) - set(source.names)):
        raise DataError(f"the rows lack the features {first_five(absent)} of this stack")
    if tuple(names) == source.columns:
        return source
    place = {name: i for i, name in enumerate(source.names)}
    kept = np.asarray([place[name] for name in names], dtype=np.int64)
    return replace(source, kept=kept)


def needed_columns(families: Mapping[str, Family], rows: pd.DataFrame) -> list[str]:
    """The columns of `rows` that some family reads."""
    available = list(rows.columns)
    return sorted({c for f in families.values() for c in f.needs(available) if c in rows})


def category_columns(families: Mapping[str, Family], rows: pd.DataFrame) -> list[str]:
    """The columns of texts whose values a family learns from training rows."""
    learned = {key: family for key, family in families.items() if family.learns}
    return [c for c in texts_among(rows, needed_columns(learned, rows)) if c not in IDS]


def _made(
    families: Mapping[str, Family],
    rows: pd.DataFrame,
    states: Mapping[str, Any],
    info: DatasetInfo,
    cache_root: Path | None,
) -> FeatureTable | None:
    """The features of some families, None where there are no families."""
    if not families:
        return None
    return make_features(families, rows, states, info=info, cache_root=cache_root)
