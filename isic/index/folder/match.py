"""Which image file a table means: by id, by file name or by path, in other case or another format.

Source: the paths of all image files and a column of names. Unit: one reference a row.
Where no path leads to a file, the folders that all of them begin with are dropped, as few as make
half of the rows fit one; further folders only where every row then has a file of its own.
Trap: one name may fit files in two folders (originals and masks, train and test): that is refused,
since nobody can choose, unless they are the same byte for byte; of two formats in one folder the
first of `EXTENSIONS` is taken.
"""

import filecmp
import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.folder.files import EXTENSIONS, safe_ids, without_extension

Matches = list[str]  # files that a name fits, the one to take first
NEXT_STEP = (
    "Correct the table, or name the column of image names with data.index.columns.image=COLUMN"
)
INSIDE = (
    "Paths are relative to data.root, and nothing outside it is read: set data.root to a folder "
    "that holds them, or put a link to theirs into it"
)


class Finder:
    """The image files by everything that a table may call them: path, name, stem, any case.

    files: Paths with forward slashes, relative to the root.
    """

    def __init__(self, files: list[str], root: Path) -> None:
        self._root = root
        self._files = set(files)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in files:
            self._by_stem[_stem(name)].append(name)

    def hits(self, values: list[str]) -> int:
        """How many of these values name a file."""
        return sum(bool(self._matches(_clean(v))) for v in values)

    def names(self, values: Collection[str]) -> int:
        """How many of these values end in the name of a file, wherever they say that it lies."""
        return sum(_stem(_clean(v)) in self._by_stem for v in values)

    def rows(self, values: pd.Series, *, where: str) -> tuple[pd.Series, pd.Series, list[str]]:
        """Ids and references of a column of image names, and notes.

        Raises:
            DataError: Rows without a name, names that leave the folder, that occur twice, or that
                fit several files.
        """
        cleaned, found, guessed = self._found(values)
        chosen = pd.Series([m[0] if m else None for m in found], values.index, dtype="string")
        named = chosen.fillna(cleaned)
        checks: dict[str, list[str]] = {
            "rows name no image": [f"row {i + 1}" for i in values.index[values.isna()]],
            "images lie outside data.root": [v for v in cleaned.dropna() if _leaves(v)],
            "images occur twice": list(named[named.notna() & named.duplicated()].unique()),
            "names fit several files; name their folders with data.index.images=FOLDER or "
            "[FOLDER,FOLDER], or map a column with paths (data.index.columns.image)": [
                f"{v} ({' and '.join(m[:2])})"
                for v, m in zip(values, found, strict=True)
                if len(m) > 1
            ],
        }
        faults = [f"{len(bad)} {what}: {first_five(bad)}" for what, bad in checks.items() if bad]
        if faults:
            # where nothing leads out, the folder is not in question
            inside = [INSIDE] if checks["images lie outside data.root"] else []
            raise DataError("\n".join([f"{where} cannot be used:", *faults, NEXT_STEP, *inside]))
        ids = pd.Series(safe_ids(cleaned.tolist()), index=values.index, dtype="string")
        missing, made = values[chosen.isna()], values[ids != cleaned.map(_last)]
        pairs = [f"{name} -> {id}" for name, id in zip(made, ids[made.index], strict=True)]
        unused = sorted(self._files.difference(chosen.dropna()))
        notes = {
            **guessed,
            f"{len(missing)} of {len(values)} rows have no image file": missing.tolist(),
            f"{len(made)} image names are no ids": pairs,
            f"{len(unused)} image files are named by no row": unused,
        }
        return ids, chosen, [f"{what}: {first_five(of)}" for what, of in notes.items() if of]

    def _found(self, values: pd.Series) -> tuple[pd.Series, list[Matches], dict[str, list[str]]]:
        """The names as they are looked for, the files that fit each, and what was guessed."""
        cleaned = values.map(lambda v: _clean(str(v)), na_action="ignore")
        found, guessed = [self._matches(v) for v in cleaned.fillna("")], dict[str, list[str]]()
        if not any(found) and (ends := self._shortened(cleaned.fillna("").tolist())) is not None:
            cleaned = pd.Series(ends, values.index, dtype="string")
            found = [self._matches(v) for v in ends]
            pairs = [f"{v} -> {m[0]}" for v, m in zip(values, found, strict=True) if m]
            guessed["no file lies where the table says; found by the ends of the paths"] = pairs
        same = {i for i, m in enumerate(found) if len(m) > 1 and self._same_bytes(m)}
        if same:
            what = f"{len(same)} names fit several files of the same bytes, the first is taken"
            guessed[what] = [" and ".join(found[i][:2]) for i in sorted(same)]
        return cleaned, [m[:1] if i in same else m for i, m in enumerate(found)], guessed

    def _shortened(self, values: list[str]) -> list[str] | None:
        """The paths without their first folders, which someone else's files lay in; else None."""
        parts = [v.split("/") for v in values]
        shared = len(os.path.commonprefix([p[:-1] for p in parts]))
        for cut in range(1, max(map(len, parts), default=1)):
            ends = ["/".join(p[min(cut, len(p) - 1) :]) for p in parts]
            found = [m for m in map(self._matches, ends) if m]
            needed = len(values) / 2 if cut <= shared else len(values)
            if found and len(found) >= needed:
                alone = {m[0] for m in found if len(m) == 1 or self._same_bytes(m)}
                return ends if len(alone) == len(found) else None
        return None

    def _same_bytes(self, names: Matches) -> bool:
        first, *others = (self._root / name for name in names)
        return all(filecmp.cmp(first, other, shallow=False) for other in others)

    def _matches(self, value: str) -> Matches:
        """The files that a name fits best: with its extension and case, else its case, else any."""
        if value in self._files:
            return [value]
        bare = without_extension(value)
        fits = [
            name
            for name in self._by_stem.get(_stem(value), [])
            if _ends(_folded(without_extension(name)), _folded(bare))
        ]
        for better in (
            [n for n in fits if _ends(n, value)],
            [n for n in fits if _ends(without_extension(n), bare)],
        ):
            fits = better or fits
        best: dict[str, str] = {}
        for name in sorted(fits, key=_extension_rank):
            best.setdefault(without_extension(name), name)
        return list(best.values())


def _ends(name: str, value: str) -> bool:
    """Whether the last folders and the file of `name` are those of `value`."""
    return f"/{name}".endswith(f"/{value}")


def _clean(value: str) -> str:
    """Forward slashes, no `./` in front."""
    return value.replace("\\", "/").removeprefix("./")


def _leaves(value: str) -> bool:
    path = PurePosixPath(value)
    return path.is_absolute() or ".." in path.parts or value[1:3] == ":/"


def _last(value: str) -> str:
    return without_extension(value).rpartition("/")[2]


def _stem(name: str) -> str:
    return _folded(_last(name))


def _folded(text: str) -> str:
    """Lower case, accents in one form: a Mac's files have them apart from their letters."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).lower()


def _extension_rank(name: str) -> tuple[int, str]:
    ending = PurePosixPath(name).suffix.lower()
    return (EXTENSIONS.index(ending) if ending in EXTENSIONS else len(EXTENSIONS), name)
