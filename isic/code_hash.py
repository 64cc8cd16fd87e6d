"""What an object's code rests on, as a hash: the user's own sources and the versions of libraries.

What is kept under a key must not outlive the code that made it, and `_target_` may name code of
anybody. Of a module of the user's own, the sources count that it reaches by its imports, and those
of its package; of an installed one its version; of this package nothing, its caches hash it
themselves (`folders_hash`). Of a callable, its defaults, closure, bound arguments and attributes
count as well.
Trap: a lambda in a notebook, a generator, an open file have no source or no state to compare. Their
hash is None: what they make is not kept.
"""

import ast
import enum
import hashlib
import json
import os
import re
import site
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

OWN = "isic"
MOST_FILES = 500  # of a package that are looked at beyond what is imported


class _Unknown(Exception):
    """Something whose source or state cannot be had."""


def code_hash(value: Any) -> str | None:
    """Return sixteen hex digits of what a callable or component rests on, None where unknown."""
    try:
        described = _described(value, set())
    except (_Unknown, RecursionError):
        return None
    return _hash(json.dumps(described, sort_keys=True))


def target_hash(name: str) -> str | None:
    """Return the hash of the sources behind a `_target_`, which is not imported.

    None for what is not the user's own: this package, installed libraries, a name that is nowhere.
    """
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:n])
        if parts[0] == OWN or (spec := _spec(module)) is None:
            continue
        return _hash(json.dumps(_of_module(module))) if _is_users(spec.origin) else None
    return None


@lru_cache(maxsize=4)
def folders_hash(*folders: str) -> str:
    """Return a hash of the sources of some of this package's folders: `index`, `images`."""
    digest = hashlib.blake2b(digest_size=8)
    for folder in folders:
        for file in sorted((Path(__file__).parent / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=16)
def versions(*packages: str) -> tuple[str, ...]:
    """Return `name version` of installed packages, for a key of what their numbers make."""
    from importlib import metadata

    return tuple(f"{name} {metadata.version(name)}" for name in packages)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _described(value: Any, around: set[int]) -> Any:
    """Plain JSON of what `value` is. Raises _Unknown.

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
        return ["module", _of_module(value.__name__)]
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
        raise _Unknown(value)  # its methods may hold values of the function around it
    return [value.__qualname__, _of_module(value.__module__ or "builtins")]


def _function(function: types.FunctionType) -> list[Any]:
    """Where a function stands, and its file: a decorator's wrapper is named as what it wraps."""
    code = function.__code__
    if not os.path.isfile(code.co_filename):
        raise _Unknown(function)
    file = code.co_filename
    source = _hash(Path(file).read_text(errors="replace")) if _is_users(file) else ""
    return [function.__qualname__, _bytecode(code), source, _of_module(function.__module__)]


def _bytecode(code: types.CodeType) -> list[Any]:
    """What tells two lambdas of one line apart."""
    constants = [_bytecode(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return [code.co_firstlineno, code.co_code.hex(), list(code.co_names), constants]


def _held(function: types.FunctionType) -> list[Any]:
    """The values that a function carries."""
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError as error:  # a cell that is not filled yet
        raise _Unknown(function) from error
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
        raise _Unknown(value)
    return [vars(value)]


def _of_module(name: str) -> list[Any]:
    """The user's sources that a module reaches by import, and the versions of libraries."""
    top = name.partition(".")[0]
    if top == OWN or top in sys.stdlib_module_names and top != "__main__":
        return [top]
    spec = _spec(name)
    if spec is None or not spec.origin:
        raise _Unknown(name)
    if not _is_users(spec.origin):
        return [_version(top)]
    return sorted(_reached(name, spec.origin))


def _reached(name: str, origin: str) -> set[str]:
    """`hash` of each source file and `name version` of each library, as lines."""
    lines: set[str] = set()
    waiting, seen = [(name, origin)], {name}
    for file in _package_files(name):
        lines.add(_hash(file.read_text(errors="replace")))
    while waiting:
        module, path = waiting.pop()
        source = Path(path).read_bytes()
        lines.add(hashlib.blake2b(source, digest_size=8).hexdigest())
        for imported in _imports(module, path, source):
            if imported in seen:
                continue
            seen.add(imported)
            spec = _spec(imported)
            if spec is None or not spec.origin or not os.path.isfile(spec.origin):
                continue
            if _is_users(spec.origin):
                waiting.append((imported, spec.origin))
            else:
                lines.add(_version(imported.partition(".")[0]))
    return lines


def _package_files(name: str) -> list[Path]:
    """All sources of the package that a module is of: some are imported by name, at run time."""
    spec = _spec(name.partition(".")[0])
    if spec is None or not spec.submodule_search_locations or not spec.origin:
        return []
    return sorted(Path(spec.origin).parent.rglob("*.py"))[:MOST_FILES]


def _imports(module: str, path: str, source: bytes) -> Iterator[str]:
    """Names of modules that a source file may import, wherever in it, and its own parents."""
    parents = module.split(".")[:-1]
    yield from (".".join(parents[: n + 1]) for n in range(len(parents)))
    if not path.endswith(".py"):
        return
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    package = module if os.path.basename(path) == "__init__.py" else ".".join(parents)
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level:
                if not package:
                    continue
                base = resolve_name(base, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            steps = name.split(".")
            if steps[0] != OWN and steps[0] not in sys.stdlib_module_names:
                yield from (".".join(steps[: n + 1]) for n in range(len(steps)))


@lru_cache(maxsize=1024)
def _spec(name: str) -> ModuleSpec | None:
    """Where a module lies, without importing it or its parents."""
    module = sys.modules.get(name)
    if name == "__main__":
        file = getattr(module, "__file__", None)
        return ModuleSpec(name, None, origin=os.path.abspath(file)) if file else None
    if module is not None and getattr(module, "__file__", None):
        spec = ModuleSpec(name, None, origin=os.path.abspath(str(module.__file__)))
        spec.submodule_search_locations = list(getattr(module, "__path__", ())) or None
        return spec
    parent, _, _ = name.rpartition(".")
    if not parent:
        return PathFinder.find_spec(name)
    above = _spec(parent)
    if above is None or not above.submodule_search_locations:
        return None
    return PathFinder.find_spec(name, list(above.submodule_search_locations))


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    """Folders of libraries and of Python's own modules."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(name) for name in names]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({os.path.realpath(folder) + os.sep for folder in folders if folder})


def _is_users(origin: str | None) -> bool:
    """Whether a file is the user's own: neither of this package nor installed."""
    if not origin or not os.path.isfile(origin):
        return False
    own = os.path.dirname(os.path.realpath(__file__)) + os.sep
    return not os.path.realpath(origin).startswith((*_installed(), own))


@lru_cache(maxsize=256)
def _version(top: str) -> str:
    """`name version` of an installed library, by the name that is imported."""
    from importlib import metadata

    try:
        return f"{top} {metadata.version(top)}"
    except metadata.PackageNotFoundError:
        found = _distributions().get(top, [])
        return ", ".join([top, *(f"{name} {metadata.version(name)}" for name in sorted({*found}))])


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    from importlib import metadata

    return metadata.packages_distributions()
