"""Train, predict and score one fold: what `train.py` does."""

import logging
import resource
import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from isic.assemble import check_sample, score_predictions
from isic.code_hash import CODE, targets_code
from isic.composition import Composition
from isic.data import LesionDataModule
from isic.engine.build import (
    build_classifier,
    build_data,
    build_loggers,
    build_trainer,
)
from isic.engine.cautions import cautions, seen_by_weights
from isic.engine.content import run_content
from isic.engine.finished import last_lines, say_how_to_sync, say_when
from isic.engine.inference import predict_rows
from isic.engine.launch import check_ranks, is_launched, is_relaunched, rank, relaunch
from isic.engine.metrics import build_metrics
from isic.engine.resume import go_on, is_trained, on_edited_code, readable
from isic.engine.settle import settle
from isic.engine.spoken import announce, log_mistakes, log_result
from isic.engine.teacher import teach
from isic.errors import ConfigError, IsicError
from isic.files import overwrites
from isic.index.schema import index_hash
from isic.outputs import output_folder
from isic.predictions import write_predictions, write_score
from isic.predictions.table import TARGET
from isic.runs import RunFolder
from isic.training.callbacks import Stopwatch, stopped_early
from isic.training.checkpoint import load_weights, read, remove_litter
from isic.training.failures import memory_explained
from isic.training.hardware import TrainerOptions, synchronised
from isic.training.loggers import MetricsTable, finish
from isic.training.module import LesionClassifier
from isic.workers import slurm_start

log = logging.getLogger(__name__)


def fit_fold(
    config: dict[str, Any],
    data: LesionDataModule | None = None,
    *,
    today: Composition | None = None,
) -> str:
    """Train, predict and score the fold of a plain, named config, in as many processes as it says.

    today: What the config was composed of; by default what it keeps of that itself.

    Raises:
        ConfigError: The run's folder holds another experiment.
    """
    data = data or build_data(config)
    if not is_relaunched() and (code := targets_code(config)):
        config[CODE] = code
    # reads the split: a fold that does not exist gets no folder
    content = run_content(config, data)
    run = Path(config["paths"]["runs"]).resolve() / config["name"]
    folder = RunFolder(run / f"fold{config['fold']}")
    options: TrainerOptions = instantiate(config["trainer"])
    today = today or Composition.kept(config)
    settle(config, content, data.index.info, stored=run.glob("fold*/config.yaml"), today=today)
    check_ranks(options.n_devices, options.num_nodes)
    leads = rank() == 0 and not is_relaunched()
    _refuse_overwrite_of_ranks(config, folder)
    if leads:
        output_folder(run)
    with folder.lock() if leads else nullcontext(False) as waited:
        anew = leads and overwrites(config["overwrite"], waited=waited, folder=folder.path)
        if not is_relaunched():  # whoever started the ranks has claimed the run for them
            folder.claim(
                config,
                content,
                overwrite=anew,
                leads=leads,
                start=slurm_start(),
                defaults=today.defaults if today else None,
                trained=partial(is_trained, config, folder.path),
            )
        go_on(config, data, folder)
        if folder.finished:
            say_when(folder)
        else:
            edited = on_edited_code(config, folder)
            teach(config, data)  # before a relaunch: its ranks find the soft labels in the cache
            data.cautions += seen_by_weights(config["model"].get("pretrained"), data) + edited
            if options.n_devices > 1 and not is_launched():
                data.setup("fit")  # what is wrong with data or checkpoint is said here, once
                _ = readable(folder.last) if folder.last.exists() else None
                relaunch(config, folder.path, n_devices=options.n_devices)
            else:
                _train(config, data, folder, options)
        line = last_lines(config, folder, data) if leads else ""
    if leads:
        say_how_to_sync(folder)
    return line


def _refuse_overwrite_of_ranks(config: Mapping[str, Any], folder: RunFolder) -> None:
    if config["overwrite"] and is_launched() and not is_relaunched():
        raise ConfigError(
            "overwrite: the ranks that torchrun or srun started would race; delete "
            f"{folder.path} instead"
        )


def _train(
    config: dict[str, Any], data: LesionDataModule, folder: RunFolder, options: TrainerOptions
) -> None:
    """Fit on from the last epoch on disk, then predict, score and write everything of the fold."""
    started = time.perf_counter()
    if is_launched():  # a process group gives up on a node that packs for half an hour
        data.setup("fit")
        _ = data.test_rows
    if options.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    if rank() == 0:
        check_sample(data.index)
        if data.metadata:
            data.check_metadata()  # before what takes minutes
        remove_litter(folder.path)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    classifier = build_classifier(config, data)
    if rank() == 0:
        announce(config, data, classifier, options, folder)
        for caution in cautions(data):
            log.warning("%s", caution)
    loggers = build_loggers(config, folder)
    code = 1
    try:
        trainer = build_trainer(config, folder, options, loggers)
        _fit(trainer, classifier, data, folder, options)
        _finish(config, data, folder, classifier, trainer, started)
        code = 0
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit(1)
            code = 130
            raise KeyboardInterrupt from None
        code = int(stop.code or 0)
        raise
    finally:
        finish(loggers, code)


