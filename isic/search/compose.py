"""From drawn values to the config of a trial: the command line's overrides and the trial's own.

Groups are composed by Hydra, once each combination; single keys are set in what was composed. A key
that the config of some trial would not have is found before any trial.
"""

import difflib
import itertools
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from isic.config.paths import changed_paths
from isic.errors import ConfigError
from isic.search.space import Parameter


class Composer:
    """Composes the configs of a study's trials.

    root: Name of the yaml that trials run on, such as `train`.
    overrides: The command line's, those of the sweep's own keys left out.
    """

    def __init__(self, root: str, overrides: Sequence[str]) -> None:
        self.root, self.overrides = root, list(overrides)
        self._composed: dict[tuple[tuple[str, Any], ...], DictConfig] = {}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Config group -> its choices, of those at the top level."""
        loader = GlobalHydra.instance().config_loader()
        names = loader.list_groups("")
        return {name: loader.get_group_options(name, ObjectType.CONFIG) for name in names}

    def config(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The plain config with these values; groups first, single keys into what they bring."""
        cfg = OmegaConf.merge(self._composition(chosen))  # a copy
        for key, value in chosen.items():
            if key not in self.groups:
                OmegaConf.update(cfg, key, value, merge=False)
        plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
        for key, value in changed_paths(plain, partial(OmegaConf.select, cfg)).items():
            OmegaConf.update(cfg, key, value, merge=False)
            plain = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
        if "paths" in plain:
            plain["paths"]["cwd"] = os.getcwd()  # what relative paths of a stored config begin at
        return plain

    def keys(self, chosen: Mapping[str, Any]) -> set[str]:
        """Every dotted key that holds a value, not a node, beside these choices of groups."""
        cfg = OmegaConf.to_container(self._composition(chosen), resolve=False)
        return set(_leaves(cfg))

    def _composition(self, chosen: Mapping[str, Any]) -> DictConfig:
        groups = tuple(sorted((k, v) for k, v in chosen.items() if k in self.groups))
        if groups not in self._composed:
            own = [f"~{k}" if v is None else f"{k}={v}" for k, v in groups]
            self._composed[groups] = compose(self.root, overrides=[*self.overrides, *own])
        return self._composed[groups]


def check_space(space: Sequence[Parameter], composer: Composer) -> None:
    """Every parameter is a group, or a key of the config wherever it is drawn.

    Raises:
        ConfigError: Names the parameter and the nearest keys, or the override in its way.
    """
    by_name = {p.name: p for p in space}
    for parameter in space:
        _check_not_given(parameter.name, composer)
        if parameter.name in composer.groups:
            _check_choices(parameter, composer.groups[parameter.name])
            for value in parameter.choices:
                composer.keys({parameter.name: value})  # Hydra says which choice does not fit
    for parameter in space:
        if parameter.name not in composer.groups:
            for chosen in _surroundings(parameter, by_name, composer):
                _check_key(parameter.name, chosen, composer)


def _check_not_given(name: str, composer: Composer) -> None:
    for override in composer.overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        inside = name.startswith(f"{key}.") and key not in composer.groups
        around = key.startswith(f"{name}.") and name not in composer.groups
        if key == name or inside or around:
            raise ConfigError(
                f"{name} is tried by the space, and {override!r} on the command line fixes it: "
                "leave one of them out"
            )


def _check_choices(parameter: Parameter, options: Sequence[str]) -> None:
    for value in parameter.choices or ("a number",):
        if value is not None and value not in options:
            near = difflib.get_close_matches(str(value), options, n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(
                f"space: {parameter.name}={value}: no such choice; there are: "
                f"{', '.join(sorted(options))}.{hint}"
            )


def _surroundings(
    parameter: Parameter, by_name: Mapping[str, Parameter], composer: Composer
) -> list[dict[str, Any]]:
    """The choices of groups beside which a parameter may be drawn and that may change its key."""
    head = parameter.name.partition(".")[0]
    relevant = {k: v for k, v in parameter.when.items() if k in composer.groups}
    if head in by_name and head in composer.groups and head not in relevant:
        relevant[head] = by_name[head].choices
    return [
        dict(zip(relevant, values, strict=True)) for values in itertools.product(*relevant.values())
    ]


def _check_key(name: str, chosen: Mapping[str, Any], composer: Composer) -> None:
    keys = composer.keys(chosen)
    if name in keys:
        return
    beside = " with " + ", ".join(f"{k}={v}" for k, v in chosen.items()) if chosen else ""
    known = sorted(keys | set(composer.groups))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    leaf = {k.rpartition(".")[2]: k for k in known}
    near = near or [leaf[m] for m in difflib.get_close_matches(name.rpartition(".")[2], leaf, n=3)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    say = " Say `when` it exists." if chosen else ""
    raise ConfigError(
        f"space: {name}: no such key in conf/{composer.root}.yaml{beside}.{say}{hint}"
    )


def _leaves(node: Any, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            keys += _leaves(value, f"{prefix}{key}.")
        else:
            keys.append(f"{prefix}{key}")
    return keys
