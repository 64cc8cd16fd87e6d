"""Arrays -> float: the scores of ISIC challenges and their intervals, in numpy alone.

The same functions score training, stacking and report. `METRICS` maps the names that configs, logs
and `score.json` use to the functions. The functions that a module is named after are imported from
there (`from isic.metrics.partial_auc import partial_auc`): here they would hide their module.
"""

from collections.abc import Callable

from isic.metrics.bootstrap import bootstrap_interval, paired_interval
from isic.metrics.calibration import expected_calibration_error
from isic.metrics.classification import (
    accuracy,
    balanced_accuracy,
    elementwise_accuracy,
    macro_auc,
    macro_dice,
    macro_f1_argmax,
    one_class_auc,
    roc_auc,
)
from isic.metrics.inputs import Metric
from isic.metrics.partial_auc import partial_auc as _partial_auc
from isic.metrics.per_class import f1, precision, recall
from isic.metrics.retrieval import RETRIEVALS

METRICS: dict[str, Metric] = {
    "pauc": _partial_auc,
    "auc": roc_auc,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_dice,
    "macro_f1_argmax": macro_f1_argmax,
    "macro_auc": macro_auc,
    "accuracy": accuracy,
    "elementwise_accuracy": elementwise_accuracy,
    "ece": expected_calibration_error,
}

CONFIGURABLE: tuple[Callable[..., float], ...] = (
    *METRICS.values(), one_class_auc, precision, recall, f1, *RETRIEVALS
)  # fmt: skip
"""Every function that a config may name under `metrics.functions`, also one that a file stores."""

__all__ = [
    "CONFIGURABLE",
    "METRICS",
    "Metric",
    "accuracy",
    "balanced_accuracy",
    "bootstrap_interval",
    "elementwise_accuracy",
    "expected_calibration_error",
    "macro_auc",
    "macro_dice",
    "macro_f1_argmax",
    "one_class_auc",
    "paired_interval",
    "roc_auc",
]
