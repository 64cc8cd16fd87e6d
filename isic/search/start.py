"""`sweep.py`: check what is asked, make the data ready once, and try until every slot is taken."""

import hashlib
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from isic.composition import Composition
from isic.config.loss import is_open, options
from isic.config.training import SweepConfig, TrainConfig
from isic.errors import IsicError
from isic.identity import identity
from isic.search.compose import Composer, check_space
from isic.search.forks import Forks
from isic.search.loop import Sweep, work
from isic.search.options import check_password, search_options
from isic.search.results import best_trials, summary, write_results
from isic.search.slots import n_taken
from isic.search.space import read_space
from isic.search.study import fingerprint
from isic.signatures import check_signatures
from isic.streams import show
from isic.workers import Share, share

log = logging.getLogger(__name__)


def sweep(cfg: DictConfig) -> str:
    """Join a study, or found it, and try settings until it has `n_trials`; the best one's line.

    The same command again, on any machine that sees the storage, takes part or prints the result.

    Raises:
        ConfigError: What cannot be tried, stored or joined; before any trial.
        IsicError: The first trials all failed, or no trial is complete.
    """
    check_password(OmegaConf.to_container(cfg, resolve=False)["storage"])  # type: ignore
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    search = search_options(config, name=_name(config))
    space = read_space(config["space"])
    check_signatures({"pruner": config["pruner"]})  # what trains is bound where torch is
    composer = Composer(search.stage, _overrides_of_stage(search.stage))
    check_space(space, composer)
    base = composer.config({})
    experiment = fingerprint(search, base, space, config)
    today = Composition.of_job().defaults
    this = Sweep(search, space, composer, experiment, config["pruner"], today)
    if search.n_workers > 1:
        _work_together(this)
    else:
        work(this)
    return _finish(this)


def _finish(this: Sweep) -> str:
    """Table and pictures; the line of the best trial."""
    with this.joined(announce=False) as (_, study):
        line = summary(study, this.search)
        write_results(study, this.search)
        if not best_trials(study, 1):
            raise IsicError(f"{line}; why: {this.search.folder / 'trials.csv'}")
    show(line)
    log.info("study   %s: trials.csv, history.html and others", this.search.folder)
    return line


def _work_together(this: Sweep) -> None:
    """Run `n_workers` workers until the study has all trials; one that dies is not missed.

    Raises:
        IsicError: Every worker failed.
    """
    with this.joined(announce=True) as (_, study):
        if n_taken(study) < this.search.n_trials:
            forks = Forks(this.search.stage)
            try:
                this.make_ready(study, forks)
            finally:
                forks.close()
    n = this.search.n_workers
    context = multiprocessing.get_context("fork")  # nothing here holds a thread or a connection
    members = [context.Process(target=_member, args=(this, share(i, n))) for i in range(n)]
    try:
        for member in members:
            member.start()
        for member in members:
            member.join()
    finally:
        for member in members:
            if member.is_alive():
                member.terminate()
        for member in members:
            member.join()
    codes = [m.exitcode for m in members]
    if all(codes):
        raise IsicError(f"all {n} workers failed (exit codes {codes}); see above")
    if any(codes):
        log.warning("%d of %d workers failed; the others did their part", sum(map(bool, codes)), n)


def _member(this: Sweep, own: Share) -> None:
    """One worker process, on its own cores and GPUs."""
    own.bind()
    os.environ.update(own.environment)
    try:
        work(this, ready=True)
    except IsicError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


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
    if "loss" in config and is_open(config["loss"]):
        # the default before there was a choice: the same command keeps its name
        config = {**config, "loss": options(config["loss"])["bce"]}
    what = {k: v for k, v in identity(config).items() if k not in neutral}
    text = json.dumps([what, config["fold"]], sort_keys=True, default=str)
    words = [choices[k] for k in ("data", "model", "space") if choices.get(k)]
    return "-".join([*words, hashlib.sha256(text.encode()).hexdigest()[:6]])
