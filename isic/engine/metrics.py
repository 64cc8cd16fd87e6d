"""The metrics that a config names: what a training logs and a score states."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from isic.metrics import Metric


def build_metrics(config: Mapping[str, Any]) -> dict[str, Metric]:
    """Return name -> function; runs are compared by the first one."""
    metrics: dict[str, Metric] = instantiate(config["metrics"]["functions"])
    return metrics
