"""Every run in one table, best score first; the trials of a sweep count as one line."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig

from isic.assemble import assemble_run
from isic.errors import ConfigError, IsicError
from isic.predictions import read_score
from isic.predictions.scorecard import metric_text
from isic.prepare import open_index
from isic.runs import read_config

log = logging.getLogger(__name__)


def runs(cfg: DictConfig) -> None:
    """Print every run, best score first, then a line for each sweep.

    A run whose folds are all done is put together first.
    """
    if cfg.get("clean") is not None:  # show and delete are another stage, which needs torch
        raise ConfigError(f"clean: expected show or delete, got {cfg.clean!r}")
    root = Path(cfg.paths.runs)
    rows = []
    for folder in sorted(p for p in root.glob("*") if _configs(p)):
        try:
            rows.append(_row(folder))
        except (IsicError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read and is left out: %r", folder, error)
    studies = study_lines(root)
    if not rows and not studies:
        log.info("no runs under %s", root.resolve())
        return
    if rows:
        rows.sort(key=lambda row: (-row["sort"], row["run"]))
        _print(rows)
    for line in studies:
        log.info(line)


def study_lines(root: Path) -> list[str]:
    """A line for each sweep: its best value, how many trials; these stand in its folder."""
    lines = []
    for file in sorted(root.glob("*/prepared.yaml")):
        name, table = file.parent.name, file.parent / "trials.csv"
        if not table.exists():
            lines.append(f"study {name}: no worker has ended; its trials are under {file.parent}")
            continue
        metrics = read_config(file)["metrics"]
        trials = pd.read_csv(table)
        done = trials["value"][trials["state"] == "COMPLETE"]
        best = done.max() if metrics["mode"] == "max" else done.min()
        value = f"{metrics['monitor']} {best:.6g}, best of" if len(done) else "no value yet:"
        lines.append(f"study {name}: {value} {len(done)} complete, {len(trials)} trials: {table}")
    return lines


def _row(folder: Path) -> dict[str, Any]:
    """One line of the table of runs."""
    folds = _configs(folder)
    config = read_config(folds[0])
    score = _score(folder, config)
    done = len([p for p in folds if (p.parent / "score.json").exists()])
    stacked = folds[0].parent == folder  # all folds of a stack are fitted at once
    row: dict[str, Any] = {
        "run": folder.name,
        "score": "unfinished",
        "sort": float("-inf"),
        "minutes": "",
        "GB": "",
        "folds": f"{done * config['n_folds'] if stacked else done}/{config['n_folds']}",
        "seeds": f"{config['seed']}+{config['n_seeds']}" if stacked else config["seed"],
    }
    if score is None:
        return row
    name, value = next(iter(score["metrics"].items()), ("", None))
    if value and value["value"] is not None:
        row["sort"] = value["value"]
        one = "" if "folds" in score else ", one fold"
        row["score"] = f"{metric_text(name, value, label=name)}{one}"
        if score.get("warnings"):
            row["score"] += f", {len(score['warnings'])} warning(s): score.json"
    else:
        row["score"] = "not scored"
    row["minutes"] = f"{score['seconds'] / 60:.1f}"
    row["GB"] = f"{score['peak_memory_mb'] / 1024:.1f}"
    return row


def _configs(folder: Path) -> list[Path]:
    """The `config.yaml` of each fold of a run, or the one of a stack; none for another folder."""
    folds = sorted(folder.glob("fold*/config.yaml"))
    own = folder / "config.yaml"
    if folds or not own.exists():
        return folds
    return [own] if "stacker" in (yaml.safe_load(own.read_text()) or {}) else []


def _score(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The run's score: as it stands, put together now, or of its one finished fold."""
    if (folder / "score.json").exists():
        return read_score(folder / "score.json")
    singles = sorted(folder.glob("fold*/score.json"))
    n_folds = config["n_folds"]
    if len([p for p in singles if p.parent.name != "foldall"]) >= n_folds:
        try:
            data, cache = config["data"], Path(config["paths"]["cache"])
            index = open_index(instantiate(data["index"]), data["root"], cache_root=cache)
            metrics = instantiate(config["metrics"]["functions"])
            return assemble_run(folder, index, metrics, n_folds=n_folds)
        except IsicError as error:
            log.warning("%s could not be put together: %s", folder, error)
    return read_score(singles[0]) if singles else None


def _print(rows: list[dict[str, Any]]) -> None:
    columns = ("run", "score", "folds", "seeds", "minutes", "GB")
    width = {c: max(len(c), *(len(str(r[c])) for r in rows)) for c in columns}
    lines = ["  ".join(f"{c:<{width[c]}}" for c in columns)]
    lines += ["  ".join(f"{r[c]!s:<{width[c]}}" for c in columns) for r in rows]
    for line in lines:
        log.info(line.rstrip())
