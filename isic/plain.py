"""Plain data: numbers, text, lists and mappings, no larger than any config.

Trap: YAML anchors and pickled references can nest a value in itself, or a thousandfold; what is
deeper or larger than any config is refused before anything walks through it.
"""

from collections.abc import Mapping
from typing import Any

DEEPEST = 32  # levels; a run's config has 7
LARGEST = 1_000_000  # values, of all levels; the vocabularies of an archive are the most


class Misshapen(ValueError):
    """A value is not of its shape; the message names key, expectation and value."""


def check_plain(value: Any) -> None:
    """Refuse what is not numbers, text, lists and mappings, or nested beyond any config.

    Raises:
        Misshapen: Names what was found.
    """
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > LARGEST:
            raise Misshapen(
                f"it nests deeper than {DEEPEST} levels, or holds over {LARGEST} values"
            )
        if isinstance(item, Mapping):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple):
            waiting += [(part, depth + 1) for part in item]
        elif not isinstance(item, str | int | float | type(None)):
            raise Misshapen(f"it holds a value of {type(item).__name__}, which is no plain data")
