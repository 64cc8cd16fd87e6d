"""`python -m isic stack`: image runs and metadata -> stacked predictions, score, kept models.

A stack is a run: `runs/<name>/` with config, predictions, submission and score, in the schema of
the image runs, so that stacks stack. The same command again prints its score.
"""

import logging
import os
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from isic.checksums import sealed_yaml
from isic.code_hash import CODE, targets_code, warn_edited
from isic.composition import Composition
from isic.config.targets import make
from isic.dashboard import is_on
from isic.errors import ConfigError, first_five
from isic.features.family import Family
from isic.features.image_scores import reads_scores
from isic.files import PREFIX, overwrites, waiting_lock, write_text
from isic.identity import (
    Defaults,
    differing,
    is_garbled,
    read_config,
    settled_name,
)
from isic.index.schema import Index, archive_hash
from isic.metrics import Metric
from isic.names import given_name
from isic.outputs import OUTPUT_MARK, output_folder
from isic.predictions import read_score, score_line
from isic.prepare import open_index
from isic.signatures import check_signatures
from isic.split.making import make_split
from isic.split.options import Split
from isic.stack import Plan, Resample
from isic.stack.combine import chosen_method, refuse_ranks
from isic.stack.scores import ImageRuns, read_runs
from isic.stack.stackers import rank_stackers, require_package
from isic.stages.stack_fit import fit_and_write
from isic.stages.stack_rows import Request
from isic.streams import show

log = logging.getLogger(__name__)

CHECKED = ("metrics", "features", "selection", "stacker", "split")
# What of conf/data a stack depends on; the folds keep images together that show the same, and how
# large an image is read decides which are compared.
DATA = ("index", "root", "extra", "fraction", "max_megapixels")
# beside no config: what a sweep writes before a trial
OWN = (OUTPUT_MARK, ".lock", "stack.yaml", "stack.log")


def stack(cfg: DictConfig) -> str:
    """Fit, score and write one stack; returns its score line."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    data, today = HydraConfig.get().runtime.choices["data"], Composition.of_job()
    return fit_stack(config, data=data, today=today)


def fit_stack(
    config: dict[str, Any], *, data: str | None = None, today: Composition | None = None
) -> str:
    """The stack of a plain config; `data` begins the name, None: the config has one already.

    today: What the config was composed of.
    """
    if data is not None:  # a trial's name was made by its study
        given_name(config)
    defaults = today.defaults if today else None
    # before keys are left out below, which would count as deleted
    composition = today.record(config) if today else None
    config["data"] = {key: config["data"][key] for key in DATA}
    places = _places(config)
    index, split, runs, content = read_inputs(config)
    config |= {"runs": list(runs.folders), "refit": config["fold"] == "all"}
    if data is not None:
        config["name"] = settled_name(
            config, content, data=data, model="stack", text=str(content), runs=places["runs"],
            defaults=defaults, at="config.yaml",
        )  # fmt: skip
    if composition:
        config["composition"] = composition
    config[CODE] = targets_code(config)
    folder = places["runs"] / config["name"]
    request, entry = _request(config, index, split, runs, folder, places["cache"]), config | content
    with waiting_lock(output_folder(folder) / ".lock", f"fitting {folder}") as waited:
        anew = overwrites(config["overwrite"], waited=waited, folder=folder)
        clears = refuse_other(folder, entry, overwrite=anew, defaults=defaults)
        if (folder / "score.json").exists() and not clears:
            when = time.localtime((folder / "score.json").stat().st_mtime)
            date = time.strftime("%Y-%m-%d %H:%M", when)
            log.info("finished on %s; overwrite=true fits it again", date)
            warn_edited(folder, read_config(folder / "config.yaml"))
        else:
            fit_and_write(request, begin=partial(claim, folder, entry, clears=clears))
        line = f"{config['name']}: {score_line(read_score(folder / 'score.json'))}"
    show(line)
    return line


def stack_hashes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Hashes of archive, folds and runs of a stack. Raises as `fit_stack` before its first fit."""
    return read_inputs(config)[-1]


def _places(config: Mapping[str, Any]) -> dict[str, Path]:
    """Where runs and cached files lie."""
    return {key: Path(config["paths"][key]).resolve() for key in ("runs", "cache")}


def refuse_other(
    folder: Path, entry: Mapping[str, Any], *, overwrite: bool, defaults: Defaults | None = None
) -> bool:
    """Refuse a name that holds another experiment; whether what stands there has to go.

    A stack that was given up before its score holds nothing that is worth keeping.

    Raises:
        ConfigError: An image run, a study or other things that are no stack, or a finished stack
            of another config; names what differs.
    """
    file = folder / "config.yaml"
    if list(folder.glob("fold*")):
        raise ConfigError(f"{folder} holds an image run; give the stack another name=...")
    if overwrite and is_garbled(file):
        return True
    stored = read_config(file) if file.exists() else None
    names = sorted(p.name for p in folder.glob("*") if not p.name.startswith(PREFIX))
    if foreign := [] if stored else [name for name in names if name not in OWN]:
        raise ConfigError(
            f"{folder} holds {first_five(foreign)} and no stack; give the stack another name=..."
        )
    changed = differing(stored, entry, defaults=defaults) if stored else []
    if changed and (folder / "score.json").exists() and not overwrite:
        raise ConfigError(
            f"{folder} holds another stack: {'; '.join(changed)}. Give another name=..., or throw "
            "that one away: overwrite=true."
        )
    return overwrite or bool(changed)


