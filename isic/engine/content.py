"""What a run's config only points at, as hashes: another content under a name is another run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isic.engine.described import Described
from isic.index.metadata import metadata_hash
from isic.index.schema import archive_hash, sample_rows

HASHES = ("archive", "split_hash", "n_folds", "metadata_hash", "auxiliary_hash", "teacher_hash")


def run_content(config: Mapping[str, Any], data: Described) -> dict[str, Any]:
    """`HASHES` of a run, those that it has; torch is imported for auxiliary targets and teachers.

    Raises:
        ConfigError: An auxiliary column or a teacher that this training cannot have.
    """
    split, info = data.split, data.index.info
    content: dict[str, Any] = {
        "archive": archive_hash(data.index),
        "split_hash": split.hash,
        "n_folds": split.n_folds,
    }
    if data.metadata:
        rows = sample_rows(data.index)
        content["metadata_hash"] = metadata_hash(rows, data.metadata, info=info)
    if data.auxiliary:
        from isic.data.auxiliary import check_names, values_hash

        rows = sample_rows(data.index)
        check_names(rows, data.auxiliary, info=info)
        content["auxiliary_hash"] = values_hash(rows, data.auxiliary)
    if config.get("distill"):
        from isic.engine.teacher import check_teacher, open_teachers, teachers_hash

        teachers = open_teachers(config["distill"]["teacher"], runs=Path(config["paths"]["runs"]))
        for teacher in teachers:
            check_teacher(teacher, data)
        content["teacher_hash"] = teachers_hash(teachers)
    return content


def content_text(content: Mapping[str, Any]) -> str:
    """What `run_name` takes for the content."""
    return "-".join(map(str, content.values()))
