"""How unlike the known classes is an image? The column of a class that no training row has.

Source, `max_prob`: Hendrycks & Gimpel 2017 (arXiv 1610.02136): 1 - the highest probability of a
known class. `energy`: Liu et al. 2020 (arXiv 2010.03759), eq. 3 at T = 1: -log sum exp(logit), from
the column `energy` of the predictions, since probabilities do not hold it; of sigmoids the negative
sum of log(1 + exp(logit)) (Wang et al. 2021, arXiv 2109.11277).
Scaled by the share F of out-of-fold rows, all of known classes, that are less unlike: 0.5 F / 0.95
up to 0.95, then on to 1. One in twenty known rows is so given more than 0.5.
Unit: a number in 0..1 a row. Monotone in the score, so that its ranks stay.
Trap: it is no probability, since nobody knows how many unknown images will come; ISIC 2019's test
has 2,047 among 8,238 images.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from isic.errors import DataError
from isic.predictions.table import ENERGY, Floats, classes_of, probabilities

UNKNOWN = "UNK"
METHODS = ("max_prob", "energy")
GIVEN_UP = 0.05  # share of known rows beyond 0.5
_STEPS = np.linspace(0, 1, 1001)


def unknown_class(classes: Sequence[str], targets: pd.Series) -> str | None:
    """`UNK` where it is a class that no row of `targets` (class numbers) has, else None."""
    if UNKNOWN not in classes:
        return None
    return None if (targets == list(classes).index(UNKNOWN)).any() else UNKNOWN


def unlikeness(frame: pd.DataFrame, method: str) -> Floats:
    """Of each row, (N,), higher where it is less like a known class; NaN without an image."""
    if method == "max_prob":
        known = [i for i, name in enumerate(classes_of(frame)) if name != UNKNOWN]
        return np.asarray(1 - probabilities(frame)[:, known].max(axis=1))
    if ENERGY not in frame:
        raise DataError(
            "unknown=energy: these predictions hold no energies (made by an earlier version); "
            "train again, or take unknown=max_prob"
        )
    return frame[ENERGY].to_numpy(dtype=np.float64)


def known_quantiles(oof: pd.DataFrame) -> dict[str, list[float]]:
    """Method -> 1,001 quantiles of its score over the readable rows of an out-of-fold table."""
    readable = oof[oof["status"] == "ok"]
    methods = [m for m in METHODS if m != "energy" or ENERGY in oof]
    return {m: np.quantile(unlikeness(readable, m), _STEPS).tolist() for m in methods}


def with_unknown(
    frame: pd.DataFrame, method: str, quantiles: Mapping[str, Sequence[float]]
) -> pd.DataFrame:
    """The table with the scaled score in `prob_UNK`; other columns stay as they are.

    quantiles: As `known_quantiles` gives them.
    """
    if method not in quantiles:
        raise DataError(f"unknown={method}: only {', '.join(quantiles)} was fitted in this run")
    share = np.interp(unlikeness(frame, method), quantiles[method], _STEPS)
    edge = 1 - GIVEN_UP
    scaled = np.where(share <= edge, 0.5 * share / edge, 0.5 + 0.5 * (share - edge) / GIVEN_UP)
    return frame.assign(**{f"prob_{UNKNOWN}": np.clip(scaled, 0, 1)})  # 0.95 is no float
