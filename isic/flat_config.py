"""Nested configs as flat ones, `optim.lr` for `{"optim": {"lr": ...}}`, and back."""

from collections.abc import Mapping
from typing import Any

Flat = dict[str, Any]


def flatten(config: Mapping[str, Any], prefix: str = "") -> Flat:
    """Dotted keys of a nested config: `{"optim": {"lr": 1}}` -> `{"optim.lr": 1}`."""
    flat: Flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Flat) -> dict[str, Any]:
    """The inverse of `flatten`; what lies below a key that has a value itself is left out."""
    config: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, leaf = key.split(".")
        node: Any = config
        for group in groups:
            node = node.setdefault(group, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[leaf] = value
    return config


def lacks(flat: Flat, key: str) -> bool:
    """Return whether a config lacks a key; a group that is null says that all in it is off."""
    parts = key.split(".")
    return not any(".".join(parts[: i + 1]) in flat for i in range(len(parts)))
