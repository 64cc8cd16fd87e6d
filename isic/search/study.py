"""A study: founded or joined by name; what all its trials share is kept in it, and compared."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import yaml
from optuna.study import StudyDirection

from isic.checksums import sealed_yaml
from isic.errors import CheckpointError, ConfigError, DataError, IsicError
from isic.files import write_text
from isic.flat_config import flatten
from isic.identity import Defaults, differing_flat, identity
from isic.outputs import output_folder
from isic.search.alive import Stamp
from isic.search.forks import Jobs, reason, wait_for
from isic.search.options import SearchOptions
from isic.search.space import Parameter
from isic.search.storage import Store

log = logging.getLogger(__name__)

EXPERIMENT = "experiment"  # user attributes of the study
ARCHIVE = "archive"  # a hash; it is there once some worker's data were ready


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
    store: Store,
    search: SearchOptions,
    experiment: Mapping[str, Any],
    pruner: Any,
    defaults: Defaults | None = None,
    *,
    announce: bool = True,
) -> optuna.Study:
    """Join the study of this name, or found it.

    defaults: See `isic.identity.differing`.
    announce: Whether the log says where it is, and whether it is new.

    Raises:
        ConfigError: The study of this name holds another experiment; names what differs.
    """
    with store.lock():
        _forget_unbegun(store, search, experiment)
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
    if announce:
        log.info("study   %s in %s, %s", search.name, store.shown, _joined(search.name in names))
    _compare(stored, experiment, search, store, defaults)
    return study


def _forget_unbegun(store: Store, search: SearchOptions, experiment: Mapping[str, Any]) -> None:
    """Delete another experiment of this name that was given up before its data were ready."""
    if search.name not in optuna.get_all_study_names(store.storage):
        return
    study = optuna.load_study(study_name=search.name, storage=store.storage)
    stored = study.user_attrs.get(EXPERIMENT)
    begun = ARCHIVE in study.user_attrs or study.get_trials(deepcopy=False)
    if stored and not begun and differing_flat(dict(stored), dict(experiment)):
        optuna.delete_study(study_name=search.name, storage=store.storage)


def _joined(existed: bool) -> str:
    return "joined" if existed else "new"


def _compare(
    stored: Mapping[str, Any] | None,
    wanted: Mapping[str, Any],
    search: SearchOptions,
    store: Store,
    defaults: Defaults | None,
) -> None:
    if stored is None:
        raise ConfigError(
            f"{store.shown}: the study {search.name} was not made by sweep.py; give another name="
        )
    changed = differing_flat(dict(stored), dict(wanted), defaults=defaults)
    by_task = "loss.exclusive._target_"  # a key of loss=auto alone
    if changed and "loss.activation" in stored and by_task in wanted and by_task not in stored:
        raise ConfigError(
            f"the study {search.name} in {store.shown} began before loss=auto, with what was the "
            "default then: give loss=bce to go on with it, or another name=..."
        )
    if changed:
        raise ConfigError(
            f"the study {search.name} in {store.shown} is of another experiment: "
            f"{'; '.join(changed)}. Give another name=..., or delete that study."
        )


def make_ready(
    study: optuna.Study, base: Mapping[str, Any], search: SearchOptions, jobs: Jobs
) -> None:
    """Make what trials read, in a process of its own; every worker's must be that of the first.

    Raises:
        ConfigError: Another archive, split or run than the study was begun on, on this machine.
        DataError, CheckpointError, IsicError: As a trial would, with its message.
    """
    for key, value in _prepared(base, search, jobs).items():
        stored = study.user_attrs.get(key)
        if stored is None:
            study.set_user_attr(key, value)
        elif stored != value:
            raise ConfigError(
                f"the study {study.study_name} was begun on another {key.removesuffix('_hash')}: "
                f"{stored}, here {value}. All workers need the same data and folds."
            )


def _prepared(base: Mapping[str, Any], search: SearchOptions, jobs: Jobs) -> dict[str, Any]:
    """Hashes of what trials read here: workers may have other caches, and start at once."""
    folder, worker = search.folder / "prepared", str(Stamp.of_this_process()).replace("/", "-")
    output_folder(search.folder)
    folder.mkdir(parents=True, exist_ok=True)
    file, log_file, answer = (folder / f"{worker}.{s}" for s in ("yaml", "log", "json"))
    begun = log_file.stat().st_size if log_file.exists() else 0
    config = {**base, "folds": list(search.folds), "prepared": str(answer)}
    # the table of runs finds a study by it
    text = sealed_yaml(yaml.safe_dump(config, sort_keys=False))
    write_text(search.folder / "prepared.yaml", text)
    log.info("data    making sure that what trials read is there: %s", log_file)
    if code := wait_for(jobs, jobs.start(f"prepare_{search.stage}", config, file, log_file)):
        kinds = {e.exit_code: e for e in (ConfigError, DataError, CheckpointError)}
        text = reason(code, log_file, begun).removeprefix(f"exit code {code}: ")
        raise kinds.get(code, IsicError)(text)
    content: dict[str, Any] = json.loads(answer.read_text())
    for made in (file, answer):
        made.unlink()
    return content
