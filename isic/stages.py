"""The table side, composed: the verbs of `python -m isic`. No torch is imported here or below."""

import logging
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from isic.acquire.download import API, Request, download_archive
from isic.acquire.download.http import Patience
from isic.acquire.synthetic import ARCHIVES
from isic.assemble import assemble_run
from isic.audit.check import check_archive
from isic.audit.report import TEXT
from isic.errors import ConfigError, DataError, IsicError
from isic.predictions import read_score
from isic.prepare import open_index
from isic.signatures import locate

log = logging.getLogger(__name__)


def synth(cfg: DictConfig) -> str:
    """Write a generated archive to `data.root`; raises ConfigError where none is like the data."""
    if OmegaConf.is_missing(cfg, "generator"):
        name = HydraConfig.get().runtime.choices["data"]
        raise ConfigError(f"data={name} cannot be generated; expected {', '.join(ARCHIVES)}")
    write = locate(cfg.generator["_target_"])
    options = {k: v for k, v in cfg.generator.items() if k != "_target_"}
    size = {} if cfg.image_size is None else {"size_range": cfg.image_size}
    root = write(
        Path(cfg.data.root).resolve(),
        n_images=cfg.n_images,
        n_test=cfg.n_test,
        seed=cfg.seed,
        images=cfg.images,
        **size,
        **options,
    )
    return str(root)


def download(cfg: DictConfig) -> str:
    """Fetch images of the ISIC Archive to `data.root`; the same command goes on with it."""
    given = cfg.collections
    collections = (given,) if isinstance(given, int) else tuple(given or ())
    request = Request(cfg.query or "", collections, cfg.limit)
    said = download_archive(
        Path(cfg.data.root).resolve(),
        request,
        api=cfg.api,
        n_workers=cfg.n_workers,
        patience=Patience(**cfg.retry),
        again=shlex.join(["python", "-m", "isic", "download", *_download_words(cfg)]),
    )
    log.info("%s; data=folder data.root=%s opens it", said, cfg.data.root)
    return said


def _download_words(cfg: DictConfig) -> list[str]:
    """What was given beside the defaults, to be given again."""
    words = {"query": cfg.query, "limit": cfg.limit, "api": None if cfg.api == API else cfg.api}
    words["collections"] = str(cfg.collections or "").replace(" ", "")
    given = {k: v for k, v in words.items() if v not in (None, "")}
    return [f"data.root={cfg.data.root}", *(f"{k}={v}" for k, v in given.items())]


def check(cfg: DictConfig) -> str:
    """Check an archive and write what was found; raises DataError where something is wrong."""
    cache, extra = Path(cfg.paths.cache), cfg.data.get("extra")
    start = time.monotonic()
    index = open_index(instantiate(cfg.data.index), cfg.data.root, cache_root=cache, extra=extra)
    opened = time.monotonic() - start
    report = check_archive(
        index,
        images=cfg.images,
        overlap=cfg.overlap,
        missing_images=cfg.data.missing_images,
        on_bad_image=cfg.data.on_bad_image,
        cache_root=cache,
    )
    report.seconds = {"index": opened, **report.seconds}
    for line in report.lines():
        log.info(line)
    name = f"{index.info.name}-{report.archive_hash}"
    folder = Path(cfg.output or Path(cfg.paths.runs) / "checks" / name)
    report.write(folder)
    log.info("written to %s", folder.resolve())
    if report.errors:
        named = [f"{f.text}; {f.todo}" if f.todo else f.text for f in report.errors]
        raise DataError("\n".join([*named, f"all that was found: {folder.resolve() / TEXT}"]))
    return "no errors"


def runs(cfg: DictConfig) -> None:
    """Print every run, best score first; a run whose folds are all done is put together first."""
    root = Path(cfg.paths.runs)
    rows = []
    for folder in sorted(p for p in root.glob("*") if list(p.glob("fold*/config.yaml"))):
        try:
            rows.append(_row(folder))
        except (IsicError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read and is left out: %r", folder, error)
    if not rows:
        log.info("no runs under %s", root.resolve())
        return
    rows.sort(key=lambda row: (-row["sort"], row["run"]))
    _print(rows)


def _row(folder: Path) -> dict[str, Any]:
    """One line of the table of runs."""
    folds = sorted(folder.glob("fold*/config.yaml"))
    config = yaml.safe_load(folds[0].read_text())
    score = _score(folder, config)
    done = [p.parent for p in folds if (p.parent / "score.json").exists()]
    row = {
        "run": folder.name,
        "score": "unfinished",
        "sort": float("-inf"),
        "minutes": "",
        "GB": "",
        "folds": f"{len(done)}/{config['n_folds']}",
        "seeds": config["seed"],
    }
    if score is None:
        return row
    name, value = next(iter(score["metrics"].items()), ("", None))
    if value and value["value"] is not None:
        row["sort"] = value["value"]
        one = "" if "folds" in score else ", one fold"
        bounds = f"[{value['low']:.4f}, {value['high']:.4f}]"
        row["score"] = f"{name} {value['value']:.4f} {bounds}{one}"
    else:
        row["score"] = "not scored"
    row["minutes"] = f"{score['seconds'] / 60:.1f}"
    row["GB"] = f"{score['peak_memory_mb'] / 1024:.1f}"
    return row


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
