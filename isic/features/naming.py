"""Names of features that every booster and every CSV takes, each of one thing only.

Unit: letters, digits and `_`. LightGBM refuses JSON's own characters, XGBoost brackets, and of two
columns of one name Python's dictionaries silently keep the last.
Trap: `MEL+` and `MEL-`, or two classes in another script, are one name once the odd characters are
gone. The last of them keeps the short name, as the stacks of earlier releases have it, and the
others get a hash of the text they came from, which no order of folds or seeds changes.
"""

import hashlib
import re
from collections.abc import Sequence


def plain_name(text: str) -> str:
    """Letters and digits, everything else one `_`: `Torso Back - Upper` is `Torso_Back_Upper`."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text)


def ascii_name(text: str) -> str:
    """A column's name as part of a feature's: what is letters, digits and `_` stays as it is."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", text)


def unique_names(names: Sequence[str], origins: Sequence[str]) -> list[str]:
    """Make names unique: of equal ones the last stays, the others get a hash of their origin.

    names: Letters, digits and `_`; an empty one gets a hash as well.
    origins: The text behind each name; equal names of equal origin cannot be told apart.
    """
    last = {name: i for i, name in enumerate(names)}
    taken, unique = set(names), list(names)
    for i, (name, origin) in enumerate(zip(names, origins, strict=True)):
        if name and last[name] == i:
            continue
        size = 3
        while (longer := f"{name}_{_digest(origin, size)}".lstrip("_")) in taken:
            size += 1
        taken.add(longer)
        unique[i] = longer
    return unique


def _digest(text: str, size: int) -> str:
    # a folder's name on Linux may hold bytes that are no UTF-8
    content = text.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, digest_size=min(size, 64)).hexdigest()
