"""Files that another command or another machine wrote: read as plain data, their shape checked.

A *shape* says what a value must be: a type (`float` takes whole numbers too), a tuple of
alternatives, a list of one shape, `{"key": shape, "key?": shape}` (`?`: may be absent; others are
allowed), `{str: shape}` for any keys, a compiled pattern, a range, or a set of choices.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isic.checksums import Damaged, read_json, read_yaml
from isic.errors import DataError, IsicError
from isic.plain import Misshapen, check_plain

PATH = (str, type(None))
ARCHIVE = {"root": str, "index": {"_target_": str, "roots?": (type(None), {str: PATH})}}
"""The `data` of a run, as far as its archive is found by it."""
PLACES = {"cwd?": PATH}
"""The `paths` of a run: where its command was typed."""

WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    Mapping: "a mapping of keys",
}


def check_shape(value: Any, shape: Any, key: str = "") -> None:
    """Refuse a value that is not of `shape`; see the module.

    Raises:
        Misshapen: Names the first key that is absent or holds something else.
    """
    if isinstance(shape, tuple):
        _check_alternatives(value, shape, key)
    elif isinstance(shape, list) and isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_shape(item, shape[0], f"{key}.{i}" if key else str(i))
    elif isinstance(shape, dict) and isinstance(value, Mapping):
        _check_keys(value, shape, key)
    elif not _is_of(value, shape):
        raise Misshapen(f"{key or 'it'}: expected {_in_words(shape)}, got {_shown(value)}")


def _check_alternatives(value: Any, shapes: tuple[Any, ...], key: str) -> None:
    """Refuse a value that is of none of the shapes, with the reason of the nearest one."""
    faults = []
    for shape in shapes:
        try:
            check_shape(value, shape, key)
            return
        except Misshapen as fault:
            faults.append(fault)
    deepest = max(faults, key=lambda fault: str(fault).partition(":")[0].count("."))
    if str(deepest).partition(":")[0].count(".") > key.count("."):  # it says which key inside
        raise deepest
    raise Misshapen(
        f"{key or 'it'}: expected {' or '.join(map(_in_words, shapes))}, got {_shown(value)}"
    )


def _check_keys(value: Mapping[Any, Any], shape: dict[Any, Any], key: str) -> None:
    for name, inner in shape.items():
        if isinstance(name, type):
            for own, item in value.items():
                if not _is_of(own, name):
                    raise Misshapen(
                        f"{key or 'it'}: expected keys of {_in_words(name)}, got {own!r}"
                    )
                check_shape(item, inner, f"{key}.{own}" if key else str(own))
        elif (plain := name.removesuffix("?")) in value:
            check_shape(value[plain], inner, f"{key}.{plain}" if key else plain)
        elif plain == name:
            raise Misshapen(f"{key}.{name} is absent" if key else f"{name} is absent")


def _is_of(value: Any, shape: Any) -> bool:
    """Return whether a value is of a shape without parts."""
    if isinstance(shape, re.Pattern):
        return isinstance(value, str) and shape.fullmatch(value) is not None
    if isinstance(shape, range | set | frozenset):
        return isinstance(value, str | int) and not isinstance(value, bool) and value in shape
    if shape is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if shape is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(shape, type) and isinstance(value, shape)


def _in_words(shape: Any) -> str:
    if isinstance(shape, re.Pattern):
        return f"text like {shape.pattern}"
    if isinstance(shape, range):
        return f"{shape.start} to {shape.stop - 1}"
    if isinstance(shape, set | frozenset):
        return " or ".join(sorted(map(str, shape)))
    if isinstance(shape, list):
        return "a list"
    return WORDS.get(Mapping if isinstance(shape, dict) else shape, str(shape))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_stored(
    path: Path, shape: Any, *, mend: str, error: type[IsicError] = DataError
) -> dict[str, Any]:
    """Read a YAML or JSON file of plain data that another command wrote.

    Args:
        path: The file; `.json` is JSON, everything else YAML without tags that make objects.
        shape: Of its content, as `check_shape` takes it.
        mend: What the user can do about a file that is not as it should be.
        error: Class of the exception.

    Raises:
        Damaged: The file is not as it was written, or no YAML.
        IsicError: Of the class `error`: no such file, or not of the shape. Names the file, the key
            and `mend`.
    """
    try:
        read = read_json(path) if path.suffix == ".json" else read_yaml(path)
        check_plain(read)
        check_shape(read, shape)
    except Damaged:
        raise
    except (OSError, ValueError, RecursionError) as fault:
        said = fault.strerror if isinstance(fault, OSError) else str(fault)
        reason = " ".join(str(said).split()) or type(fault).__name__
        raise error(f"{path} cannot be used: {reason}. {mend}") from None
    plain: dict[str, Any] = read
    return plain


__all__ = ["ARCHIVE", "PATH", "PLACES", "Misshapen", "check_plain", "check_shape", "read_stored"]
