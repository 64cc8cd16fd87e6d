"""Which image file a table means: by id, by file name or by path, in other case or another format.

Source: the paths of all image files and a column of names. Unit: one reference a row.
Trap: one name may fit files in two folders (originals and masks, train and test): that is refused,
since nobody can choose; of two formats in one folder the first of `EXTENSIONS` is taken.
"""

from collections import defaultdict
from collections.abc import Collection
from pathlib import PurePosixPath

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.folder.files import EXTENSIONS, safe_ids, without_extension

NEXT_STEP = (
    "Correct the table, or name the column of image names with data.index.columns.image=COLUMN"
)


class Finder:
    """The image files by everything that a table may call them: path, name, stem, any case.

    files: Relative paths with forward slashes.
    """

    def __init__(self, files: list[str]) -> None:
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
        cleaned = values.map(lambda v: _clean(str(v)), na_action="ignore")
        found = [self._matches(v) for v in cleaned.fillna("")]
        chosen = pd.Series([m[0] if m else None for m in found], values.index, dtype="string")
        named = chosen.fillna(cleaned)
        checks: dict[str, list[str]] = {
            "rows name no image": [f"row {i + 1}" for i in values.index[values.isna()]],
            "images lie outside data.root": [v for v in cleaned.dropna() if _leaves(v)],
            "images occur twice": list(named[named.notna() & named.duplicated()].unique()),
            "names fit several files; map a column with paths (data.index.columns.image)": [
                f"{v} ({' and '.join(m[:2])})"
                for v, m in zip(values, found, strict=True)
                if len(m) > 1
            ],
        }
        faults = [f"{len(bad)} {what}: {first_five(bad)}" for what, bad in checks.items() if bad]
        if faults:
            raise DataError("\n".join([f"{where} cannot be used:", *faults, NEXT_STEP]))
        ids = pd.Series(safe_ids(cleaned.tolist()), index=values.index, dtype="string")
        missing, made = values[chosen.isna()], values[ids != cleaned.map(_last)]
        pairs = [f"{name} -> {id}" for name, id in zip(made, ids[made.index], strict=True)]
        notes = {
            f"{len(missing)} of {len(values)} rows have no image file": missing.tolist(),
            f"{len(made)} image names are no ids": pairs,
        }
        return ids, chosen, [f"{what}: {first_five(of)}" for what, of in notes.items() if of]

    def _matches(self, value: str) -> list[str]:
        """The files that a name fits best: with its extension and case, else its case, else any."""
        if value in self._files:
            return [value]
        bare = without_extension(value)
        fits = [
            name
            for name in self._by_stem.get(_stem(value), [])
            if _ends(without_extension(name).lower(), bare.lower())
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
    return _last(name).lower()


def _extension_rank(name: str) -> tuple[int, str]:
    ending = PurePosixPath(name).suffix.lower()
    return (EXTENSIONS.index(ending) if ending in EXTENSIONS else len(EXTENSIONS), name)
