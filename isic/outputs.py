"""Folders of results are marked, so that no reader takes them for data.

Runs, splits and reports may lie below `data.root`: whoever types a command in the folder of the
images has them there by default. The mark is a file in the folder itself, so that results stay
results wherever they are moved, and whichever command walks through the folder.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from isic.errors import ConfigError

OUTPUT_MARK = ".isic-output"


def output_folder(path: Path, *, given: bool = False) -> Path:
    """Make a folder of results and mark it, so that it is no data where it lies below `data.root`.

    Marked are a run, a study, `splits` and the like, never the runs root: data may lie in it, too.

    given: Whether a user named it, who may have named one that holds other things: it is marked
        only where it is new.
    """
    new = not path.exists() or not any(path.iterdir())
    path.mkdir(parents=True, exist_ok=True)
    mark = path / OUTPUT_MARK
    with suppress(OSError):  # of another user, say: it can be read from all the same
        if (new or not given) and not mark.exists():
            mark.write_text("Results of isic. Readers of images and tables leave this out.\n")
    return path


def mark_earlier(runs_root: Path) -> None:
    """Mark what an earlier version left under the runs root, which marked nothing."""
    for child in runs_root.iterdir() if runs_root.is_dir() else ():
        ours = child.name in ("splits", "predictions", "checks") or (child / "config.yaml").exists()
        if child.is_dir() and (ours or any(child.glob("fold*/config.yaml"))):
            output_folder(child)


def keep_apart(*, data_root: Any, images: Any, output: Any, paths_runs: Any) -> None:
    """Refuse results in the folder of the data itself; mark earlier results that lie below it.

    Takes values of a config's keys, whatever they are: only paths count.

    Raises:
        ConfigError: `output` is a folder of data.
    """
    data = [os.path.realpath(place) for place in (data_root, images) if isinstance(place, str)]
    if isinstance(output, str) and os.path.realpath(output) in data:
        raise ConfigError(
            f"output: {output} is the folder of the images, and results in it would be read as "
            "data; name a folder of its own"
        )
    runs = os.path.join(os.path.realpath(paths_runs), "") if paths_runs else ""
    if any(runs.startswith(os.path.join(root, "")) for root in data):
        mark_earlier(Path(paths_runs))
