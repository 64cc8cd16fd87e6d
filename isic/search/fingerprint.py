"""What all trials of a study share, kept in the study: another experiment is refused by name."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection

from isic.errors import ConfigError
from isic.runs import flatten, identity
from isic.search.options import SearchOptions
from isic.search.space import Parameter
from isic.search.storage import Store

log = logging.getLogger(__name__)

EXPERIMENT = "experiment"  # user attribute of the study


def fingerprint(
    search: SearchOptions, base: Mapping[str, Any], space: Sequence[Parameter], config: Any
) -> dict[str, Any]:
    """Flat and plain: objective, folds, space, pruner, and the base config without what is tried.

    base: A config of a trial with no value drawn.
    config: That of the sweep, whose `space` and `pruner` are taken as written.
    """
    tried = {p.name for p in space}
    shared = {
        key: value
        for key, value in identity(base).items()
        if not any(key == name or key.startswith(f"{name}.") for name in tried)
    }
    return {
        "stage": search.stage,
        "objective": search.monitor,
        "direction": search.direction,
        "folds": list(search.folds),
        **flatten({"pruner": config["pruner"]}),
        **{f"space.{name}": spec for name, spec in config["space"].items()},
        **shared,
    }


def open_study(
    store: Store, search: SearchOptions, experiment: Mapping[str, Any], pruner: Any
) -> optuna.Study:
    """Join the study of this name, or found it.

    Raises:
        ConfigError: The study of this name holds another experiment; names what differs.
    """
    with store.lock():
        names = optuna.get_all_study_names(store.storage)
        study = optuna.create_study(
            study_name=search.name,
            storage=store.storage,
            direction=StudyDirection[search.direction.upper()],
            load_if_exists=True,
            pruner=pruner,
        )
        stored = study.user_attrs.get(EXPERIMENT)
        if stored is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(EXPERIMENT, dict(experiment))
            stored = experiment
    log.info("study   %s in %s, %s", search.name, store.shown, _joined(search.name in names))
    _compare(stored, experiment, search, store)
    return study


def _joined(existed: bool) -> str:
    return "joined" if existed else "new"


def _compare(
    stored: Mapping[str, Any] | None, wanted: Mapping[str, Any], search: SearchOptions, store: Store
) -> None:
    if stored is None:
        raise ConfigError(
            f"{store.shown}: the study {search.name} was not made by sweep.py; give another name="
        )
    changed = [
        f"{k}: {stored.get(k)} -> {wanted.get(k)}"
        for k in sorted({*stored, *wanted})
        if stored.get(k) != wanted.get(k)
    ]
    if changed:
        raise ConfigError(
            f"the study {search.name} in {store.shown} is of another experiment: "
            f"{'; '.join(changed)}. Give another name=..., or delete that study."
        )


def check_content(study: optuna.Study, content: Mapping[str, Any]) -> None:
    """Every worker's archive and folds are those of the first.

    Raises:
        ConfigError: Another archive or split on this machine.
    """
    for key, value in content.items():
        stored = study.user_attrs.get(key)
        if stored is None:
            study.set_user_attr(key, value)
        elif stored != value:
            raise ConfigError(
                f"the study {study.study_name} was begun on another {key.removesuffix('_hash')}: "
                f"{stored}, here {value}. All workers need the same data and folds."
            )
