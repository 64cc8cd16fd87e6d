"""Verbs that make, fetch or examine an archive."""

import logging
import shlex
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from isic.acquire.download import API, Request, download_archive
from isic.acquire.download.http import Patience
from isic.acquire.synthetic import ARCHIVES
from isic.audit.check import check_archive
from isic.audit.report import TEXT
from isic.config.targets import locate, make
from isic.errors import ConfigError, DataError
from isic.features.family import Family
from isic.features.image_scores import reads_scores
from isic.prepare import open_index
from isic.signatures import check_signatures
from isic.stages.stack import families_of
from isic.streams import on_one_terminal, show

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
    show(f"{said}; data=folder data.root={cfg.data.root} opens it")
    return said


def _download_words(cfg: DictConfig) -> list[str]:
    """What was given beside the defaults, to be given again."""
    words = {"query": cfg.query, "limit": cfg.limit, "api": None if cfg.api == API else cfg.api}
    words["collections"] = str(cfg.collections or "").replace(" ", "")
    given = {k: v for k, v in words.items() if v not in (None, "")}
    return [f"data.root={cfg.data.root}", *(f"{k}={v}" for k, v in given.items())]


def _families(cfg: DictConfig) -> dict[str, Family]:
    """The families that need no image run."""
    nodes = OmegaConf.to_container(cfg.features, resolve=True)
    assert isinstance(nodes, dict)
    check_signatures(nodes, "features")
    plain = {str(key): node for key, node in nodes.items() if not reads_scores(node)}
    return families_of(plain)


def check(cfg: DictConfig) -> str:
    """Check an archive and write what was found; raises DataError where something is wrong."""
    cache, extra = Path(cfg.paths.cache), cfg.data.get("extra")
    start = time.monotonic()
    reader: Any = OmegaConf.to_container(cfg.data.index, resolve=True)
    index = open_index(
        make(reader),
        cfg.data.root,
        cache_root=cache,
        extra=extra,
        max_megapixels=cfg.data.max_megapixels,
    )
    opened = time.monotonic() - start
    report = check_archive(
        index,
        images=cfg.images,
        overlap=cfg.overlap,
        missing_images=cfg.data.missing_images,
        on_bad_image=cfg.data.on_bad_image,
        families=_families(cfg),
        cache_root=cache,
    )
    report.seconds = {"index": opened, **report.seconds}
    # what is wrong is the error after it, and comes once where both are read on one terminal
    show("\n".join(report.lines(wrong=not on_one_terminal())))
    name = f"{index.info.name}-{report.archive_hash}"
    folder = Path(cfg.output or Path(cfg.paths.runs) / "checks" / name)
    report.write(folder)
    show(f"written to {folder.resolve()}")
    if report.errors:
        named = [f"{f.text}; {f.todo}" if f.todo else f.text for f in report.errors]
        raise DataError("\n".join([*named, f"all that was found: {folder.resolve() / TEXT}"]))
    return "no errors"
