"""Hashes of the code behind an object: the user's own sources and the versions of libraries.

What is kept under a key must not outlive the code that made it, and `_target_` may name code of
anybody. Of a module of the user's own, the sources count that it reaches by its imports, and those
of its package; of an installed one its version; of this package nothing, its caches hash it
themselves (`folders_hash`). Of a callable, its defaults, closure, bound arguments and attributes
count as well.
Trap: a lambda in a notebook, a generator, an open file have no source or no state to compare. Their
hash is None: what they make is not kept.
"""

import enum
import hashlib
import json
import logging
import os
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from isic.module_sources import OWN, NoSource, is_users, sources_of, spec_of

log = logging.getLogger(__name__)

CODE = "user_code"  # in a stored config: hash of each `_target_` of the user's own


def code_hash(value: Any) -> str | None:
    """Return sixteen hex digits of what a callable or component rests on, None where unknown."""
    try:
        described = _described(value, set())
    except (NoSource, RecursionError):
        return None
    return _hash(json.dumps(described, sort_keys=True))


def target_hash(name: str) -> str | None:
    """Return the hash of the sources behind a `_target_`, which is not imported.

    None for what is not the user's own: this package, installed libraries, a name that is nowhere.
    """
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:n])
        if parts[0] == OWN or (spec := spec_of(module)) is None:
            continue
        return _hash(json.dumps(sources_of(module))) if is_users(spec.origin) else None
    return None


def targets_code(config: Any) -> dict[str, str]:
    """Return the hash of each `_target_` of a plain config that is the user's own code."""
    code: dict[str, str] = {}
    if isinstance(config, Mapping):
        name = config.get("_target_")
        if isinstance(name, str) and (found := target_hash(name)):
            code[name] = found
    values = list(config.values()) if isinstance(config, Mapping) else config
    for value in values if isinstance(values, list) else ():
        code |= targets_code(value)
    return dict(sorted(code.items()))


def edited_since(stored: Mapping[str, Any]) -> list[str]:
    """Return the targets of a stored config whose source is another now than in its `CODE`.

    Configs of earlier versions name no code; targets that cannot be found are reported elsewhere.
    """
    then = stored.get(CODE)
    if not isinstance(then, Mapping):  # another program's, or somebody's edit
        return []
    return [name for name, code in then.items() if target_hash(str(name)) not in (code, None)]


def warn_edited(what: Path, stored: Mapping[str, Any]) -> None:
    """Log which code of the user's own is not as a checkpoint or a stack was made with it."""
    for name in edited_since(stored):
        log.warning("%s: the code of %s is not what it was when this was made", what, name)


@lru_cache(maxsize=4)
def folders_hash(*folders: str) -> str:
    """Return a hash of the sources of some of this package's folders: `index`, `images`."""
    digest = hashlib.blake2b(digest_size=8)
    for folder in folders:
        for file in sorted((Path(__file__).parent / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _described(value: Any, around: set[int]) -> Any:
    """Plain JSON of what `value` is. Raises NoSource.

    around: Ids of the values that this one is a part of: some hold themselves.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | complex | bytes | os.PathLike | enum.Enum):
        return [type(value).__name__, repr(value)]
    if id(value) in around:
        return "itself"
    inside = around | {id(value)}

    def each(values: Iterable[Any]) -> list[Any]:
        return [_described(v, inside) for v in values]

    if isinstance(value, Sequence):
        return [type(value).__name__, *each(value)]
    if isinstance(value, re.Pattern):
        return ["pattern", *each((value.pattern, value.flags))]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(json.dumps(v) for v in each(value))]
    if isinstance(value, Mapping):
        return ["mapping", each(value), each(value.values())]
    if isinstance(value, partial):
        return ["partial", *each((value.func, value.args, value.keywords))]
    if isinstance(value, types.ModuleType):
        return ["module", sources_of(value.__name__)]
    if isinstance(value, type):
        return ["class", *(_named(base) for base in value.__mro__)]
    if isinstance(value, types.MethodType):
        return ["method", value.__name__, *each((value.__self__, value.__func__))]
    if isinstance(value, types.FunctionType):
        return ["function", *_function(value), *each(_held(value))]
    if isinstance(value, types.BuiltinFunctionType):
        return ["builtin", _named(value)]
    if hasattr(value, "__wrapped__"):  # lru_cache
        return ["wrapped", *each((type(value).__name__, value.__wrapped__))]
    return ["object", *each((type(value), *_state(value)))]


def _named(value: Any) -> list[Any]:
    """A class or builtin by its name and its module's sources."""
    if "<locals>" in value.__qualname__:
        raise NoSource(value)  # its methods may hold values of the function around it
    return [value.__qualname__, sources_of(value.__module__ or "builtins")]


def _function(function: types.FunctionType) -> list[Any]:
    """Name and sources of a function; a decorator's wrapper bears the name of what it wraps."""
    code = function.__code__
    if not os.path.isfile(code.co_filename):
        raise NoSource(function)
    file = code.co_filename
    source = _hash(Path(file).read_text(errors="replace")) if is_users(file) else ""
    return [function.__qualname__, _bytecode(code), source, sources_of(function.__module__)]


def _bytecode(code: types.CodeType) -> list[Any]:
    """Bytecode and constants, which tell two lambdas of one line apart."""
    constants = [_bytecode(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return [code.co_firstlineno, code.co_code.hex(), list(code.co_names), constants]


def _held(function: types.FunctionType) -> list[Any]:
    """The values that a function carries."""
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError as error:  # a cell that is not filled yet
        raise NoSource(function) from error
    return [function.__defaults__, function.__kwdefaults__, *cells]


def _state(value: Any) -> list[Any]:
    """The attributes of an object; arrays by their bytes."""
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        if value.dtype.hasobject:
            return [value.tolist()]
        return [str(value.dtype), list(getattr(value, "shape", ())), value.tobytes()]
    if is_dataclass(value):
        return [{f.name: getattr(value, f.name, None) for f in fields(value)}]
    if not hasattr(value, "__dict__"):
        raise NoSource(value)
    return [vars(value)]
