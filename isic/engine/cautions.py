"""What a score must be read with: shortcuts in metadata, pseudo-labels, what saw the scored rows.

Source: the index of the run itself, by the same method and limit as `python -m isic check`, for the
columns that the network sees and no others: a second for ISIC 2024's 401,059 rows and four columns.
Unit: one sentence each, in `warnings` of `score.json`, in the log when a training starts, and
behind the score line.
"""

from pathlib import Path
from typing import Any

import numpy as np

from isic.audit.shortcuts import LIMIT, known_shortcuts
from isic.data import LesionDataModule
from isic.errors import CheckpointError, first_five
from isic.index.schema import index_hash, sample_rows
from isic.training.checkpoint import read


def cautions(data: LesionDataModule) -> list[str]:
    """Sentences on what makes this run's score look better than new patients would."""
    return [*_shortcuts(data), *_pseudo_labels(data), *data.cautions]


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


def seen_by_weights(pretrained: Any, data: LesionDataModule) -> list[str]:
    """Whether a training begins with a checkpoint that learnt from the rows it is scored on.

    That of the same fold of the same split did not.
    """
    if data.fold == "all" or not str(pretrained).endswith(".ckpt"):
        return []
    try:
        record = read(Path(pretrained))["isic"]
    except CheckpointError:  # weights of another framework; what is wrong with them is said there
        return []
    if record.get("index_hash") != index_hash(data.index.table):
        return []
    if (record["split_hash"], record["config"]["fold"]) == (data.split.hash, data.fold):
        return []
    return [
        f"model.pretrained={pretrained} was trained on this archive in another fold or split, on "
        "rows that are scored here: the score is too good; begin each fold with its own weights"
    ]
