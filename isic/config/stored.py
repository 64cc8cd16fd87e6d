"""A config that a file stores, as data: checked against `isic.config.targets`, then made.

Whoever opens what another command or another machine wrote (a checkpoint, a run, a stack) makes
its objects here and nowhere else.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isic.config.shapes import Misshapen, check_plain
from isic.config.targets import PARTIAL, TARGET, Kind, kind_at, made, make
from isic.errors import CheckpointError, IsicError, first_five

log = logging.getLogger(__name__)

WORD = re.compile(r"[\w +-]*")  # no path and no address has only these
TRUST = (
    "What a file stores is data and its code is not run. If you made the file, or trust who did, "
    "trust=true lets it import and run any code of this machine that it names, with your rights "
    "to files, network and programs"
)


@dataclass(frozen=True)
class Stored:
    """A config that a file stores, and who answers for the code that it names.

    Attributes:
        config: Plain, as the file holds it.
        source: The file, for messages.
        trust: Whether the user answers for whatever it names.
        named: Targets that this command's own config names (`targets_of`).
    """

    config: Mapping[str, Any]
    source: str
    trust: bool = False
    named: frozenset[str] = frozenset()

    def check(self, *, imports: bool = True) -> None:
        """Refuse code, paths and addresses where `SLOTS` has none of the kind, at every depth.

        Args:
            imports: Look at the objects behind the names too; else `make` does, where it is asked.

        Raises:
            CheckpointError: Names the keys.
        """
        faults = self._refuse(self.config, (), imports=imports)
        for fault in faults:
            log.warning("%s: %s; it runs, as trust=true says", self.source, fault)

    def make(self, key: str, node: Any = None, *, given: Mapping[str, Any] | None = None) -> Any:
        """The objects of the node at a dotted key, checked.

        Args:
            key: As `data.index`.
            node: In place of the config's own node at this key.
            given: Further arguments.

        Raises:
            CheckpointError: See `check`; or arguments that the target does not take.
        """
        path = tuple(key.split("."))
        node = self._at(path) if node is None else node
        self._refuse(node, path, imports=True)
        try:
            return make(node, **(given or {})) if TARGET in node else made(node)
        except IsicError:
            raise
        except Exception as error:  # whatever a constructor makes of values that it cannot take
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(f"{self.source}: {key} cannot be made: {reason}") from error

    def _at(self, path: tuple[str, ...]) -> Any:
        node: Any = self.config
        for depth, part in enumerate(path, 1):
            node = node.get(part) if isinstance(node, Mapping) else None
            if not isinstance(node, Mapping):
                key = ".".join(path[:depth])
                raise CheckpointError(
                    f"{self.source}: {key}: expected keys and values, got {node!r}"
                )
        return node

    def _refuse(self, value: Any, path: tuple[str, ...], *, imports: bool) -> list[str]:
        """Raise for what no file may say; with `trust`, return it as messages."""
        try:
            check_plain(value)
        except Misshapen as error:
            raise CheckpointError(f"{self.source}: {'.'.join(path)}: {error}") from None
        faults = [f"{'.'.join(k)}: {why}" for k, why in self._faults(value, path, None, imports)]
        if faults and not self.trust:
            raise CheckpointError(f"{self.source}: {first_five(faults)}. {TRUST}")
        return faults

    def _faults(
        self, value: Any, path: tuple[str, ...], kind: Kind | None, imports: bool
    ) -> Iterator[tuple[tuple[str, ...], str]]:
        """Key and reason of all that is no data. `kind`: of the node that `value` is given to."""
        if isinstance(value, Mapping):
            if TARGET in value:
                kind = kind_at(path) if path else None
                name = str(value[TARGET])
                if reason := self._refusal(name, kind, imports):
                    yield path, reason
                elif kind and name.startswith(kind.later) and value.get(PARTIAL) is not True:
                    yield (*path, PARTIAL), "expected true"
                if name in self.named:
                    kind = None
            for key, item in value.items():
                inner = (*path, str(key))
                if key == "_args_" or (kind and key in kind.never and item is not None):
                    yield inner, "no such argument is taken from a file"
                elif key != TARGET:
                    yield from self._faults(item, inner, kind, imports)
        elif isinstance(value, list | tuple):
            for i, item in enumerate(value):
                yield from self._faults(item, (*path, str(i)), kind, imports)
        elif isinstance(value, str) and (reason := _odd_text(value, path, kind)):
            yield path, reason

    def _refusal(self, name: str, kind: Kind | None, imports: bool) -> str:
        if name in self.named:
            return ""
        if kind is None:
            return f"expected a value and no code, got {name}"
        return kind.refusal(name, imports=imports)


def _odd_text(text: str, path: tuple[str, ...], kind: Kind | None) -> str:
    """Why a text is no plain value: something to be filled in, an address, a path."""
    if "${" in text:
        return f"expected a value, got {text[:80]!r}, which would have to be filled in"
    if "://" in text and path[0] != "logger":
        return f"expected no address, got {text[:80]!r}"
    if kind and kind.words and not WORD.fullmatch(text):
        return f"expected a word, got {text[:80]!r}"
    return ""
