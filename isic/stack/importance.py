"""How much each feature is worth to a stack: gain, and mean absolute SHAP value on held-out rows.

`gain` is a feature's share of a model's summed gain (of the sum of |coefficients| of standardised
features where there are no trees), averaged over models. `shap` is the mean of |SHAP values| in
log-odds over rows, classes and models (Lundberg 2020, doi 10.1038/s42256-019-0138-9), exact for
trees and linear models. `models` counts those that were given the feature.
Trap: gain rewards what a tree could split on most often, noise with many values too; SHAP on rows
that no tree has seen says less of it. Neither says what a feature would add to the others.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.stack.fitted import Fitted

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]


def importance_table(
    models: Iterable[tuple[Fitted, Sequence[str], Matrix]],
) -> pd.DataFrame:
    """Columns `feature, gain, shap, models`, the most useful by SHAP, then by gain, first.

    models: Each with the names of its columns and some rows that it was not fitted on.
    """
    gains: dict[str, list[float]] = {}
    shaps: dict[str, list[float]] = {}
    for model, columns, rows in models:
        gain, shap = gain_of(model), shap_of(model, rows)
        for i, name in enumerate(columns):
            gains.setdefault(name, []).append(np.nan if gain is None else float(gain[i]))
            shaps.setdefault(name, []).append(np.nan if shap is None else float(shap[i]))
    table = pd.DataFrame(
        {
            "feature": list(gains),
            "gain": [_mean(values) for values in gains.values()],
            "shap": [_mean(values) for values in shaps.values()],
            "models": [len(values) for values in gains.values()],
        }
    )
    return table.sort_values(["shap", "gain"], ascending=False, kind="stable", ignore_index=True)


def gain_of(model: Fitted) -> Floats | None:
    """Each feature's share of the gain, (F,); None for a model that does not say."""
    raw: Any
    if model.kind == "lightgbm":
        raw = model.model.feature_importance("gain")
    elif model.kind == "catboost":
        raw = model.model.get_feature_importance()
    elif model.kind == "xgboost":
        found = model.model.get_score(importance_type="total_gain")
        raw = [found.get(f"f{i}", 0.0) for i in range(model.model.num_features())]
    elif model.kind == "logistic":
        raw = np.abs(model.model.state["coef"]).sum(axis=0)
    else:
        return None
    gain = np.asarray(raw, dtype=np.float64)
    return gain / gain.sum() if gain.sum() > 0 else gain


def shap_of(model: Fitted, rows: Matrix) -> Floats | None:
    """Mean |SHAP value| of each feature over rows (N, F) and classes, (F,)."""
    width = rows.shape[1]
    if not len(rows):
        return None
    if model.kind == "lightgbm":
        raw = np.asarray(model.model.predict(rows, pred_contrib=True, num_threads=1))
        values = raw.reshape(len(rows), -1, width + 1)[:, :, :-1]  # the last is the mean
    elif model.kind == "xgboost":
        import xgboost

        raw = model.model.predict(xgboost.DMatrix(rows, nthread=1), pred_contribs=True)
        values = raw.reshape(len(rows), -1, width + 1)[:, :, :-1]
    elif model.kind == "catboost":
        import catboost

        pool = catboost.Pool(rows)
        raw = model.model.get_feature_importance(pool, type="ShapValues", thread_count=1)
        values = raw.reshape(len(rows), -1, width + 1)[:, :, :-1]
    elif model.kind == "logistic":
        scaled = model.model.standardised(rows)
        values = scaled[:, None, :] * model.model.state["coef"][None]
    else:
        return None
    return np.asarray(np.abs(values).mean(axis=(0, 1)), dtype=np.float64)


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")
