"""What `predict.py` makes of probabilities: tempered, an unknown class scored, decided at 0.5.

All of it was fitted on the out-of-fold rows of one run (`runs/<name>/thresholds.json`). A
temperature changes `predictions.parquet` too; decisions and the unknown class go into the
submission alone.
Trap: several runs together are another model than any of them, that nothing was fitted to.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from isic.engine.trained import fold_config
from isic.errors import ConfigError, DataError
from isic.metrics import Metric
from isic.predictions.fitted import Fitted, calibrated, decided, unknown_scored
from isic.predictions.table import classes_of, prob_columns, probabilities
from isic.predictions.thresholds import cuts_at_half
from isic.predictions.unknown import UNKNOWN

log = logging.getLogger(__name__)

CHOICES = {
    "split": ("test", "train", "holdout"),
    "combine": ("mean", "rank_mean"),
    "calibrate": ("none", "temperature"),
    "decide": ("none", "argmax", "thresholds"),
    "unknown": ("none", "max_prob", "energy"),
}


def check_choices(config: Mapping[str, Any]) -> None:
    """Refuse values that are no choice, and two that contradict each other."""
    for key, choices in CHOICES.items():
        if config[key] not in choices:
            raise ConfigError(f"{key}: expected {' or '.join(choices)}, got {config[key]!r}")
    if config["images"] and config["split"] != "test":
        raise ConfigError(f"images: predicted as test rows, got split={config['split']}")
    if config["unknown"] != "none" and config["decide"] == "thresholds":
        raise ConfigError(
            "decide=thresholds: no training row shows where an unknown class is cut; take "
            "decide=argmax, or unknown=none"
        )
    if config["combine"] == "rank_mean":
        for key in ("calibrate", "decide", "unknown"):
            if config[key] != "none":
                raise ConfigError(
                    f"{key}={config[key]}: ranks are no probabilities; take combine=mean"
                )


def check_combine(combine: str, metrics: Mapping[str, Metric], *, archive: str) -> None:
    """Refuse ranks where the run's official metric asks which probabilities are over 0.5.

    metrics: Of the run, the official one first.

    Raises:
        ConfigError: A rank is over 0.5 for half of the rows, in every class.
    """
    name = next(iter(metrics), "")
    if combine == "rank_mean" and name and cuts_at_half(metrics[name]):
        raise ConfigError(
            f"combine=rank_mean: {name} of {archive} takes a class where its "
            "probability is over 0.5, and of ranks half of the rows are, in every class; take "
            "combine=mean, with decide=thresholds or decide=argmax"
        )


def fit_of(
    config: Mapping[str, Any], record: Mapping[str, Any], checkpoints: Sequence[Path]
) -> Fitted | None:
    """What was fitted on the run's out-of-fold rows; None where nothing asks for it.

    Raises:
        ConfigError: Checkpoints that are not of one run's folders, no unknown class to score.
        DataError: The run is not finished, or its file is of another split.
    """
    asked = [k for k in ("calibrate", "unknown") if config[k] != "none"]
    asked += ["decide"] if config["decide"] == "thresholds" else []
    if not asked:
        return None
    named = f"{asked[0]}={config[asked[0]]}"
    folders = sorted({p.resolve().parents[2] for p in checkpoints if len(p.resolve().parents) > 2})
    if len(folders) != 1:
        raise ConfigError(
            f"{named}: fitted on the out-of-fold rows of one run, got checkpoints of "
            f"{len(folders)}; give one run: ckpt=runs/NAME"
        )
    try:
        fitted = Fitted.read(folders[0])
    except DataError as error:
        if absent := _unfinished(folders[0]):
            raise DataError(
                f"{named}: fitted on the out-of-fold rows of all folds, and {folders[0]} lacks "
                f"fold {absent}: give its train.py command with -m fold={absent} first"
            ) from None
        raise DataError(f"{named}: {error}") from None
    if set(fitted.thresholds) != set(record["classes"]):
        raise DataError(
            f"{named}: {folders[0]} was fitted to the classes {', '.join(fitted.thresholds)}, its "
            f"checkpoint has {', '.join(record['classes'])}; train the folds again"
        )
    if fitted.split_hash != record.get("split_hash"):
        raise DataError(
            f"{named}: {folders[0]} was fitted on split {fitted.split_hash}, its checkpoint is of "
            f"{record.get('split_hash')}; train the folds again from one split file"
        )
    if config["unknown"] != "none" and config["unknown"] not in fitted.unknown:
        raise ConfigError(
            f"unknown={config['unknown']}: run {fitted.run} has no class {UNKNOWN} without "
            "training rows; leave it at none"
        )
    return fitted


def _unfinished(run: Path) -> str:
    """The folds of a run that are not finished, as fold= takes them."""
    configs = sorted(run.glob("fold*/config.yaml"))
    n_folds = fold_config(configs[0].parent, "ckpt", {"n_folds": int})["n_folds"] if configs else 0
    absent = [k for k in range(n_folds) if not (run / f"fold{k}" / "score.json").exists()]
    return ",".join(map(str, absent))


def as_predicted(
    frame: pd.DataFrame, config: Mapping[str, Any], fitted: Fitted | None
) -> pd.DataFrame:
    """The table of `predictions.parquet`: tempered where that is asked for."""
    if config["calibrate"] == "none":
        return frame
    assert fitted is not None
    log.info("calibrate: temperature %.3f of %d out-of-fold rows", fitted.temperature, fitted.rows)
    return calibrated(frame, fitted)


def as_submitted(
    frame: pd.DataFrame,
    raw: pd.DataFrame,
    config: Mapping[str, Any],
    fitted: Fitted | None,
) -> pd.DataFrame:
    """The table of the submission: an unknown class scored, then decided.

    frame: As predicted. raw: The same before a temperature, which an unknown class is scored by.
    """
    thresholds = None
    if config["decide"] == "thresholds":
        assert fitted is not None
        tempered = config["calibrate"] != "none"
        thresholds = fitted.tempered_thresholds if tempered else fitted.thresholds
        shown = ", ".join(f"{c} {t:.3f} ({fitted.positives[c]})" for c, t in thresholds.items())
        log.info("decide: thresholds (and positives) %s", shown)
    if config["unknown"] == "none":
        return decided(frame, config["decide"], thresholds)
    assert fitted is not None
    column = f"prob_{UNKNOWN}"
    scored = frame.assign(**{column: unknown_scored(raw, config["unknown"], fitted)[column]})
    probs = probabilities(scored)
    highest = probs.argmax(axis=1) == prob_columns(classes_of(scored)).index(column)
    log.info("unknown: %s is the highest of %d of %d rows", UNKNOWN, highest.sum(), len(scored))
    return decided(scored, config["decide"])
