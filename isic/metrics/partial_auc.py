"""Partial area under the ROC curve above a sensitivity of 80 %: the ISIC 2024 Kaggle metric.

- source: https://www.kaggle.com/code/metric/isic-pauc-abovetpr (competition `isic-2024-challenge`)
- range: 0..0.2; random ranking about 0.02, constant scores exactly 0.02
- the conflict: github.com/ISIC-Research/Challenge-2024-Metrics names 88 % and [0, 0.12] in its
  README and mis-orders scores outside [0, 1]; Kaggle ranked with 80 % on any real numbers
- trap: a smaller sample of negatives changes little, a smaller sample of positives a lot
"""

import numpy as np
import numpy.typing as npt

from isic.metrics.inputs import Floats, binary_scores
from isic.metrics.ranking import count_below, n_needed, step_area

ONE_CLASS = "only one class present in target: the ROC curve is not defined"


def partial_auc(target: npt.ArrayLike, score: npt.ArrayLike, *, min_tpr: float = 0.80) -> float:
    """Return the area of the ROC curve that lies above `min_tpr`, 0..1 - min_tpr.

    Args:
        target: 0 or 1, (N,).
        score: Higher means class 1; probabilities, logits or ranks, (N,) or (N, 2).
        min_tpr: Least sensitivity that counts; 0.80 is what Kaggle ranked with.

    Raises:
        ValueError: One class only, as the official scorer does; NaN; wrong shapes.
    """
    if not 0.0 <= min_tpr < 1.0:
        raise ValueError(f"min_tpr must be in [0, 1), got {min_tpr}")
    positives, negatives = binary_scores(target, score)
    return ranked_area(positives, negatives, max_miss=abs(1.0 - min_tpr))


def ranked_area(positives: Floats, negatives: Floats, *, max_miss: float) -> float:
    """Area of the ROC curve where at most `max_miss` of the positives are missed."""
    if not len(positives) or not len(negatives):
        raise ValueError(ONE_CLASS)
    cutoffs, weight = np.unique(positives, return_counts=True)
    kept = n_needed(np.cumsum(weight) / len(positives), max_miss)
    below, tied = count_below(cutoffs[:kept], negatives)
    area = step_area(
        weight[:kept].astype(float),
        below,
        tied,
        positives=np.array(float(len(positives))),
        negatives=np.array(float(len(negatives))),
        max_miss=max_miss,
    )
    return float(area)
