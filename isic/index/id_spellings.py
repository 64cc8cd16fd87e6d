"""Ids that are one id but for their spelling: `IP_123` and `ip_123 `, `00123` and `123`.

Two spellings of one patient are two groups, which folds then divide: the score is too good and no
number shows it. A reader brings every id that joins or groups here, of all of its tables. What is
equal in lower case, without blanks, in plain width, without leading zeros and without the `.0` of a
number that was read as a float is refused with its pairs, until `data.index.ids` says whether they
are two (`exact`) or one (`normalised`).
Unit: one id as text; kinds are patient_id, lesion_id and image_id, and attribution, which groups
where folds go by hospital and is refused there alone.
Cost: 10 ms for 401,059 ids of one form (`ISIC_` and seven digits), 0.2 s for mixed ones.
"""

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from isic.errors import ConfigError, first_five

EXACT = "exact"
CHOICES = (EXACT, "normalised")
HOSPITAL = "attribution"
KINDS = ("patient_id", "lesion_id", "image_id", HOSPITAL)
# Letters, digits, `_` and `-` need lower case and zeros only, which Arrow does for whole columns.
PLAIN = "^[A-Za-z0-9_-]*$"


@dataclass
class IdSpellings:
    """The ids of one archive, of all of its tables.

    choice: `exact`, `normalised`, or None: spellings of one id are faults.
    """

    choice: str | None = None
    _met: dict[str, list[pd.Series]] = field(default_factory=lambda: defaultdict(list))
    _spelling: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    _changed: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def __post_init__(self) -> None:
        """Refuse an unknown choice."""
        if self.choice is not None and self.choice not in CHOICES:
            raise ConfigError(
                f"data.index.ids: expected {' or '.join(CHOICES)}, got {self.choice!r}"
            )

    def take(self, kind: str, ids: pd.Series) -> pd.Series:
        """Note a column of ids and return it; `normalised`: in the spellings that came first.

        kind: Of KINDS.
        """
        if self.choice == EXACT:
            return ids
        if self.choice is None:
            if kind != HOSPITAL:
                self._met[kind].append(ids)
            return ids
        first, changed = self._spelling[kind], dict[str, str]()
        unique = _unique([ids])
        for spelling, key in zip(unique.to_pylist(), keys_of(unique), strict=True):
            taken = first.setdefault(key, spelling)
            if taken != spelling:
                changed[spelling] = taken
        self._changed[kind] |= changed
        return ids.map(lambda i: changed.get(i, i), na_action="ignore") if changed else ids

    def take_all(self, table: pd.DataFrame) -> pd.DataFrame:
        """`take` the columns of a table that are named as their kinds."""
        return table.assign(
            **{kind: self.take(kind, table[kind]) for kind in KINDS if kind in table}
        )

    def faults(self) -> list[str]:
        """A fault for each kind with ids that are one id but for their spelling."""
        return [f for kind, columns in self._met.items() for f in fault_of(kind, columns)]

    def notes(self) -> list[str]:
        """Say which spellings `normalised` took as one."""
        return [
            f"{len(changed)} {kind}s are other spellings and taken as one (data.index.ids="
            f"normalised): {first_five(f'{a!r} as {b!r}' for a, b in changed.items())}"
            for kind, changed in self._changed.items()
            if changed
        ]


def fault_of(kind: str, columns: list[pd.Series]) -> list[str]:
    """A fault where ids of some columns are one id but for their spelling, with the pairs."""
    alike = spelled_alike(columns)
    if not alike:
        return []
    return [
        f"{len(alike)} {kind}s are spelled in several ways (upper and lower case, blanks, width, "
        f"leading zeros): {first_five(' and '.join(map(repr, a)) for a in alike)}; "
        "data.index.ids=normalised takes them as one each, data.index.ids=exact keeps them apart"
    ]


def spelled_alike(columns: list[pd.Series]) -> list[list[str]]:
    """The groups of ids that only their spelling tells apart, sorted."""
    if _of_one_form(columns):
        return []
    unique = _unique(columns)
    keys = pd.Series(keys_of(unique))
    twice = np.flatnonzero(keys.duplicated(keep=False))
    groups: dict[str, list[str]] = defaultdict(list)
    for key, spelling in zip(keys.iloc[twice], unique.take(twice).to_pylist(), strict=True):
        groups[key].append(spelling)
    return sorted(map(sorted, groups.values()))


def key_of(text: str) -> str:
    """Reduce an id to what all its spellings share."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")  # of no width at all
    plain = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", plain)  # `1 23` is not `12 3`
    plain = re.sub(r"\s+", " ", plain)
    plain = re.sub(r"^(\d+)\.0+$", r"\1", plain)
    return re.sub(r"(?<![\d.,])0+(?=\d)", "", plain)  # but `1.05` is not `1.5`


def keys_of(unique: Any) -> list[str]:
    """Return `key_of` each id of an Arrow array; plain letters and digits all at once."""
    plain = pc.match_substring_regex(unique, PLAIN)
    lower = pc.ascii_lower(unique.filter(plain))
    bare = pc.replace_substring_regex(lower, r"(^|[^0-9])0+([0-9])", r"\1\2")
    keys = np.empty(len(unique), dtype=object)
    is_plain = plain.to_numpy(zero_copy_only=False)
    keys[is_plain] = bare.to_numpy(zero_copy_only=False)
    keys[~is_plain] = [key_of(text) for text in unique.filter(pc.invert(plain)).to_pylist()]
    return keys.tolist()


def _arrow(ids: pd.Series) -> Any:
    """The known ids as one Arrow array."""
    array = pa.array(ids, pa.string(), from_pandas=True)
    chunks = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return chunks.drop_null()


def _unique(columns: list[pd.Series]) -> Any:
    return pa.concat_arrays([pc.unique(_arrow(ids)) for ids in columns]).unique()


def _of_one_form(columns: list[pd.Series]) -> bool:
    """Return whether all ids are of one length and differ in digits of the same places only.

    Such ids are equal in lower case and without zeros only where they are equal.
    """
    first: NDArray[np.uint8] | None = None
    for array in map(_arrow, columns):
        if not len(array):
            continue
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
        width = int(ends[1] - ends[0])
        if (np.diff(ends) != width).any() or not width:
            return False
        text = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(len(array), width)
        first = text[0] if first is None else first
        if len(first) != width:
            return False
        digit = (first >= ord("0")) & (first <= ord("9"))
        numbers = text[:, digit]
        if (text[:, ~digit] != first[~digit]).any() or ((numbers - ord("0")) > 9).any():
            return False
    return True
