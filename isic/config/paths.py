"""Paths as people type them: the keys that hold one, and the one place where text becomes a path.

A path keeps the spelling that was typed, relative to the folder of the command, links unresolved:
nothing that a run stores depends on where links lead. Changed are only `~`, which a shell leaves
alone behind `KEY=`, and a name whose accents are written in the other Unicode form on disk.
How a path on a command line gets past Hydra's grammar is the matter of `isic.config.words`.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isic.errors import ConfigError

# One path each; `*` stands for one part of a key.
SINGLE = (
    *("data.root", "data.index.table", "data.index.roots.*", "split.file"),
    *("images", "output", "stack", "predictions", "storage"),
    *("model.pretrained", "model.backbone"),
    *("paths.*", "hydra.launcher.folder", "hydra.sweep.dir", "hydra.run.dir"),
)
# A path or a list of them.
SEVERAL = ("data.index.images", "data.extra", "ckpt", "runs", "distill.teacher")
VARIABLES = ("ISIC_DATA_ROOT", "ISIC_CACHE_ROOT", "ISIC_RUNS_ROOT")
# Values of these keys that are no path: `images=false` of check, `model.pretrained=true`.
PLAIN = ("", "null", "true", "false")
STORAGES = ("sqlite:///", "journal:")  # in front of the path of a study


def typed_path(text: str | Path) -> Path:
    """The path that a typed text means: `~` expanded, accents as they are on disk."""
    return Path(_as_on_disk(os.path.expanduser(text)))


def typed(value: Any) -> Any:
    """A config's value of a path key, each path in it as `typed_path` takes it.

    Words that are no path, and paths that need no change, come back as they are.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [typed(item) for item in value]
    if not isinstance(value, str) or value in PLAIN:
        return value
    scheme = next((s for s in STORAGES if value.startswith(s)), "")
    path = value.removeprefix(scheme)
    if "://" in path:
        return value
    # Not through Path: it would drop a trailing slash, and a run's config keeps what was typed.
    return scheme + _as_on_disk(os.path.expanduser(path))


def located_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `data` node of a stored config, its folders found from any working directory.

    A relative folder is looked for where the training's command was typed (`paths.cwd`), then from
    here: nothing depends on the former, which is gone where a run has moved.
    """
    data, typed_in = dict(config["data"]), (config.get("paths") or {}).get("cwd")
    data["root"] = _located(data["root"], typed_in)
    index = data.get("index")
    if isinstance(index, Mapping) and index.get("roots"):
        roots = {part: _located(root, typed_in) for part, root in index["roots"].items()}
        data["index"] = {**index, "roots": roots}
    return data


def _located(given: Any, typed_in: str | None) -> Any:
    if given is None or typed_in is None:
        return given
    there = os.path.join(typed_in, given)
    return there if os.path.exists(there) else given


def _as_on_disk(path: str) -> str:
    """The path in the Unicode form that its folders hold it in, where only that differs."""
    if path.isascii() or os.path.lexists(path):
        return path
    head, tail = os.path.split(path.rstrip("/"))
    folder = _as_on_disk(head) if head else ""
    try:
        names = os.listdir(folder or ".")
    except OSError:  # absent: whoever opens the path says so
        return path
    wanted = unicodedata.normalize("NFC", tail)
    alike = [name for name in names if unicodedata.normalize("NFC", name) == wanted]
    return os.path.join(folder, alike[0] if len(alike) == 1 and tail not in names else tail)


def refuse_undecodable(places: Mapping[str, Any]) -> None:
    """Refuse folders whose real names are no UTF-8, which tables and configs cannot hold.

    places: Key -> path; other values are passed over.

    Raises:
        ConfigError: Names key and path.
    """
    for key, place in places.items():
        real = os.path.realpath(place) if isinstance(place, str) and place not in PLAIN else ""
        if any("\ud800" <= character <= "\udfff" for character in real):
            raise ConfigError(
                f"{key}: expected a folder whose name and whose parents' names are UTF-8, got "
                f"{ascii(real)}; rename what is not"
            )


def is_path_key(key: str, patterns: Iterable[str] = (*SINGLE, *SEVERAL)) -> bool:
    """Return whether the value of a dotted key is a path."""
    parts = key.split(".")
    return any(
        len(wanted) == len(parts) and all(w in ("*", p) for w, p in zip(wanted, parts, strict=True))
        for wanted in (pattern.split(".") for pattern in patterns)
    )


def path_keys(config: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """The dotted keys of a nested config that hold paths."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if is_path_key(name):
            yield name
        elif isinstance(value, Mapping):
            yield from path_keys(value, f"{name}.")


def expand_variables(environment: Any = os.environ) -> None:
    """Expand `~` in the variables that name folders; an empty one counts as not set."""
    for name in VARIABLES:
        value = environment.get(name)
        if value is None:
            continue
        if not value.strip():
            del environment[name]
        else:
            environment[name] = os.path.expanduser(value)


def changed_paths(config: Mapping[str, Any], get: Callable[[str], Any]) -> dict[str, Any]:
    """Dotted key -> value, of the paths of a config that `typed` changes.

    get: The value at a dotted key.
    """
    values = {key: get(key) for key in path_keys(config)}
    return {key: new for key, old in values.items() if (new := typed(old)) != old}
