"""Composition of a config: choices of groups, further keys that were given, today's defaults.

A run keeps both in `config.yaml`, so that a later version can tell a key that was left at its
default from one that was chosen. Runs of versions that kept neither are taken to be composed of
what fits their keys best.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from isic.config import SCHEMAS
from isic.flat_config import Flat, flatten, lacks
from isic.identity import COMPOSITION, identity

log = logging.getLogger(__name__)

CONF = Path(__file__).resolve().parents[1] / "conf"
KEY_OF = {"folds": "split"}  # a group whose keys lie elsewhere, see conf/folds

Choices = dict[str, Any]


class Composition:
    """The choices that the config of a command was composed of.

    root: Name of the command's yaml, such as `train`.
    choices: Group -> its option, a list of options, or None for a group that is off.
    """

    def __init__(self, root: str, choices: Mapping[str, Any]) -> None:
        self.root, self.choices = root, dict(choices)
        self._composed: dict[str, Flat | None] = {}

    @classmethod
    def of_job(cls) -> "Composition":
        """Read the choices of the job that Hydra runs now."""
        job = HydraConfig.get()
        # an experiment is keys given to other groups; groups of groups follow from these
        choices = {
            group: option
            for group, option in job.runtime.choices.items()
            if group != "experiment" and not {"/", "@"} & set(group)
        }
        groups = set(GlobalHydra.instance().config_loader().list_groups(""))
        for override in job.overrides.task:  # Hydra keeps no choice where a group takes several
            group, _, options = override.partition("=")
            if group in groups and options.startswith("["):
                choices[group] = [o.strip() for o in options.strip("[]").split(",") if o.strip()]
        return cls(str(job.job.config_name), choices)

    @classmethod
    def kept(cls, config: Mapping[str, Any]) -> "Composition | None":
        """Read the choices that a config of `train` keeps; None where it keeps none."""
        kept = config.get(COMPOSITION)
        return cls("train", kept["choices"]) if kept else None

    def record(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `config.yaml` keeps: the choices, and the keys that are not at default.

        A key that was deleted (`~callbacks.ema_decay`) is one of them.
        """
        defaults, flat = self._defaults(self.choices) or {}, flatten(config)
        given = [k for k, v in identity(config).items() if defaults.get(k) != v]
        given += [k for k in defaults if lacks(flat, k)]
        return {"choices": self.choices, "given": given}

    def defaults(self, stored: Mapping[str, Any]) -> Flat | None:
        """Return today's flat defaults for what a stored config was composed of, if any."""
        composed = stored.get(COMPOSITION)
        if isinstance(composed, Mapping) and isinstance(composed.get("choices"), Mapping):
            return self._defaults(composed["choices"])
        choices = self._fitting(stored)
        now = self._defaults(choices)
        several = [g for g, option in choices.items() if isinstance(option, list)]
        return None if now is None else _of_same_nodes(now, stored, several)

    def _fitting(self, stored: Mapping[str, Any]) -> Choices:
        """The choices that a config without a record of them fits best."""
        choices: Choices = {}
        for group, option in self.choices.items():
            key = KEY_OF.get(group, group)
            if key not in stored:
                continue  # a later version's group: its default option
            node = stored[key]
            if node is None or isinstance(option, list) or not isinstance(node, Mapping):
                choices[group] = None if node is None else option
            else:
                choices[group] = self._best_option(group, option, node)
        return choices

    def _best_option(self, group: str, option: Any, node: Mapping[str, Any]) -> Any:
        """Return the option whose keys differ least from those of the node."""
        wanted = set(flatten(node))

        def misfit(candidate: Any) -> int:
            now = self._defaults({**self.choices, group: candidate}, kept_null=True)
            prefix = f"{KEY_OF.get(group, group)}."
            keys = {k.removeprefix(prefix) for k in now or () if k.startswith(prefix)}
            return len(keys ^ wanted) if now is not None else len(wanted) + 1

        if not (fault := misfit(option)):
            return option
        best = min(_options(group), key=misfit, default=option)
        return best if misfit(best) < fault else option

    def _defaults(self, choices: Mapping[str, Any], *, kept_null: bool = False) -> Flat | None:
        """The flat config of these choices and no other override; None where it cannot be made."""
        name = f"{sorted(choices.items())}{kept_null}"
        if name not in self._composed:
            self._composed[name] = self._compose(choices, kept_null)
        return self._composed[name]

    def _compose(self, choices: Mapping[str, Any], kept_null: bool) -> Flat | None:
        overrides = []
        for group, option in choices.items():
            if not _plain_choice(group, option):
                return None
            if option is not None:
                options = f"[{','.join(option)}]" if isinstance(option, list) else option
                overrides.append(f"{group}={options}")
        try:
            config = _plain(self.root, overrides)
        except (HydraException, OmegaConfBaseException) as error:
            log.debug("%s cannot be composed of %s: %s", self.root, choices, error)
            return None
        for group, option in choices.items():
            if option is None:
                config[KEY_OF.get(group, group)] = None
        return flatten(config) if kept_null else identity(config)


def _plain_choice(group: str, option: Any) -> bool:
    """Return whether a choice, which a stored config may state, is names alone.

    Hydra's grammar would take more: a file elsewhere, a search path, several overrides in one.
    """
    named = [group, *(option if isinstance(option, list) else [option] if option else [])]
    return all(isinstance(n, str) and re.fullmatch(r"\w[\w-]*(\.\w+)*", n) for n in named) and (
        "." not in group
    )


def _options(group: str) -> list[str]:
    """Every option of a group, those of the user's own folders too where Hydra knows of them."""
    if GlobalHydra.instance().is_initialized():
        loader = GlobalHydra.instance().config_loader()
        return list(loader.get_group_options(group, ObjectType.CONFIG))
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _plain(root: str, overrides: list[str]) -> dict[str, Any]:
    """Compose a root, in a job of Hydra's with its search path, elsewhere with conf/ alone."""
    for schema, node in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{schema}_schema", node=node)
    if GlobalHydra.instance().is_initialized():
        cfg = hydra.compose(config_name=root, overrides=overrides)
    else:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = hydra.compose(config_name=root, overrides=overrides)
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return plain


def _of_same_nodes(now: Flat, stored: Mapping[str, Any], groups: Sequence[str]) -> Flat:
    """Leave out, of groups that take several options, those that a stored config has not."""
    absent = [k for k in now if k.partition(".")[0] in groups]
    absent = [k for k in absent if k.split(".")[1] not in stored[k.partition(".")[0]]]
    return {k: v for k, v in now.items() if k not in absent}
