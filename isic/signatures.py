"""Every `_target_` of a config is bound to its signature before any data is touched."""

import difflib
import inspect
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from isic.config.targets import SUPPLIED, locate
from isic.errors import ConfigError

PLAIN = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
}


def check_signatures(config: Any, path: str = "") -> None:
    """Walk a plain config; refuse a key that its target does not take, and text for a number.

    Raises:
        ConfigError: Names the key, the target and the nearest argument, or the kind of value.
    """
    if isinstance(config, Mapping):
        if "_target_" in config:
            _check_node(config, path)
        for key, value in config.items():
            check_signatures(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, list):
        for i, value in enumerate(config):
            check_signatures(value, f"{path}.{i}")


def _check_node(node: Mapping[str, Any], path: str) -> None:
    target = locate(node["_target_"])
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # some classes of C extensions have no signature
        return
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for key in node:
        if key not in SUPPLIED and key not in parameters:
            near = difflib.get_close_matches(str(key), list(parameters), n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"{path}.{key}: {node['_target_']} takes no such argument.{hint}")
        if key not in SUPPLIED and str(node["_target_"]).startswith("isic."):
            _check_kind(f"{path}.{key}", node[key], parameters[key].annotation)


def _check_kind(key: str, value: Any, annotation: Any) -> None:
    """Refuse a value of another kind where the annotation names plain kinds alone."""
    united = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if united else (annotation,)
    if isinstance(value, Mapping) or not all(isinstance(k, type) and k in PLAIN for k in kinds):
        return
    taken = set(kinds)
    taken |= {int} if float in kinds else set()
    taken |= {int, float} if str in kinds else set()  # trainer.precision=32
    if type(value) not in taken:
        raise ConfigError(f"{key}: expected {' or '.join(PLAIN[k] for k in kinds)}, got {value!r}")
