"""What a command says of a run that is finished: known from its files, without torch.

A grid that is typed again, a job that SLURM starts once more: most of their runs are finished, and
importing torch and Lightning would take longer than everything else. What is compared is what a
training compares: the config without neutral keys, then the content that it points at.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from isic.assemble import assemble_run, submit
from isic.code_hash import edited_since
from isic.composition import Composition
from isic.config.targets import make
from isic.dashboard.send import kept
from isic.engine.content import HASHES, content_text, run_content
from isic.engine.described import Described
from isic.engine.launch import is_launched
from isic.engine.metrics import build_metrics
from isic.engine.settle import settle, variants
from isic.errors import UNREADABLE, first_five
from isic.identity import changes, read_config, settled_name
from isic.index.schema import Index
from isic.predictions import read_predictions, read_score, score_line
from isic.predictions.scorecard import SELECTED
from isic.prepare import open_index
from isic.runs import RunFolder
from isic.split.making import make_split
from isic.split.options import Split
from isic.streams import show

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Archive:
    """Of a run's data, what its name and its last lines need."""

    index: Index
    split: Split
    metadata: list[str]
    auxiliary: list[str]


def finished_line(
    given: Mapping[str, Any], *, data: str, model: str, today: Composition
) -> str | None:
    """The score line of the run that a config names; None where it is not, or may not be, finished.

    data, model: As `run_name` takes them.
    today: What the config was composed of.

    Raises:
        ConfigError: The name is given, and holds a run of another archive or split.
    """
    config = dict(given)
    # a data module of somebody else may open its archive in another way
    ours = config["data"].get("index") and str(config["data"]["_target_"]).startswith("isic.data.")
    if config["overwrite"] or is_launched() or not ours:
        return None
    if not _same_is_there(config, f"{data}-{model}", today):
        return None
    archive = _opened(config)
    content = run_content(config, archive)
    stored = stored_configs(config, data=data, model=model)
    settle(config, content, archive.index.info, stored=stored, today=today)
    name = named(config, data=data, model=model, content=content, today=today)
    folder = RunFolder(_runs(config) / name / f"fold{config['fold']}")
    if not folder.finished:
        return None
    with folder.lock():
        folder.claim({**config, "name": name}, content, defaults=today.defaults)
        if not folder.finished:  # thrown away while this waited
            return None
        say_when(folder)
        line = last_lines(config, folder, archive)
    say_how_to_sync(folder)
    return line


def _runs(config: Mapping[str, Any]) -> Path:
    return Path(config["paths"]["runs"]).resolve()


def stored_configs(config: Mapping[str, Any], *, data: str, model: str) -> list[Path]:
    """The `config.yaml` of every fold of the runs that a command may mean by its name.

    data, model: As `run_name` takes them.
    """
    name = escape(str(config["name"])) if config["name"] else f"{escape(f'{data}-{model}')}-*"
    return sorted(_runs(config).glob(f"{name}/fold*/config.yaml"))


def named(
    config: Mapping[str, Any],
    *,
    data: str,
    model: str,
    content: Mapping[str, Any],
    today: Composition,
    trained: Callable[[Path], bool] = lambda fold: False,
) -> str:
    """The given name; else that of a run of the same experiment, or a new one.

    data, model: As `run_name` takes them. content: As `run_content` gives it.
    trained: Whether nothing is left for a fold's folder but to predict.
    """
    return settled_name(
        config, content, data=data, model=model, text=content_text(content), runs=_runs(config),
        defaults=today.defaults, at="fold*/config.yaml", trained=trained,
    )  # fmt: skip


def _same_is_there(config: Mapping[str, Any], prefix: str, today: Composition) -> bool:
    """Whether a run of this config is finished, of whatever archive; asked before data is read."""
    fold = config["fold"]
    if isinstance(fold, bool) or not (isinstance(fold, int) or fold == "all"):
        return False
    name = escape(str(config["name"])) if config["name"] else f"{escape(prefix)}-*"
    for score in _runs(config).glob(f"{name}/fold{fold}/score.json"):
        try:
            stored = read_config(RunFolder(score.parent).config_file)
            apart = {k: v for k, v in stored.items() if k not in HASHES}
            if any(not changes(apart, entry, today.defaults) for entry in variants(config)):
                return True
        except UNREADABLE:  # of another run; else the training says so
            continue
    return False


def _opened(config: Mapping[str, Any]) -> _Archive:
    data, cache = config["data"], Path(config["paths"]["cache"]).resolve()
    root, extra = Path(data["root"]), data.get("extra")
    index = open_index(
        make(data["index"]),
        root,
        cache_root=cache,
        extra=extra,
        max_megapixels=data.get("max_megapixels"),
    )
    split = make_split(
        index,
        instantiate(config["split"]),
        runs_root=_runs(config),
        cache_root=cache,
        fraction=data.get("fraction", 1.0),
    )
    auxiliary = (config.get("auxiliary") or {}).get("columns")
    return _Archive(index, split, list(data.get("metadata") or ()), list(auxiliary or ()))


def say_when(folder: RunFolder) -> None:
    """That the run is finished, since when, and how to have it anew."""
    then = time.localtime(folder.score_file.stat().st_mtime)
    log.info(
        "finished on %s; overwrite=true trains it again", time.strftime("%Y-%m-%d %H:%M", then)
    )
    if edited := edited_since(read_config(folder.config_file)):
        log.warning(
            "%s: edited since; the score is of the code as it was. overwrite=true trains it again",
            first_five(edited),
        )


def last_lines(config: Mapping[str, Any], folder: RunFolder, data: Described) -> str:
    """Show a finished fold's score, and that of all folds where all are done; returns both."""
    run, n_folds = folder.path.parent, data.split.n_folds
    score = read_score(folder.score_file, also=SELECTED)
    line = f"{folder.path.relative_to(run.parent)}: {result_line(score)}"
    show(line)
    if config["fold"] != "all":
        whole = assemble_run(run, data.index, build_metrics(config), n_folds=n_folds)
        if whole:
            of_all = f"{run}, {n_folds} folds: {score_line(whole)}"
            show(of_all)
            line = f"{line}\n{of_all}"
    elif (folder.path / "test.parquet").exists():
        predicted = read_predictions(folder.path / "test.parquet")
        submit(folder.path / "submission.csv", predicted, data.index)
        log.info("submission: %s", folder.path / "submission.csv")
    return line


def result_line(result: Mapping[str, Any]) -> str:
    """The score of one fold in one line."""
    if not result["metrics"]:
        return "trained on every row; nothing was held out to score"
    line = score_line(result)
    return f"{line}, epoch chosen on this fold" if result["selected_on_validation"] else line


def say_how_to_sync(folder: RunFolder) -> None:
    """The command that sends what W&B kept on this disk and no process sends already.

    Not while the run's lock is held: a run that is locked is being written.
    """
    if kept(folder.path) and os.environ.get("WANDB_MODE") != "online":
        log.info("W&B is offline; python -m isic sync sends its runs")
