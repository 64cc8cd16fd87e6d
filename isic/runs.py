"""A run's folder, state and lock; what makes it the run that it is: `isic.identity`.

A run is one fit of one fold, in `<runs root>/<name>/fold<k>/`; a name's folds share its folder.
The name defaults to `<data>-<model>-<hash6>`, where the hash covers everything that changes what is
learnt: the resolved config without the keys of `NEUTRAL`, and the rows of the archive. A folder of
such a name that holds the same experiment is used before a new one is made: the hash of a command
changes with a key that a later version adds, what it learns does not.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isic.checksums import sealed_yaml
from isic.errors import ConfigError
from isic.files import file_lock, waiting_lock, write_text
from isic.identity import (
    PREDICTED_WITH,
    Defaults,
    changed_from,
    differing,
    is_garbled,
    read_config,
    with_batches_of,
)

log = logging.getLogger(__name__)

SETTLE = 5.0  # seconds in which folds that start at once clear what an earlier try left of them


@dataclass(frozen=True)
class RunFolder:
    """`<runs root>/<name>/fold<k>`: what stands in it, and who may write to it."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def score_file(self) -> Path:
        return self.path / "score.json"

    @property
    def start_file(self) -> Path:
        """The start of a SLURM job that threw away what stood here before."""
        return self.path / "slurm-start.txt"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def finished(self) -> bool:
        """Everything was written; the score comes last."""
        return self.score_file.exists()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write `config.yaml` with its checksum."""
        write_text(self.config_file, sealed_yaml(yaml.safe_dump(dict(config), sort_keys=False)))

    def claim(
        self,
        config: Mapping[str, Any],
        content: Mapping[str, Any],
        *,
        overwrite: bool = False,
        leads: bool = True,
        start: tuple[str, int] | None = None,
        defaults: Defaults | None = None,
        trained: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write `config.yaml`, or refuse a name that holds another experiment, in any fold.

        A fold that was given up before its first epoch, over its data say, holds nothing yet.

        content: What the config only points at: hashes `archive`, `split_hash`, and `n_folds`.
        overwrite: Throw away what this fold holds; other folds are never touched.
        leads: Whether this process deletes and writes; the other ranks of a job only refuse.
        start: Of which queued job, and how often it was started again: such a start does not
            overwrite what the first one of the job began.
        defaults: See `isic.identity.differing`.
        trained: Whether nothing is left but to predict; asked where batches are of another size.

        Raises:
            ConfigError: A stored config, archive or split differs; names each differing key.
        """
        entry = {**config, **content}
        if (self.path.parent / "config.yaml").exists():
            raise ConfigError(f"{self.path.parent} holds a stack; give another name=...")
        if overwrite and leads and is_garbled(self.config_file):
            self.config_file.unlink()
        changed = changed_from(self.config_file, entry, defaults)
        differs = bool(changed) and not overwrite
        again = self._predicts_only(entry, defaults, trained) if differs else {}
        if again:
            changed = []
            if leads:
                size = entry["data"]["batch_size"]
                self.write_config({**again, PREDICTED_WITH: size})
        if changed and not _learnt(self.path):
            if leads:  # the first of a job's ranks does it for the others
                _clear(self.path)
        elif changed and not overwrite:
            raise _another(self.path, changed, mend="overwrite=true")
        beside = with_batches_of(self.config_file, entry)
        for file in sorted(self.path.parent.glob("fold*/config.yaml")):
            if file != self.config_file:
                _make_room(file, beside, defaults, leads=leads)
        if overwrite and (changed or not start or not _goes_on(self.start_file, start)):
            self.empty()
            if start:
                write_text(self.start_file, f"{start[0]} {start[1]}")
        if leads and not self.config_file.exists():
            self.write_config(entry)

    def _predicts_only(
        self, entry: Mapping[str, Any], defaults: Defaults | None, trained: Callable[[], bool]
    ) -> dict[str, Any]:
        """The stored config where it differs in its batches alone and these train nothing more."""
        if self.finished or not self.config_file.exists():
            return {}
        stored = read_config(self.config_file)
        if differing(stored, entry, defaults=defaults, predicts_only=True) or not trained():
            return {}
        log.warning(
            "%s is trained, in batches of %s, and only the prediction is left, which batches of %s "
            "give as well; overwrite=true trains anew, in these",
            *(self.path, stored["data"]["batch_size"], entry["data"]["batch_size"]),
        )
        return stored

    def empty(self) -> None:
        """Throw away what the run holds, the score first, but not its lock."""
        # a killed overwrite must not look finished, nor what was put together from it
        made = ("score.json", "thresholds.json", "oof.parquet", "test.parquet", "submission.csv")
        run = self.path.parent
        with waiting_lock(run / ".lock", f"assembling {run}"):
            for name in made:
                (run / name).unlink(missing_ok=True)
            self.score_file.unlink(missing_ok=True)
            _clear(self.path)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """One process writes to a run; others wait, and say so. The lock dies with its holder.

        Gives whether this one waited.
        """
        with waiting_lock(self.path / ".lock", f"training {self.path}") as waited:
            yield waited


def _clear(fold: Path) -> None:
    """Delete what a fold's folder holds, but not its lock."""
    for child in fold.iterdir() if fold.exists() else ():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != ".lock":
            child.unlink()


def _learnt(fold: Path) -> bool:
    """Whether a fold holds something that was learnt."""
    return any(fold.glob("checkpoints/*.ckpt")) or (fold / "score.json").exists()


def _make_room(
    file: Path, entry: Mapping[str, Any], defaults: Defaults | None, *, leads: bool
) -> None:
    """Clear a sibling that holds nothing learnt of another experiment, or refuse the name.

    Folds that start at once over what an earlier try left hold their locks and clear their own.
    """
    end = time.monotonic() + SETTLE
    while changed := changed_from(file, entry, defaults):
        if _learnt(file.parent) or time.monotonic() > end:
            raise _another(file.parent, changed, mend=f"delete {file.parents[1]}")
        if not leads:
            return
        if not _cleared(file, entry, defaults):
            time.sleep(0.1)


def _cleared(file: Path, entry: Mapping[str, Any], defaults: Defaults | None) -> bool:
    """Clear a fold that no process is at; none begins before this returns."""
    from filelock import Timeout

    try:
        with file_lock(file.parent / ".lock", timeout=0):
            if changed_from(file, entry, defaults) and not _learnt(file.parent):
                _clear(file.parent)
            return True
    except Timeout:
        return False


def _another(fold: Path, changed: list[str], *, mend: str) -> ConfigError:
    return ConfigError(
        f"{fold} holds another experiment: {'; '.join(changed)}. "
        f"Give another name=..., or throw that one away: {mend}."
    )


def _goes_on(file: Path, start: tuple[str, int]) -> bool:
    """Whether `file` is of an earlier start of this job; two commands in one start are not that."""
    job, _, times = file.read_text().partition(" ") if file.exists() else ("", "", "")
    return job == start[0] and int(times) < start[1]