def claim(folder: Path, entry: Mapping[str, Any], *, clears: bool) -> None:
    """Write `config.yaml`, once nothing is left to be refused; `clears` what stood there before."""
    file = folder / "config.yaml"
    if clears:
        (folder / "score.json").unlink(missing_ok=True)  # a killed overwrite is not finished
        for child in folder.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            elif child.name not in (*OWN, file.name):  # with a config, a killed one is a stack
                child.unlink()
    write_text(file, sealed_yaml(yaml.safe_dump(dict(entry), sort_keys=False)))


def _check(config: Mapping[str, Any]) -> None:
    """Refuse, before data is read, what would only show later."""
    for name, node in (config["stacker"] or {}).items():
        require_package(name, node["_target_"])
    for key in CHECKED:
        check_signatures(config[key], key)
    if not config["stacker"]:
        raise ConfigError("stacker: expected one or several, as stacker=[lightgbm], got none")
    if not config["features"]:
        raise ConfigError("features: expected one family or more, as features=[image_scores]")
    if config["fold"] not in (None, "all"):
        raise ConfigError(
            f"fold: a stack is made of all folds at once; expected null or all, got "
            f"{config['fold']!r}"
        )
    if config["on_leak"] not in ("error", "warn"):
        raise ConfigError(f"on_leak: expected error or warn, got {config['on_leak']!r}")
    for key, least in (("n_seeds", 1), ("n_jobs", 1), ("early_stopping", 1), ("noise", 0)):
        if config[key] is not None and config[key] < least:
            raise ConfigError(f"{key}: expected {least} or more, got {config[key]}")
    _method(config)
    is_on(config["logger"]["wandb"])
    Resample(**config["resample"])


def _method(config: Mapping[str, Any]) -> str:
    """How models are combined."""
    functions = config["metrics"]["functions"].values()
    names = [f["_target_"].rpartition(".")[2] for f in functions]
    method = chosen_method(config["combine"], names)
    if ranking := rank_stackers(config["stacker"]):
        refuse_ranks(f"stacker={ranking[0]}", names, instead="stacker=logistic or lightgbm_small")
        others = sorted(set(config["stacker"]) - set(ranking))
        if others and method == "mean":
            raise ConfigError(
                f"stacker: {ranking[0]} gives ranks, {first_five(others)} probabilities, and their "
                "mean is neither; take combine=rank_mean"
            )
    return method


def read_inputs(config: Mapping[str, Any]) -> tuple[Index, Split, ImageRuns, dict[str, Any]]:
    """Archive, folds and image runs of a stack, and the hashes of them.

    Raises:
        ConfigError, DataError: As `fit_stack` does before its first fit.
    """
    _check(config)
    data, places = config["data"], _places(config)
    cache = places["cache"]
    index = open_index(
        make(data["index"]),
        data["root"],
        cache_root=cache,
        extra=data["extra"],
        max_megapixels=data.get("max_megapixels"),
    )
    split = make_split(
        index,
        instantiate(config["split"]),
        runs_root=places["runs"],
        cache_root=cache,
        fraction=data["fraction"],
    )
    runs = read_runs(
        config["runs"], index=index, split=split, runs_root=places["runs"],
        on_leak=config["on_leak"],
    )  # fmt: skip
    content = {
        "archive": archive_hash(index),
        "split_hash": split.hash,
        "n_folds": split.n_folds,
        "inputs": runs.hashes,
    }
    return index, split, runs, content


def _request(
    config: dict[str, Any],
    index: Index,
    split: Split,
    runs: ImageRuns,
    folder: Path,
    cache_root: Path,
) -> Request:
    """What is fitted, as objects."""
    nodes = usable_families(config["features"], with_runs=bool(runs.folders))
    metrics: dict[str, Metric] = instantiate(config["metrics"]["functions"])
    plan = Plan(
        seeds=tuple(range(config["seed"], config["seed"] + config["n_seeds"])),
        resample=Resample(**config["resample"]),
        noise=config["noise"],
        combine=_method(config),
        early_stopping=config["early_stopping"],
        n_jobs=config["n_jobs"] or len(os.sched_getaffinity(0)),
    )
    return Request(
        config=config,
        index=index,
        split=split,
        runs=runs,
        families=families_of(nodes),
        nodes=nodes,
        makers={name: instantiate(node) for name, node in config["stacker"].items()},
        selector=instantiate(config["selection"]) if config["selection"] else None,
        metrics=metrics,
        plan=plan,
        folder=folder,
        cache_root=cache_root,
    )


def families_of(nodes: Mapping[str, Any]) -> dict[str, Family]:
    """Feature families of plain config nodes."""
    return {key: instantiate(node, _convert_="all") for key, node in nodes.items()}


def usable_families(nodes: Mapping[str, Any], *, with_runs: bool) -> dict[str, Any]:
    """The families that there is something for: those of image scores need runs.

    Raises:
        ConfigError: None is left.
    """
    if with_runs:
        return dict(nodes)
    of_scores = [k for k, n in nodes.items() if reads_scores(n)]
    left = {k: n for k, n in nodes.items() if k not in of_scores}
    if not left:
        raise ConfigError(f"features: {', '.join(of_scores)} need image runs: give runs=[NAME]")
    if of_scores:
        log.info("no runs were given: without %s", ", ".join(of_scores))
    return left
