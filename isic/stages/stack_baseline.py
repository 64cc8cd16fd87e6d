"""Score of a stack's image runs without it, their rank average, next to every stack's score.

Source: a study of ISIC 2024 found every learned stacker and gate below the rank average of its runs
(junaidaliop.github.io/isic2024-tbp); and a stack of features that say nothing fits noise.
Method: metrics that see the order of scores take the ranks of `stacker=rank_average`, within each
fold; those that see probabilities take the mean of the runs. The difference is paired: the same
rows, the same resamples.
Trap: a stack may be worse and still have a good number; only this says so.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from isic.assemble import with_targets
from isic.metrics import Metric
from isic.predictions.scorecard import difference
from isic.stack.combine import BY_ORDER
from isic.stack.inputs import Floats, Samples
from isic.stack.stackers import RankAverage
from isic.stages.stack_rows import Request, predictions, run_scores

RANKS, MEAN = "rank average", "mean"


def inputs_alone(
    request: Request, rows: pd.DataFrame, samples: Samples, stacked: pd.DataFrame
) -> dict[str, Any]:
    """`runs`, and `metrics`: name -> how they were averaged, value, difference, low, high.

    The difference is the stack minus its inputs; empty without runs.

    stacked: The stack's out-of-fold predictions.
    """
    if not request.runs.folders:
        return {}
    held_out = (rows["fold"] >= 0).to_numpy()
    averages = {RANKS: _rank_average(request, rows, samples), MEAN: _mean(request, rows)}
    frame, compared = with_targets(stacked, request.index), dict[str, Any]()
    for name, metric in request.metrics.items():
        how = RANKS if _by_order(metric) else MEAN
        other = predictions(rows[held_out], averages[how][held_out], samples.classes)
        other = with_targets(other, request.index)
        found = difference(frame, other, classes=samples.classes, metrics={name: metric})
        compared |= {key: {"of": how, **entry} for key, entry in found.items()}
    return {"runs": list(request.runs.folders), "metrics": compared}


def worse_than_inputs(request: Request, alone: Mapping[str, Any]) -> list[str]:
    """At most one warning: the stack scores lower than its inputs by the first metric."""
    name = next(iter(request.metrics))
    entry = alone.get("metrics", {}).get(name)
    if entry is None:
        return []
    about = request.config["metrics"]
    least = str(about["monitor"]).endswith(f"/{name}") and about["mode"] == "min"
    sign = -1.0 if least else 1.0
    if sign * entry["difference"] >= 0:
        return []
    instead = (
        "stacker=rank_average features=[image_scores]"
        if entry["of"] == RANKS
        else "predict.py ckpt=[runs/NAME,...] combine=mean"
    )
    sure = max(sign * entry["low"], sign * entry["high"]) < 0
    return [
        f"the stack is {'worse' if sure else 'no better'} than the {entry['of']} of its inputs: "
        f"{name} lower by {abs(entry['difference']):.4f} "
        f"[{entry['low']:.4f}, {entry['high']:.4f}]; take that ({instead}), or features that say "
        "more"
    ]


def _by_order(metric: Metric) -> bool:
    """Return whether a metric sees the order of scores and nothing else."""
    while isinstance(metric, partial):
        metric = metric.func
    return getattr(metric, "__name__", "") in BY_ORDER


def _rank_average(request: Request, rows: pd.DataFrame, samples: Samples) -> Floats:
    """Return the scores of `stacker=rank_average`, (N, C); NaN for rows that no fold holds out."""
    columns = run_scores(request)
    model = RankAverage(
        columns=tuple(columns),
        scores=tuple(columns),
        score_classes=[column.class_name for column in columns.values()],
        classes=samples.classes,
    )
    scores, fold = rows[list(columns)].to_numpy(np.float32), rows["fold"].to_numpy()
    ranks = np.full((len(rows), len(samples.classes)), np.nan)
    for number in samples.folds:
        own = fold == number
        ranks[own] = model.predict_proba(scores[own])
    return ranks


def _mean(request: Request, rows: pd.DataFrame) -> Floats:
    """Mean of the runs' probabilities, (N, C), over those that could read the row."""
    columns, classes = run_scores(request), request.index.info.classes
    means = [
        rows[[name for name, of in columns.items() if of.class_name == label]].mean(axis=1)
        for label in (classes[-1:] if len(classes) == 2 else classes)
    ]
    if len(classes) == 2:
        means = [1.0 - means[0], means[0]]
    return np.column_stack([mean.to_numpy(np.float64) for mean in means])
