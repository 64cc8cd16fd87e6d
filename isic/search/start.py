"""`sweep.py`: check what is asked, make the data ready once, and try until every slot is taken."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from isic.config.training import SweepConfig, TrainConfig
from isic.errors import IsicError
from isic.runs import identity
from isic.search.compose import Composer, check_space
from isic.search.fingerprint import fingerprint
from isic.search.loop import Sweep, work
from isic.search.options import search_options
from isic.search.results import best_trials, summary, write_results
from isic.search.space import read_space
from isic.search.team import work_together
from isic.signatures import check_signatures

log = logging.getLogger(__name__)


def sweep(cfg: DictConfig) -> str:
    """Join a study, or found it, and try settings until it has `n_trials`; the best one's line.

    The same command again, on any machine that sees the storage, takes part or prints the result.

    Raises:
        ConfigError: What cannot be tried, stored or joined; before any trial.
        IsicError: The first trials all failed, or no trial is complete.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    search = search_options(config, name=_name(config))
    space = read_space(config["space"])
    check_signatures({"pruner": config["pruner"]})  # what trains is bound where torch is
    composer = Composer(search.stage, _overrides_of_stage(search.stage))
    check_space(space, composer)
    base = composer.config({})
    experiment = fingerprint(search, base, space, config)
    this = Sweep(search, space, composer, experiment, config["pruner"])
    if search.n_workers > 1:
        devices = config.get("trainer", {}).get("devices")
        work_together(this, devices if isinstance(devices, int) and devices > 0 else 1)
    else:
        work(this)
    return _finish(this)


def _finish(this: Sweep) -> str:
    """Table and pictures; the line of the best trial."""
    with this.joined() as (_, study):
        line = summary(study, this.search)
        write_results(study, this.search)
        if not best_trials(study, 1):
            raise IsicError(f"{line}; why: {this.search.folder / 'trials.csv'}")
    log.info(line)
    log.info("study   %s: trials.csv, history.html and others", this.search.folder)
    return line


def _overrides_of_stage(stage: str) -> list[str]:
    """The command line without the keys that are the sweep's own."""
    own = ({f.name for f in fields(SweepConfig)} - {f.name for f in fields(TrainConfig)}) | {
        "name",
        "hydra",
    }
    own |= {"fold"} if stage == "train" else set()
    given = HydraConfig.get().overrides.task
    return [o for o in given if o.lstrip("+~").partition("=")[0].split(".")[0] not in own]


def _name(config: Mapping[str, Any]) -> str:
    """The given name, or `<data>-<model>-<space>-<hash6>`."""
    if config["name"]:
        return str(config["name"])
    choices = HydraConfig.get().runtime.choices
    neutral = ("n_trials", "n_workers", "storage", "heartbeat", "keep_weights", "give_up_after")
    what = {k: v for k, v in identity(config).items() if k not in neutral}
    text = json.dumps([what, config["fold"]], sort_keys=True, default=str)
    words = [choices[k] for k in ("data", "model", "space") if choices.get(k)]
    return "-".join([*words, hashlib.sha256(text.encode()).hexdigest()[:6]])