def _fit(
    trainer: pl.Trainer,
    classifier: LesionClassifier,
    data: LesionDataModule,
    folder: RunFolder,
    options: TrainerOptions,
) -> None:
    resume = folder.last if folder.last.exists() else None
    steps = 0
    if resume:
        done = readable(resume)
        steps = done["global_step"]
        log.info("resuming after epoch %d of %d", done["epoch"] + 1, options.max_epochs)
        if stopped_early(done):  # Lightning does not remember, and would train on
            trainer.fit_loop.max_epochs = done["epoch"] + 1
    for logger in trainer.loggers:
        if isinstance(logger, MetricsTable):
            logger.forget_after(steps)
    options.lay_out(classifier.network)
    if options.sync_batchnorm:
        classifier.network = synchronised(classifier.network)
    if options.compile:
        classifier.network.compile()
    with memory_explained(
        {
            "data.batch_size": data.batch_size,
            "trainer.accumulate_grad_batches": options.accumulate_grad_batches,
            "trainer.precision": options.resolved_precision,
            "data.image_size": data.image_size,
        }
    ):
        trainer.fit(classifier, data, ckpt_path=resume, weights_only=True)


def _finish(
    config: dict[str, Any],
    data: LesionDataModule,
    folder: RunFolder,
    classifier: LesionClassifier,
    trainer: pl.Trainer,
    started: float,
) -> None:
    """Predict the held-out fold and the test rows; the score is written last."""
    best = config["evaluate"] == "best" and config["fold"] != "all"
    chosen = folder.best if best else folder.last
    if best and not chosen.exists():
        raise IsicError(f"evaluate=best: {config['metrics']['monitor']} was never a finite number")
    load_weights(classifier, read(chosen), chosen)
    result: dict[str, Any] = {"metrics": {}, "n": 0, "interval_over": None}
    if config["fold"] != "all":
        result |= _predict_held_out(config, data, folder, classifier, trainer)
    if data.test_rows is not None:
        _predict_test(config, data, folder, classifier, trainer)
    if trainer.is_global_zero:
        watch = next(c for c in trainer.callbacks if isinstance(c, Stopwatch))  # type: ignore[attr-defined]
        seconds = time.perf_counter() - started + watch.earlier_seconds
        on_gpu = trainer.strategy.root_device.type == "cuda"
        result |= _resources(watch, seconds, on_gpu=on_gpu)
        stopped_early = bool(config["callbacks"]["early_stopping"]) and config["fold"] != "all"
        result["selected_on_validation"] = best or stopped_early
        result["warnings"] = cautions(data)
        log_result(trainer.loggers, folder, result)
        write_score(folder.score_file, result)
        share = watch.validation_seconds / max(watch.train_seconds + watch.validation_seconds, 1e-9)
        log.info(
            "seconds: training %.0f, validation %.0f (%.0f %% of both), in all %.0f; %.0f img/s",
            *(watch.train_seconds, watch.validation_seconds, 100 * share, result["seconds"]),
            watch.images_per_second,
        )


def _predict_held_out(
    config: Mapping[str, Any],
    data: LesionDataModule,
    folder: RunFolder,
    classifier: LesionClassifier,
    trainer: pl.Trainer,
) -> dict[str, Any]:
    """`oof.parquet` and `curves/` of the fold, and its score."""
    rows = data.train_rows
    held_out = np.flatnonzero(rows.table["fold"].to_numpy() == config["fold"])
    frame = predict_rows(trainer, classifier, data, rows, held_out, fold=config["fold"])
    if not trainer.is_global_zero:
        return {}
    frame[TARGET] = rows.table["target"].iloc[held_out].to_numpy()
    write_predictions(folder.path / "oof.parquet", frame, **_attributes(config, data))
    if (config["logger"]["wandb"] or {}).get("images"):
        log_mistakes(trainer.loggers, rows, frame)
    metrics = build_metrics(config)
    return score_predictions(frame, data.index, metrics, folder=folder.path / "curves")


def _predict_test(
    config: Mapping[str, Any],
    data: LesionDataModule,
    folder: RunFolder,
    classifier: LesionClassifier,
    trainer: pl.Trainer,
) -> None:
    """`test.parquet`."""
    rows = data.test_rows
    assert rows is not None
    every_row = np.arange(len(rows.table))
    fold = -2 if config["fold"] == "all" else config["fold"]
    frame = predict_rows(trainer, classifier, data, rows, every_row, fold=fold)
    if trainer.is_global_zero:
        write_predictions(folder.path / "test.parquet", frame, **_attributes(config, data))


def _attributes(config: Mapping[str, Any], data: LesionDataModule) -> dict[str, Any]:
    """What a predictions file says about its origin."""
    return {
        "run": config["name"],
        "index_hash": index_hash(data.index.table),
        "split_hash": data.split.hash,
        "split_file": data.split.path,
    }


def _resources(watch: Stopwatch, seconds: float, *, on_gpu: bool) -> dict[str, float]:
    """Seconds, speed, and peak memory in MB: of the GPU where it is used, else of the process."""
    if on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {
        "seconds": round(seconds, 2),
        "train_seconds": round(watch.train_seconds, 2),
        "validation_seconds": round(watch.validation_seconds, 2),
        "images_per_second": round(watch.images_per_second, 1),
        "peak_memory_mb": round(peak, 1),
    }
