"""Early stopping inside a training fold: on a fifth of its groups, never on the held-out fold.

Two classes are judged by their AUC: rows drawn anew, or weighed by scale_pos_weight, shift every
probability, so that the log-loss of the rows as they are would stop at the first tree.
Trap: what is held out to be scored must not choose the number of trees; that score would flatter.
A fixed number of trees is the default, as with most of ISIC 2024's winners.
"""

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.errors import ConfigError, DataError

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]


def inner_fold(group: npt.NDArray[Any], code: Ints, *, seed: int, share: float = 0.2) -> Bools:
    """Which rows are set aside: whole groups, about `share` of those of each class; (N,).

    Groups are dealt class by class, the rarest first, so that few positives reach both sides. A
    class that would be set aside as a whole stays in training.
    """
    rng = np.random.default_rng([seed, 1])
    names, of_row = np.unique(group.astype(str), return_inverse=True)
    aside = np.zeros(len(names), dtype=bool)
    dealt = np.zeros(len(names), dtype=bool)
    for label in np.argsort(np.bincount(code), kind="stable"):
        own = np.setdiff1d(np.unique(of_row[code == label]), np.flatnonzero(dealt))
        aside[rng.permutation(own)[: round(share * len(own))]] = True
        dealt[own] = True
    mask: Bools = aside[of_row]
    for label in np.unique(code):
        if mask[code == label].all():
            aside[np.unique(of_row[code == label])] = False
            mask = aside[of_row]
    return mask


def fit_stopped(
    estimator: Any,
    matrix: Matrix,
    code: Ints,
    weight: Any,
    *,
    held_out: tuple[Matrix, Ints],
    rounds: int,
) -> None:
    """Fit until `rounds` rounds bring no gain on `held_out`.

    Raises:
        ConfigError: An estimator that is no booster.
        DataError: Nothing, or one class only, to judge by.
    """
    if len(np.unique(held_out[1])) < 2:
        raise DataError(
            f"early_stopping: a fifth of the training groups holds {len(held_out[1])} rows of "
            "fewer than two classes to judge by; too few patients: take early_stopping=null"
        )
    binary = len(np.unique(code)) == 2
    package = type(estimator).__module__.partition(".")[0]
    given: dict[str, Any] = {"sample_weight": weight, "eval_set": [held_out]}
    if package == "lightgbm":
        import lightgbm

        if "eval_X" in inspect.signature(estimator.fit).parameters:  # 4.7 renamed it
            given.pop("eval_set")
            given |= {"eval_X": (held_out[0],), "eval_y": (held_out[1],)}
        if binary:
            estimator.set_params(metric="auc")
        given["callbacks"] = [lightgbm.early_stopping(rounds, verbose=False)]
    elif package == "xgboost":
        estimator.set_params(
            early_stopping_rounds=rounds, **{"eval_metric": "auc"} if binary else {}
        )
        given["verbose"] = False
    elif package == "catboost":
        if binary:
            estimator.set_params(eval_metric="AUC")
        given |= {"early_stopping_rounds": rounds, "verbose": False}
    else:
        raise ConfigError(
            f"early_stopping: {type(estimator).__name__} has no rounds to stop; take "
            "early_stopping=null, or a booster"
        )
    estimator.fit(matrix, code, **given)
