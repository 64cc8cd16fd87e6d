"""What a score must be read with: shortcuts among the metadata, pseudo-labels among the rows.

Source: the index of the run itself, by the same method and limit as `python -m isic check`, for the
columns that the network sees and no others: a second for ISIC 2024's 401,059 rows and four columns.
Unit: one sentence each, in `warnings` of `score.json`, in the log when a training starts, and
behind the score line.
"""

import numpy as np

from isic.audit.shortcuts import LIMIT, known_shortcuts
from isic.data import LesionDataModule
from isic.errors import first_five
from isic.index.schema import sample_rows


def cautions(data: LesionDataModule) -> list[str]:
    """Sentences on what makes this run's score look better than new patients would."""
    return [*_shortcuts(data), *_pseudo_labels(data)]


def _shortcuts(data: LesionDataModule) -> list[str]:
    if not data.encoder:
        return []
    found = known_shortcuts(data.index, sample_rows(data.index), data.encoder.columns)
    if not found:
        return []
    return [
        f"data.metadata holds columns that tell a class alone (AUC > {LIMIT:.2f}): "
        f"{first_five(found)}; is that medicine, or how the data came together?"
    ]


def _pseudo_labels(data: LesionDataModule) -> list[str]:
    table = data.index.table
    if "pseudo" not in table:
        return []
    source = table["pseudo"].dropna()
    runs = first_five(np.sort(source.unique()))
    return [
        f"{len(source)} pseudo-labelled images of {runs} were trained on; models that made the "
        "labels have seen the rows that are scored here"
    ]
