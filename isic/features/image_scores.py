"""Out-of-fold scores of image models as columns of the samples, and as features.

`with_scores` puts them beside the samples: `score_<run>` = P(last class) of a binary archive,
`score_<run>_<class>` otherwise. Train rows need out-of-fold predictions, test rows the run's test
predictions. Everything after that is a matter of columns: `ImageScores` takes them as they are,
`PatientContext(columns=["score_*"])` divides them by the patient's mean, and `GroupContext` makes
z-scores in groups of hospital, place and age.
Trap: a score of a model that trained on the row is near its label; give out-of-fold tables only
(`isic.predictions.store.assemble_oof` checks that they are).
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import DataError, first_five
from isic.features.family import State, frame_of, number
from isic.features.patient_context import resolve
from isic.predictions.table import classes_of

log = logging.getLogger(__name__)

SCORE = "score_"


@dataclass(frozen=True)
class ImageScores:
    """Columns `score_*` as they are.

    columns: Patterns of columns; one that stands for none is an error.
    """

    columns: Sequence[str] = (f"{SCORE}*",)

    name: ClassVar[str] = "image_scores"
    learns: ClassVar[bool] = False

    def needs(self, available: Sequence[str]) -> tuple[str, ...]:
        """The columns of scores."""
        return tuple(resolve(self.columns, available))

    def fit(self, rows: pd.DataFrame) -> State:
        """Nothing."""
        return {}

    def transform(self, rows: pd.DataFrame, state: State) -> pd.DataFrame:
        """Features (N, runs), or (N, runs x classes)."""
        return frame_of({c: number(rows, c) for c in self.needs(list(rows.columns))}, rows)


def with_scores(
    samples: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
    *,
    required: npt.NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """The samples with columns `score_*` of every run; a row that has none is NaN.

    predictions: Run's name -> predictions tables (out-of-fold and test rows in one).
    required: (N,) rows that must have a score; None: all of them.

    Raises:
        DataError: A required row without a score, a row predicted twice, runs whose names make one
            column, other classes, or no row in common.
    """
    needed = np.ones(len(samples), bool) if required is None else required
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for run, frame in predictions.items():
        _check_rows(run, samples, frame, needed)
        probs = frame.set_index("image_id").reindex(samples["image_id"])
        made = {name: probs[f"prob_{c}"].to_numpy(np.float64) for name, c in _names(run, frame)}
        if shared := [name for name in made if name in columns or name in samples]:
            raise DataError(f"features: {first_five(shared)} is there already; rename run {run}")
        columns |= made
    return pd.concat([samples, pd.DataFrame(columns, index=samples.index)], axis=1)


def _names(run: str, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Name of the column and class, for each column that a run gives."""
    classes, run = classes_of(frame), re.sub(r"[^A-Za-z0-9]+", "_", run)
    if len(classes) == 2:
        return [(f"{SCORE}{run}", classes[-1])]
    return [(f"{SCORE}{run}_{re.sub(r'[^A-Za-z0-9]+', '_', c)}", c) for c in classes]


def _check_rows(
    run: str, samples: pd.DataFrame, frame: pd.DataFrame, needed: npt.NDArray[np.bool_]
) -> None:
    ids = frame["image_id"]
    if ids.duplicated().any():
        raise DataError(
            f"features: run {run} predicts {int(ids.duplicated().sum())} rows twice: "
            f"{first_five(ids[ids.duplicated()])}; give out-of-fold and test rows once each"
        )
    found = samples["image_id"].isin(ids).to_numpy()
    if not found.any():
        raise DataError(
            f"features: run {run} predicts none of the {len(samples)} samples; "
            f"it has {first_five(ids)}: of another archive?"
        )
    if (needed & ~found).any():
        raise DataError(
            f"features: run {run} has no score for {int((needed & ~found).sum())} samples: "
            f"{first_five(samples['image_id'][needed & ~found])}; finish all its folds"
        )
    if not found.all():
        log.info("features: run %s has no score for %d samples: missing", run, int((~found).sum()))
