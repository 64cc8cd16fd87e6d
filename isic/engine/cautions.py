"""What the score of an image run must be read with, and what its first weights have seen."""

from pathlib import Path
from typing import Any

from isic.audit.cautions import pseudo_cautions, shortcut_cautions
from isic.data import LesionDataModule
from isic.errors import CheckpointError
from isic.index.in_test import differences, texts_among
from isic.index.schema import index_hash, sample_rows
from isic.training.checkpoint import unchecked


def cautions(data: LesionDataModule) -> list[str]:
    """Sentences on what makes this run's score look better than new patients would."""
    said = pseudo_cautions(data.index.table) + data.cautions
    if not data.encoder:
        return said
    rows, columns, key = sample_rows(data.index), data.encoder.columns, "data.metadata"
    shortcuts = shortcut_cautions(data.index, rows, columns, key=key)
    texts = texts_among(rows, columns)
    return shortcuts + differences(rows, columns, texts=texts, key=key) + said


def seen_by_weights(pretrained: Any, data: LesionDataModule) -> list[str]:
    """Whether a training begins with a checkpoint that learnt from the rows it is scored on.

    That of the same fold of the same split did not.
    """
    if data.fold == "all" or not str(pretrained).endswith(".ckpt"):
        return []
    try:
        record = unchecked(Path(pretrained))["isic"]
    except CheckpointError:  # weights of another framework; what is wrong with them is said there
        return []
    if record.get("index_hash") != index_hash(data.index.table):
        return []
    config = record.get("config")
    fold = config.get("fold") if isinstance(config, dict) else None
    if (record.get("split_hash"), fold) == (data.split.hash, data.fold):
        return []
    return [
        f"model.pretrained={pretrained} was trained on this archive in another fold or split, on "
        "rows that are scored here: the score is too good; begin each fold with its own weights"
    ]
