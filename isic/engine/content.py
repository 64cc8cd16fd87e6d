"""What a run's config only points at, as hashes: another content under a name is another run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from isic.index.metadata import metadata_hash
from isic.index.schema import Index, archive_hash, sample_rows
from isic.split.options import Split

HASHES = ("archive", "split_hash", "n_folds", "metadata_hash", "auxiliary_hash", "teacher_hash")


class Described(Protocol):
    """A run's data, of which no image is looked at: a data module, or its tables alone."""

    @property
    def index(self) -> Index: ...

    @property
    def split(self) -> Split: ...

    @property
    def metadata(self) -> Sequence[str]: ...

    @property
    def auxiliary(self) -> Sequence[str]: ...


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
