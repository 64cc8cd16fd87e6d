"""Every run in one table, best score first; the trials of a sweep count as one line."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from isic.assemble import assemble_run
from isic.checksums import check_sum
from isic.config.paths import located_data
from isic.config.shapes import ARCHIVE, PLACES, Misshapen, check_shape, read_stored
from isic.config.stored import Stored
from isic.errors import (
    UNREADABLE,
    CheckpointError,
    ConfigError,
    DataError,
    IsicError,
    first_five,
    one_line,
)
from isic.identity import read_config
from isic.predictions import read_score
from isic.predictions.scorecard import TOOK, metric_text
from isic.prepare import open_index
from isic.streams import show

log = logging.getLogger(__name__)

MEND = "Delete the folder, or give the command that made it again"
CONFIG = {"n_folds": range(1, 10_000), "seed?": int, "n_seeds?": int}
STUDY = {"metrics": {"monitor": str, "mode": {"min", "max"}}}
TRAINED = CONFIG | {
    "data": ARCHIVE,
    "metrics": {"functions": {str: {"_target_": str}}},
    "paths": PLACES | {"cache": str},
}


def runs(cfg: DictConfig) -> None:
    """Print every run, best score first, then a line for each sweep.

    A run whose folds are all done is put together first.

    Raises:
        CheckpointError: A run to put together names code that nobody answers for; said last.
    """
    if cfg.get("clean") is not None:  # show and delete are another stage, which needs torch
        raise ConfigError(f"clean: expected show or delete, got {cfg.clean!r}")
    root, trust = Path(cfg.paths.runs), bool(cfg.get("trust"))
    rows, refused = [], list[str]()
    for folder in sorted(root.glob("*")):
        try:
            row = _row_or_reason(folder, trust=trust)
        except CheckpointError as error:
            refused.append(str(error))
            row = _unread(folder, error)
        rows += [row] if row else []
    studies = study_lines(root)
    if not rows and not studies and not refused:
        log.info("no runs under %s", root.resolve())
    if rows:
        rows.sort(key=lambda row: (-row["sort"], row["run"]))
        _print(rows)
    for line in studies:
        show(line)
    if refused:
        raise CheckpointError(f"{len(refused)} runs were not put together: {first_five(refused)}")


def study_lines(root: Path) -> list[str]:
    """A line for each sweep: its best value, how many trials; these stand in its folder."""
    lines = []
    for file in sorted(root.glob("*/prepared.yaml")):
        try:
            lines.append(_study_line(file))
        except UNREADABLE as error:
            lines.append(f"study {file.parent.name}: cannot be read: {one_line(error)}")
    return lines


def _study_line(file: Path) -> str:
    """The line of the sweep whose `prepared.yaml` this is."""
    name, table = file.parent.name, file.parent / "trials.csv"
    if not table.exists():
        return f"study {name}: no worker has ended; its trials are under {file.parent}"
    metrics = read_stored(file, STUDY, mend=MEND)["metrics"]
    check_sum(table)
    trials = pd.read_csv(table)
    done = trials["value"][trials["state"] == "COMPLETE"].astype(float)
    best = done.max() if metrics["mode"] == "max" else done.min()
    value = f"{metrics['monitor']} {best:.6g}, best of" if len(done) else "no value yet:"
    return f"study {name}: {value} {len(done)} complete, {len(trials)} trials: {table}"


def _row_or_reason(folder: Path, *, trust: bool) -> dict[str, Any] | None:
    """One line of the table of runs; of one that cannot be read, why. None of another folder.

    Raises:
        CheckpointError: It names code that nobody answers for.
    """
    try:
        return _row(folder, trust=trust) if _configs(folder) else None
    except CheckpointError:
        raise
    except UNREADABLE as error:
        return _unread(folder, error)


def _unread(folder: Path, error: BaseException) -> dict[str, Any]:
    """The line of a run that cannot be read."""
    unread: dict[str, Any] = {"run": folder.name, "sort": float("-inf")}
    return unread | {"score": f"cannot be read: {one_line(error)}"}


def _row(folder: Path, *, trust: bool) -> dict[str, Any]:
    """One line of the table of runs."""
    folds = _configs(folder)
    config = _first_config(folds)
    try:
        check_shape(config, CONFIG)
    except Misshapen as fault:
        raise DataError(f"{folds[0]} is no config of a run: {fault}") from None
    score = _score(folder, config, trust=trust)
    done = len([p for p in folds if (p.parent / "score.json").exists()])
    stacked = folds[0].parent == folder  # all folds of a stack are fitted at once
    row: dict[str, Any] = {
        "run": folder.name,
        "score": "unfinished",
        "sort": float("-inf"),
        "minutes": "",
        "GB": "",
        "folds": f"{done * config['n_folds'] if stacked else done}/{config['n_folds']}",
        "seeds": f"{config['seed']}+{config['n_seeds']}" if stacked else config.get("seed"),
    }
    if score is None:
        return row
    name, value = next(iter(score["metrics"].items()), ("", None))
    if value and value["value"] is not None:
        row["sort"] = value["value"]
        one = "" if "folds" in score else ", one fold"
        short = {k: v for k, v in value.items() if k not in ("undefined", "classes")}
        row["score"] = f"{metric_text(name, short, label=name)}{one}"  # a column, not a paragraph
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
    return [own] if "stacker" in read_config(own) else []


def _first_config(files: Sequence[Path]) -> dict[str, Any]:
    """The config of a run, of the first fold whose `config.yaml` is whole; the others are named."""
    for file in files[:-1]:
        try:
            return read_config(file)
        except UNREADABLE as error:
            log.warning("%s", one_line(error))
    return read_config(files[-1])


def _score(folder: Path, config: Mapping[str, Any], *, trust: bool) -> dict[str, Any] | None:
    """The run's score: as it stands, put together now, or of its one finished fold.

    Raises:
        CheckpointError: Its config names code, and nobody answers for it.
    """
    if (folder / "score.json").exists():
        return read_score(folder / "score.json", also=TOOK)
    singles = sorted(folder.glob("fold*/score.json"))
    n_folds = config["n_folds"]
    if len([p for p in singles if p.parent.name != "foldall"]) >= n_folds:
        stored = Stored(config, f"config.yaml of {folder}", trust)
        try:
            check_shape(config, TRAINED)
            stored.check(imports=False)  # the rest of it becomes nothing here
            metrics = stored.make("metrics.functions")
            data, cache = located_data(config), Path(config["paths"]["cache"])
            reader = stored.make("data.index", data["index"])
            index = open_index(reader, data["root"], cache_root=cache)
            return assemble_run(folder, index, metrics, n_folds=n_folds)
        except CheckpointError:
            raise
        except (IsicError, Misshapen) as error:
            log.warning("%s could not be put together: %s", folder, error)
    return read_score(singles[0], also=TOOK) if singles else None


def _print(rows: list[dict[str, Any]]) -> None:
    columns = ("run", "score", "folds", "seeds", "minutes", "GB")
    whole = [row for row in rows if "folds" in row]  # a reason is as long as it is
    width = {c: max([len(c), *(len(str(r[c])) for r in whole)]) for c in columns}
    width["run"] = max(len(row["run"]) for row in rows)
    lines = ["  ".join(f"{c:<{width[c]}}" for c in columns)]
    lines += ["  ".join(f"{r.get(c, '')!s:<{width[c]}}" for c in columns) for r in rows]
    show("\n".join(line.rstrip() for line in lines))
