"""Index, split and pack of a study's trials, made once before any of them runs."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from isic.errors import CheckpointError, ConfigError, DataError, IsicError
from isic.search.forks import Jobs
from isic.search.options import SearchOptions
from isic.search.trial import reason, wait_for

log = logging.getLogger(__name__)


def prepare(base: Mapping[str, Any], search: SearchOptions, jobs: Jobs) -> dict[str, Any]:
    """Make what trials read, in a process of its own; hashes of archive and split.

    Raises:
        ConfigError, DataError, CheckpointError, IsicError: As a training would, with its message.
    """
    if search.stage != "train":
        return {}  # a stack opens the index by itself, and has no pack
    folder = search.folder
    folder.mkdir(parents=True, exist_ok=True)
    file, log_file, answer = (folder / f"prepared.{s}" for s in ("yaml", "log", "json"))
    begun = log_file.stat().st_size if log_file.exists() else 0
    config = {**base, "folds": list(search.folds), "prepared": str(answer)}
    log.info("data    making sure that index, split and pack are there: %s", log_file)
    if code := wait_for(jobs, jobs.start("prepare", config, file, log_file)):
        kinds = {e.exit_code: e for e in (ConfigError, DataError, CheckpointError)}
        text = reason(code, log_file, begun).removeprefix(f"exit code {code}: ")
        raise kinds.get(code, IsicError)(text)
    content: dict[str, Any] = json.loads(answer.read_text())
    return content
