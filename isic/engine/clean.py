"""What finished folds keep that no score needs: `python -m isic runs --clean`.

| dropped | needed by |
|---|---|
| `best.ckpt` where the last epoch is scored, `last.ckpt` where the best is | nothing any more |
| optimizer, schedule, loops and live weights in the checkpoint that is scored | a resume |

What stays predicts the same: weights, classes, archive, config. A fold without a score, or that a
process is at, is left alone.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from omegaconf import DictConfig

from isic.errors import UNREADABLE, ConfigError, one_line
from isic.files import file_lock, whole_file
from isic.identity import read_config
from isic.runs import RunFolder
from isic.streams import show
from isic.training.checkpoint import read

log = logging.getLogger(__name__)

NEEDED = ("state_dict", "isic", "epoch", "global_step", "pytorch-lightning_version")


@dataclass(frozen=True)
class Waste:
    """A checkpoint that nothing needs as it is.

    size: Bytes that dropping it, or what a resume needs of it, gives back.
    whole: The file goes; else it is written again without the rest.
    """

    path: Path
    size: int
    whole: bool


def clean(cfg: DictConfig) -> str:
    """Show what finished folds hold that no score needs; with `clean=delete`, drop it.

    Raises:
        ConfigError: `clean` is neither `show` nor `delete`.
    """
    if cfg.clean not in ("show", "delete"):
        raise ConfigError(f"clean: expected show or delete, got {cfg.clean!r}")
    total = 0
    for fold in finished_folds(Path(cfg.paths.runs)):
        with _alone(fold) as ours:
            for waste in _wasted(fold) if ours else ():
                total += waste.size
                what = "not scored" if waste.whole else "optimizer state"
                show(f"{in_megabytes(waste.size):>10}  {waste.path} ({what})")
                if cfg.clean == "delete":
                    drop(waste)
    verb = "dropped" if cfg.clean == "delete" else "could go: python -m isic runs --clean=delete"
    line = f"{in_megabytes(total)} {verb}"
    show(line)
    return line


def finished_folds(root: Path) -> list[RunFolder]:
    """Folds with a score, of runs and of a study's trials."""
    configs = [*root.glob("*/fold*/config.yaml"), *root.glob("*/*/fold*/config.yaml")]
    folders = {path.parent for path in configs}
    return [fold for fold in map(RunFolder, sorted(folders)) if fold.finished]


def _wasted(fold: RunFolder) -> list[Waste]:
    """Return the files of a fold that no score needs; none, with a warning, if it does not open."""
    try:
        return list(wasted(fold))
    except UNREADABLE as error:
        log.warning("%s cannot be read and is left alone: %s", fold.path, one_line(error))
        return []


def wasted(fold: RunFolder) -> Iterator[Waste]:
    """What of a finished fold could go; nothing where the scored checkpoint is not whole."""
    config = read_config(fold.config_file)
    best = config["evaluate"] == "best" and config["fold"] != "all"
    scored, other = (fold.best, fold.last) if best else (fold.last, fold.best)
    if not scored.exists():
        return
    spare = sum(map(_bytes, [v for k, v in read(scored).items() if k not in NEEDED]))
    if spare > 2**10:  # counters and names
        yield Waste(scored, spare, whole=False)
    if other.exists():
        yield Waste(other, other.stat().st_size, whole=True)


def drop(waste: Waste) -> None:
    """Delete the file, or write it again with what a prediction needs."""
    if waste.whole:
        waste.path.unlink()
        return
    kept = {key: value for key, value in read(waste.path).items() if key in NEEDED}
    with whole_file(waste.path) as file:
        torch.save(kept, file)


def _bytes(value: Any) -> int:
    """Of all tensors below a value."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


@contextmanager
def _alone(fold: RunFolder) -> Iterator[bool]:
    """Whether no process is at the fold; it then waits for us."""
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(fold.path / ".lock", timeout=0))
        except Timeout:
            yield False
        else:
            yield True


def in_megabytes(size: int) -> str:
    """`12.3 MB`."""
    return f"{size / 1e6:.1f} MB"
