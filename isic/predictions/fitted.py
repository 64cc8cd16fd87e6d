"""What is fitted on all out-of-fold rows of a run, kept in `runs/<name>/thresholds.json`.

Thresholds a class (of the probabilities as they are, and of the tempered ones), the temperature,
and the quantiles that scale an unknown class. `assemble_run` writes it, `predict.py` applies it.
Unit: one file a run, with the run's name and the hashes of split and archive.
Trap: it was fitted on single models' rows; what it is worth is said by the nested numbers of
`score.json`, never by applying it to the rows that it was fitted on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isic.checksums import Damaged, read_json, sealed_json
from isic.config.shapes import Misshapen, check_shape
from isic.errors import DataError
from isic.files import write_text
from isic.metrics import Metric
from isic.metrics.chance import deals
from isic.predictions.table import (
    classes_of,
    prob_columns,
    probabilities,
    with_fallback,
)
from isic.predictions.temperature import fit_temperature, of_softmax, tempered
from isic.predictions.thresholds import argmax_folded, fit_thresholds, folded, nested_thresholds
from isic.predictions.unknown import known_quantiles, unknown_class, with_unknown

FILE = "thresholds.json"
SHAPE = {
    "run": str,
    "split_hash": str,
    "index_hash": str,
    "rows": int,
    "positives": {str: int},
    "thresholds": {str: float},
    "tempered_thresholds": {str: float},
    "temperature": float,
    "softmax": bool,
    "unknown": {str: [float]},
}


@dataclass(frozen=True)
class Fitted:
    """One run's thresholds, temperature and quantiles; `positives` says what they stand on.

    thresholds, tempered_thresholds, positives: By class name.
    unknown: Method -> quantiles (`known_quantiles`); empty where no class is unknown.
    """

    run: str
    split_hash: str
    index_hash: str
    rows: int
    positives: dict[str, int]
    thresholds: dict[str, float]
    tempered_thresholds: dict[str, float]
    temperature: float
    softmax: bool
    unknown: dict[str, list[float]]

    def write(self, folder: Path) -> Path:
        """Write `thresholds.json` whole or not at all."""
        path = folder / FILE
        write_text(path, sealed_json(asdict(self), indent=1))
        return path

    @classmethod
    def read(cls, folder: Path) -> "Fitted":
        """Read a run's file.

        Raises:
            DataError: It is not there, or holds something else.
        """
        path = folder / FILE
        try:
            plain = read_json(path)
            check_shape(plain, SHAPE)
            if plain["temperature"] <= 0:
                raise Misshapen(f"temperature: expected above 0, got {plain['temperature']}")
            return cls(**plain)
        except Damaged:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"no fit to out-of-fold rows at {path} ({error}): expected a run whose folds are "
                "all finished; give the train.py command of its last fold again with its "
                "score.json deleted, or `python -m isic runs`"
            ) from None


def fit_to(oof: pd.DataFrame, target: pd.Series) -> Fitted:
    """Fit everything to labelled out-of-fold rows.

    oof: As `assemble_oof` gives it. target: Class number of each row, in the same order.
    """
    labelled = (target.notna() & (oof["status"] != "missing").to_numpy()).to_numpy(dtype=bool)
    known = with_fallback(oof[labelled])
    labels, probs = target[labelled].to_numpy(dtype=np.int64), probabilities(known)
    classes, softmax = classes_of(known), of_softmax(probs)
    temperature = fit_temperature(labels, probs, softmax=softmax)
    scaled = tempered(probs, temperature, softmax=softmax)
    counts = np.bincount(labels, minlength=len(classes))
    unknown = unknown_class(classes, pd.Series(labels))
    return Fitted(
        run=str(oof.attrs.get("run")),
        split_hash=str(oof.attrs.get("split_hash")),
        index_hash=str(oof.attrs.get("index_hash")),
        rows=len(labels),
        positives=dict(zip(classes, counts.tolist(), strict=True)),
        thresholds=dict(zip(classes, fit_thresholds(labels, probs).tolist(), strict=True)),
        tempered_thresholds=dict(
            zip(classes, fit_thresholds(labels, scaled).tolist(), strict=True)
        ),
        temperature=temperature,
        softmax=softmax,
        unknown=known_quantiles(known) if unknown else {},
    )


def nested_decided(joined: pd.DataFrame) -> pd.DataFrame:
    """Out-of-fold rows with `target`, those of a fold folded by the other folds' thresholds."""
    filled = with_fallback(joined)
    use = (filled["target"].notna() & (filled["status"] != "missing")).to_numpy(dtype=bool)
    rows = filled[use]
    target, fold = (rows[c].to_numpy(dtype=np.int64) for c in ("target", "fold"))
    return _with(rows, nested_thresholds(target, probabilities(rows), fold))


def nested_chance(
    joined: pd.DataFrame, metrics: Mapping[str, Metric], *, n_deals: int = 5, seed: int = 0
) -> dict[str, float]:
    """Each metric of `nested_decided` where the probabilities know nothing: name -> mean of deals.

    The probabilities of a fold's rows go to other rows of that fold, and thresholds are fitted to
    them anew, by fewer resamples: with 10 or 50 of them the level is the same within 0.002.
    """
    filled = with_fallback(joined)
    use = (filled["target"].notna() & (filled["status"] != "missing")).to_numpy(dtype=bool)
    rows = filled[use]
    target, fold = (rows[c].to_numpy(dtype=np.int64) for c in ("target", "fold"))
    probs, values = probabilities(rows), dict[str, list[float]]()
    for order in deals(fold, n_deals=n_deals, seed=seed):
        decided_probs = nested_thresholds(target, probs[order], fold, n_resamples=10)
        for name, metric in metrics.items():
            values.setdefault(name, []).append(metric(target, decided_probs))
    return {name: float(np.mean(of_deals)) for name, of_deals in values.items()}


def calibrated(frame: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    """The table with tempered probabilities."""
    probs = tempered(probabilities(frame), fitted.temperature, softmax=fitted.softmax)
    return _with(frame, probs)


def decided(
    frame: pd.DataFrame, how: str, thresholds: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The table as a scorer that cuts at 0.5 should see it; unreadable rows have the mean first.

    how: `thresholds` folds each class at its own, `argmax` leaves one class a row over 0.5,
        `none` changes nothing.
    """
    if how == "none":
        return frame
    filled = with_fallback(frame)
    probs = probabilities(filled)
    if how == "argmax":
        return _with(filled, argmax_folded(probs))
    assert thresholds is not None
    return _with(filled, folded(probs, [thresholds[name] for name in classes_of(filled)]))


def unknown_scored(frame: pd.DataFrame, method: str, fitted: Fitted) -> pd.DataFrame:
    """The table with the score of the unknown class; `none` changes nothing."""
    return frame if method == "none" else with_unknown(frame, method, fitted.unknown)


def _with(frame: pd.DataFrame, probs: np.ndarray) -> pd.DataFrame:
    """The table with other probabilities, (N, C)."""
    names = prob_columns(classes_of(frame))
    return frame.assign(**{name: probs[:, i] for i, name in enumerate(names)})
