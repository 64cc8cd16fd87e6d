"""What `predict.py` does: checkpoints, averaged, or a stack -> a folder of predictions."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from isic.assemble import check_sample
from isic.code_hash import warn_edited
from isic.engine.build import quiet
from isic.engine.decide import check_choices, check_combine, fit_of
from isic.engine.inference import find_checkpoints, predict_checkpoint
from isic.engine.results import write_results
from isic.engine.stacked import predict_stack
from isic.engine.trained import data_of, overrides, stored_config
from isic.errors import ConfigError
from isic.predictions import ensemble
from isic.training.checkpoint import read
from isic.training.tta import views_of

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> str:
    """`predict.py`: predictions, submission and score in one folder; returns its path."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    check_choices(config)
    _ = views_of(config["tta"], 1)  # refuses a name that is none
    if config["stack"]:
        return predict_stack(config)
    if config["ckpt"] == "???":
        raise ConfigError(
            "expected a checkpoint, fold or run, or a stack, got none: ckpt=runs/NAME, stack=runs/S"
        )
    quiet()
    checkpoints = find_checkpoints(config["ckpt"], runs=Path(config["paths"]["runs"]))
    records: list[dict[str, Any]] = [read(path)["isic"] for path in checkpoints]
    configs = [
        stored_config(path, record, config, overridden=overrides(config))
        for path, record in zip(checkpoints, records, strict=True)
    ]
    check_alike(checkpoints, records, images=config["images"])
    metrics = configs[-1].make("metrics.functions")
    check_combine(config["combine"], metrics, archive=records[-1]["info"]["name"])
    frames, data, fitted = [], None, None
    for path, record, stored in zip(checkpoints, records, configs, strict=True):
        fitted = fit_of(config, record, checkpoints)
        log.info("predicting with %s", path)
        warn_edited(path, record["config"])
        data = data_of(stored, record, config)
        if config["split"] == "test":
            check_sample(data.index)
        frames.append(predict_checkpoint(path, data, record, config))
    assert data is not None
    frame = frames[0]
    if len(frames) > 1:
        frame = ensemble(frames, method=config["combine"], weights=weights_of(checkpoints))
    return write_results(frame, data, records[-1], config, checkpoints, fitted, metrics=metrics)


def weights_of(checkpoints: Sequence[Path]) -> list[float]:
    """Of each checkpoint, so that runs weigh alike however many of their folds are given."""
    runs = [_run_of(path.resolve()) for path in checkpoints]
    return [1 / runs.count(run) for run in runs]


def _run_of(path: Path) -> Path:
    """The folder of a checkpoint's run; a file elsewhere stands for itself."""
    inside = path.parent.name == "checkpoints" and path.parents[1].name.startswith("fold")
    return path.parents[2] if inside else path


def check_alike(
    checkpoints: Sequence[Path], records: Sequence[Mapping[str, Any]], *, images: str | None = None
) -> None:
    """Refuse checkpoints whose predictions cannot be averaged, before any is computed.

    images: A folder that is predicted, whichever data set a checkpoint is of.

    Raises:
        ConfigError: Other classes, or another data set; names both files.
    """
    first = records[0]
    for path, record in zip(checkpoints, records, strict=True):
        other = record["info"]["name"] != first["info"]["name"] and not images
        if other or list(record["classes"]) != list(first["classes"]):
            listed = "; ".join(
                f"{p} is of {r['info']['name']} with the classes {', '.join(r['classes'])}"
                for p, r in ((checkpoints[0], first), (path, record))
            )
            raise ConfigError(f"ckpt: expected checkpoints of one data set, got {listed}")
