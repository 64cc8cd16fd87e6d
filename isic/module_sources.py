"""The sources that a module reaches by its imports, without importing anything.

Of the user's own modules the source files, those of their package too; of installed libraries name
and version. This package is neither: its caches hash it themselves (`code_hash.folders_hash`).
Trap: what is imported by a name made at run time, from outside the package, is not seen.
"""

import ast
import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import resolve_name
from pathlib import Path

OWN = "isic"
MOST_FILES = 500  # of a package that are looked at beyond what is imported


class NoSource(Exception):
    """Something whose source or state cannot be had."""


@lru_cache(maxsize=16)
def versions(*packages: str) -> tuple[str, ...]:
    """Return `name version` of installed packages, for a key of what their numbers make."""
    from importlib import metadata

    return tuple(f"{name} {metadata.version(name)}" for name in packages)


def sources_of(name: str) -> list[str]:
    """The user's sources that a module reaches by import, and the versions of libraries."""
    top = name.partition(".")[0]
    if top == OWN or top in sys.stdlib_module_names and top != "__main__":
        return [top]
    spec = spec_of(name)
    if spec is None or not spec.origin:
        raise NoSource(name)
    if not is_users(spec.origin):
        return [_version(top)]
    return sorted(_reached(name, spec.origin))


def _reached(name: str, origin: str) -> set[str]:
    """`hash` of each source file and `name version` of each library, as lines."""
    lines: set[str] = set()
    waiting, seen = [(name, origin)], {name}
    for file in _package_files(name):
        lines.add(_digest(file.read_bytes()))
    while waiting:
        module, path = waiting.pop()
        source = Path(path).read_bytes()
        lines.add(_digest(source))
        for imported in _imports(module, path, source):
            if imported in seen:
                continue
            seen.add(imported)
            spec = spec_of(imported)
            if spec is None or not spec.origin or not os.path.isfile(spec.origin):
                continue
            if is_users(spec.origin):
                waiting.append((imported, spec.origin))
            else:
                lines.add(_version(imported.partition(".")[0]))
    return lines


def _package_files(name: str) -> list[Path]:
    """All sources of the package that a module is of: some are imported by name, at run time."""
    spec = spec_of(name.partition(".")[0])
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
def spec_of(name: str) -> ModuleSpec | None:
    """Find a module without importing it or its parents."""
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
    above = spec_of(parent)
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


def is_users(origin: str | None) -> bool:
    """Return whether a file is the user's own: neither of this package nor installed."""
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


def _digest(source: bytes) -> str:
    return hashlib.blake2b(source, digest_size=8).hexdigest()
