"""What all generated archives share: the mark of the folder, counts by class, ids.

Unit: one folder. `synthetic.json` holds the arguments it was made with, and `complete` once all
of it stands.
Trap: without the mark a folder that holds tables is taken for a real archive and left alone; with
it, everything that the writer names as its own is thrown away before it is written again.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isic.errors import ConfigError, DataError
from isic.files import write_text
from isic.images.progress import Progress
from isic.streams import show

log = logging.getLogger(__name__)

MARK = "synthetic.json"
Size = int | tuple[int, int] | None


def generate(
    root: Path,
    arguments: dict[str, Any],
    *,
    names: Sequence[str],
    write: Callable[[Path, dict[str, Any]], None],
) -> Path:
    """Call `write(root, arguments)` unless the same archive lies there; returns the root.

    arguments: As JSON keeps them; `archive`, `n_images` and `n_test` among them.
    names: Files and folders of the root that are the writer's own.

    Raises:
        ConfigError: No archive has such counts.
        DataError: The folder holds something else.
    """
    n_images, n_test = arguments["n_images"], arguments["n_test"]
    if n_images < 2 or n_test < 0:
        raise ConfigError(
            f"a generated archive needs n_images >= 2 and n_test >= 0, got n_images={n_images}, "
            f"n_test={n_test}"
        )
    if _done_already(root, arguments):
        show(f"{root} holds this generated archive already")
        return root
    # Marked before the first file, so that a broken-off run can go again.
    _mark(root, arguments, complete=False)
    _clear(root, names)
    write(root, arguments)
    _mark(root, arguments, complete=True)
    show(f"{n_images} train and {n_test} test samples in {root}")
    return root


def default_test(n_images: int, n_test: int | None) -> int:
    """The number of test samples: as given (0: no test files), or a tenth, at least 3."""
    return max(3, n_images // 10) if n_test is None else n_test


def plain_size(size_range: Size) -> Any:
    """A size as JSON keeps it, so that the mark can be compared."""
    return list(size_range) if isinstance(size_range, tuple) else size_range


def own_rng(arguments: Mapping[str, Any]) -> np.random.Generator:
    """Numbers for the ids: of one seed, those of two archives have nothing in common."""
    return np.random.default_rng(_entropy(arguments))


def seeds_of(arguments: Mapping[str, Any], split: str, n: int) -> list[int]:
    """Seeds of `train` or `test`: their people and lesions have nothing in common."""
    sequence = np.random.SeedSequence([*_entropy(arguments), int(split == "train")])
    return [int(s) for s in sequence.generate_state(n)]


def _entropy(arguments: Mapping[str, Any]) -> list[int]:
    return [arguments["seed"], *arguments["archive"].encode()]


def splits(arguments: Mapping[str, Any]) -> list[tuple[str, int]]:
    """`train` and `test` with their numbers of samples; no `test` where none is asked for."""
    both = [("train", arguments["n_images"]), ("test", arguments["n_test"])]
    return [(split, n) for split, n in both if n]


def class_counts(n: int, published: Mapping[str, float], *, floor: int = 0) -> dict[str, int]:
    """Spread n over the classes as published, to the last one; small classes get `floor` each.

    Where n is small, floors take two thirds of it at most; the rest stays in proportion.
    """
    if n == 0:
        return dict.fromkeys(published, 0)
    floor = min(floor, 2 * n // (3 * len(published)))
    share = np.array(list(published.values()), dtype=float) * n / sum(published.values())
    counts = np.maximum(np.floor(share).astype(int), np.where(share > 0, floor, 0))
    for i in np.argsort(-(share - np.floor(share)), kind="stable"):
        counts[i] += counts.sum() < n
    # What the floors took comes from the largest class.
    while counts.sum() != n:
        counts[counts.argmax()] += np.sign(n - counts.sum())
    return dict(zip(published, counts.tolist(), strict=True))


def spread(counts: Mapping[str, int]) -> NDArray[np.str_]:
    """Repeat each name as often as counted, in order."""
    return np.repeat(np.array(list(counts)), list(counts.values()))


def weighted(rng: np.random.Generator, weights: Mapping[str, float], n: int) -> NDArray[np.str_]:
    """Draw n names by weight."""
    weight = np.array(list(weights.values()), dtype=float)
    return rng.choice(np.array(list(weights)), n, p=weight / weight.sum())


def numbers(
    rng: np.random.Generator, low: int, high: int, n: int, *, step: int = 1
) -> NDArray[np.int64]:
    """Draw n distinct numbers of low, low + step, ... below high."""
    return low + step * rng.choice((high - low) // step, n, replace=False)


def write_images(root: Path, names: Sequence[str], jpegs: Iterable[bytes]) -> None:
    """Write one file an image; names: relative to the root, folders are made."""
    for folder in {name.rpartition("/")[0] for name in names}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    title = f"writing {names[0].partition('/')[0]}" if names else "writing images"
    with Progress(title, total=len(names)) as bar:
        for name, data in zip(names, jpegs, strict=True):
            (root / name).write_bytes(data)
            bar.advance(1)


def _done_already(root: Path, arguments: dict[str, Any]) -> bool:
    """Whether the same archive lies there; refuses a folder that was not generated."""
    if (root / MARK).is_file():
        found = _read_mark(root / MARK)
        if found.get("archive") != arguments["archive"]:
            raise DataError(
                f"{root.absolute()} holds a generated {found.get('archive')} archive, expected "
                f"{arguments['archive']} or nothing; choose another data.root"
            )
        return bool(found == {**arguments, "complete": True})
    taken = sorted(p.name for p in root.glob("*") if not p.name.startswith("."))
    if taken:
        raise DataError(
            f"{root.absolute()} must be empty or generated before (it would hold {MARK}), got "
            f"{', '.join(taken[:5])}; choose another data.root"
        )
    return False


def _read_mark(path: Path) -> dict[str, Any]:
    """What the mark says. Raises DataError where it is no mark."""
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(
            f"{path.absolute()} is not what a generated archive holds; if {path.parent.absolute()} "
            "holds nothing else of value, delete it, or choose another data.root"
        )
    return found


def _clear(root: Path, names: Sequence[str]) -> None:
    """Throw away what another number of images left; a link is unlinked, never followed."""
    for path in (root / name for name in names):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _mark(root: Path, arguments: dict[str, Any], *, complete: bool) -> None:
    """Say what lies here."""
    write_text(root / MARK, json.dumps({**arguments, "complete": complete}, indent=1) + "\n")
