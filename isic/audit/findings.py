"""One thing that the check says: how bad it is, what it is of, what was found, what to do.

`right` needs nothing, `note` says how a table was read, `odd` wants a look, `wrong` makes the
command end with 3; the others let it end with 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RIGHT, NOTE, ODD, WRONG = STATES = ("right", "note", "odd", "wrong")


@dataclass(frozen=True)
class Finding:
    """A line of the report; `todo` is the next step, empty where none is needed."""

    state: str
    subject: str
    text: str
    todo: str = ""


@dataclass(frozen=True)
class Part:
    """What one part of the check found: findings for people, facts as plain JSON types."""

    findings: list[Finding] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
