"""Sentences that a score must be read with, wherever it comes from: an image run or a stack.

Source: the index itself, by the method and limit of `python -m isic check`, for the columns that
are used and no others: a second for ISIC 2024's 401,059 rows and four columns.
Unit: one sentence each, in `warnings` of `score.json`, in the log when a fit starts, and behind the
score line.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from isic.audit.shortcuts import LIMIT, known_shortcuts
from isic.errors import first_five
from isic.index.schema import Index


def shortcut_cautions(
    index: Index, rows: pd.DataFrame, columns: Sequence[str], *, key: str
) -> list[str]:
    """At most one sentence on used columns that tell a class alone.

    rows: Samples of the index. key: What of the config names the columns.
    """
    found = known_shortcuts(index, rows, columns)
    if not found:
        return []
    return [
        f"{key} holds columns that tell a class alone (AUC > {LIMIT:.2f}): "
        f"{first_five(found)}; is that medicine, or how the data came together?"
    ]


def pseudo_cautions(table: pd.DataFrame) -> list[str]:
    """At most one sentence on rows of a table whose labels are predictions."""
    source = table["pseudo"].dropna() if "pseudo" in table else pd.Series(dtype=object)
    if not len(source):
        return []
    runs = first_five(np.sort(source.unique()))
    return [
        f"{len(source)} pseudo-labelled images of {runs} were trained on; models that made the "
        "labels have seen the rows that are scored here"
    ]
