"""Do test rows know what a model would learn from? One rule for `data.metadata` and for `features`.

Unit: a column of the samples. Refused are columns of which no test row has a value, and texts of
which no test row has a value that a train row has (`M` and `F` for `male` and `female`). What only
differs is a sentence for the score: a column that test rows know far less often, test values that
no train row has.
Trap: a column that is filled for train rows alone can give the label away, and the held-out rows,
which have it too, score an AUC of 1.0.
"""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from isic.errors import DataError, first_five

log = logging.getLogger(__name__)

FEWEST = 10  # test rows with values, below which strange ones may be chance and are not refused
LESS = 0.5  # of the share of train rows that know a column: told where test rows have less


def refuse_unseen_in_test(
    rows: pd.DataFrame, columns: Sequence[str], *, texts: Iterable[str], key: str
) -> None:
    """Refuse columns that test rows know nothing of, or nothing that train rows know.

    Args:
        rows: Samples of the index, train and test.
        columns: What is learnt from.
        texts: Those of them whose values are categories.
        key: The config key that names the columns.

    Raises:
        DataError: Names the columns and the key.
    """
    test = (rows["split"] == "test").to_numpy()
    if not test.any():
        return
    empty = [c for c in columns if rows[c][~test].notna().any() and rows[c][test].isna().all()]
    if empty:
        raise DataError(
            f"no test row has a value in {first_five(empty)}, which {key} is made of: a model "
            "would learn from what it will not see. Bring the whole test metadata, or choose "
            f"others with {key}=[...]"
        )
    for column in texts:
        known, strange = _strange(rows[column], test)
        if len(strange) == len(known) >= FEWEST:
            there = first_five(sorted(rows[column][~test].dropna().astype(str).unique()))
            raise DataError(
                f"no test row has a value in {column} that a train row has: test rows have "
                f"{first_five(sorted(strange.unique()))}, train rows {there}, and {key} is made "
                f"of it. Spell both alike, or choose others with {key}=[...]"
            )


def differences(
    rows: pd.DataFrame, columns: Sequence[str], *, texts: Iterable[str], key: str
) -> list[str]:
    """At most one sentence on columns that test rows know less of; arguments as above."""
    test = (rows["split"] == "test").to_numpy()
    if not test.any() or test.all():
        return []
    told = []
    for column in columns:
        train_share, test_share = (rows[column][own].notna().mean() for own in (~test, test))
        if test_share < LESS * train_share:
            told.append(f"{column} is known of {train_share:.0%} and {test_share:.0%} of them")
    for column in texts:
        known, strange = _strange(rows[column], test)
        if len(strange):
            told.append(
                f"{len(strange)} of {len(known)} test values of {column} occur in no train row "
                f"({first_five(sorted(strange.unique()))}) and count as unknown"
            )
    if not told:
        return []
    return [f"{key}: train and test rows differ: {'; '.join(told)}; test rows may score lower"]


def say_strange_texts(column: pd.Series, trained: Sequence[str]) -> None:
    """Log a column of new rows of which no value is one that training rows had."""
    given = column.dropna().astype(str).unique()
    if len(trained) and len(given) and not {*given} & {*trained}:
        log.warning(
            "no value of %s is one that training rows had: got %s, known are %s; all are unknown",
            *(column.name, first_five(sorted(given)), first_five(trained)),
        )


def texts_among(rows: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """The columns whose values are taken as categories."""
    return [
        c
        for c in columns
        if pd.api.types.is_bool_dtype(rows[c]) or not pd.api.types.is_numeric_dtype(rows[c])
    ]


def _strange(column: pd.Series, test: np.ndarray) -> tuple[pd.Series, pd.Series]:
    """Return the values of test rows, and those among them that no train row has."""
    train = column[~test].dropna().astype(str).unique()
    known = column[test].dropna().astype(str)
    return known, known[~known.isin(train)] if len(train) else known[:0]
