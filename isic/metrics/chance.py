"""Chance level: the score of a model that knows nothing, to compare a score with.

Method: the same probabilities are given to other rows, drawn without replacement, and scored; the
mean over some such deals. So the level depends on the classes and on how they are decided: 0.06
by the argmax and 0.15 by fitted thresholds on the same eleven classes of MILK10k.
Unit: as the metric. A rule that was fitted to labels must be fitted again to each deal, see
`isic.predictions.fitted.nested_chance`.
Trap: no level is given where it is plain (0.5 of an AUC) or where there is none (calibration).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.metrics.calibration import expected_calibration_error
from isic.metrics.classification import macro_auc, one_class_auc, roc_auc
from isic.metrics.inputs import Ints, Metric, score_of

N_DEALS = 20  # the mean of 20 moves by 0.002 with another seed, on 4,000 rows of 11 classes
PLAIN = (roc_auc, macro_auc, one_class_auc, expected_calibration_error)


def chance_level(
    metric: Metric,
    target: npt.ArrayLike,
    probs: npt.ArrayLike,
    *,
    group: Any = None,
    n_deals: int = N_DEALS,
    seed: int = 0,
) -> float | None:
    """Return the mean score of the same probabilities on other rows; None where it is plain.

    Args:
        metric: `(target, probs) -> float`, or with `group`.
        target: Class numbers, (N,).
        probs: (N, C), or (N,) when binary.
        group: Patient of each row, for metrics of patients.
        n_deals: Deals to average over.
        seed: Of the deals.
    """
    function = metric
    while isinstance(function, partial):
        function = function.func
    if function in PLAIN:
        return None
    given, values = np.asarray(probs), []
    for order in deals(np.zeros(len(given), dtype=np.int64), n_deals=n_deals, seed=seed):
        try:
            values.append(score_of(metric, target, given[order], group))
        except ValueError:  # undefined on this deal, as a precision without predictions
            continue
    return float(np.mean(values)) if values else None


def deals(block: Ints, *, n_deals: int, seed: int) -> Iterator[Ints]:
    """Orders of the rows, (N,) each, that move them within their block only.

    block: Number of each row's block (its fold), (N,).
    """
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(block == number) for number in np.unique(block)]
    for _ in range(n_deals):
        order = np.empty(len(block), dtype=np.int64)
        for place in places:
            order[place] = rng.permutation(place)
        yield order
