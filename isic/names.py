"""The names that users give runs, stacks and studies: folders, and words in tables.

Checked before an archive is read, which may take minutes.
"""

import re
from collections.abc import Mapping
from typing import Any

from isic.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def given_name(config: Mapping[str, Any]) -> str | None:
    """Return the name that a config gives its run, None without one."""
    return checked_name(str(config["name"])) if config.get("name") else None


def checked_name(name: str) -> str:
    """Return a name that may be a folder's.

    Raises:
        ConfigError: It has other characters, which a shell or another file system would not take.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(refusal(name))
    return name


def refusal(name: str) -> str:
    """Say which names there are."""
    return (
        "name: expected letters a to z, digits, '.', '_' and '-', 100 at most and the first a "
        f"letter or digit, got {name!r}"
    )
