"""Sentences that a score must be read with, wherever it comes from: an image run or a stack.

Source: the index itself, by the method and limit of `python -m isic check`, for the columns that
are used and no others: a second for ISIC 2024's 401,059 rows and four columns.
Unit: one sentence each, in `warnings` of `score.json`, in the log when a fit starts, and behind the
score line.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from isic.audit.shortcuts import LIMIT, known_pairs, known_shortcuts
from isic.errors import first_five
from isic.index.schema import Index


def shortcut_cautions(
    index: Index, rows: pd.DataFrame, columns: Sequence[str], *, key: str
) -> list[str]:
    """A sentence on used columns that tell a class alone, and one on two that do together.

    rows: Samples of the index. key: What of the config names the columns.
    """
    alone = known_shortcuts(index, rows, columns)
    together = known_pairs(index, rows, columns)
    why = "is that medicine, or how the data came together?"
    said = []
    if alone:
        said.append(
            f"{key} holds columns that tell a class alone (AUC > {LIMIT:.2f}): "
            f"{first_five(alone)}; {why}"
        )
    if together:
        said.append(
            f"{key} holds two columns that tell a class together (AUC): {first_five(together)}; "
            f"{why}"
        )
    return said


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
