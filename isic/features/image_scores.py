"""Out-of-fold scores of image models as columns of the samples, and as features.

`with_scores` puts them beside the samples: `score_<run>` = P(last class) of a binary archive,
`score_<run>_<class>` otherwise, a column each whatever the names hold (`score_columns`). Train rows
need out-of-fold predictions, test rows the run's test predictions. Everything after that is a
matter of columns: `ImageScores` takes them as they are, `PatientContext(columns=["score_*"])`
divides them by the patient's mean, and `GroupContext` makes z-scores in groups of hospital, place
and age.
Trap: a score of a model that trained on the row is near its label; give out-of-fold tables only
(`isic.predictions.store.assemble_oof` checks that they are).
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import DataError, first_five
from isic.features.family import State, frame_of, number
from isic.features.naming import ascii_name, plain_name, unique_names
from isic.features.patient_context import resolve
from isic.predictions.table import STATUSES, classes_of

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
        columns = self.needs(list(rows.columns))
        names = unique_names([ascii_name(c) for c in columns], columns)
        return frame_of(
            {name: number(rows, c) for name, c in zip(names, columns, strict=True)}, rows
        )

    def sources(
        self, available: Sequence[str], kept: Collection[str], state: State
    ) -> tuple[str, ...]:
        """The columns that the features `kept` are made of."""
        columns = self.needs(available)
        names = unique_names([ascii_name(c) for c in columns], columns)
        return tuple(c for c, name in zip(columns, names, strict=True) if name in kept)


class ScoreColumn(NamedTuple):
    """Meaning of a column `score_*`: the probability of a class by a run."""

    run: str
    class_name: str


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
        DataError: A required row without a score, a row predicted twice, a column of the table that
            has the name of a score, other classes, or no row in common.
    """
    needed = np.ones(len(samples), bool) if required is None else required
    probs: dict[str, pd.DataFrame] = {}
    for run, frame in predictions.items():
        _check_rows(run, samples, frame, needed)
        probs[run] = frame.set_index("image_id").reindex(samples["image_id"])
    made = score_columns({run: classes_of(frame) for run, frame in predictions.items()})
    if shared := [name for name in made if name in samples]:
        raise DataError(
            f"features: the table has a column {first_five(shared)}, which is the name of the "
            f"scores of run {made[shared[0]].run}; rename the column, or the run"
        )
    columns = {
        name: probs[run][f"prob_{label}"].to_numpy(np.float64)
        for name, (run, label) in made.items()
    }
    return pd.concat([samples, pd.DataFrame(columns, index=samples.index)], axis=1)


def score_columns(runs: Mapping[str, Sequence[str]]) -> dict[str, ScoreColumn]:
    """Name each score of some runs: column -> run and class, run by run, each name once.

    Of two classes the last one's probability says all. Names that differ in more than letters and
    digits stay as they are; of those that do not, see `isic.features.naming`.

    runs: Run -> its classes.
    """
    short = dict(zip(runs, unique_names([plain_name(r) for r in runs], list(runs)), strict=True))
    names, columns = [], []
    for run, classes in runs.items():
        if len(classes) == 2:
            names.append(f"{SCORE}{short[run]}")
            columns.append(ScoreColumn(run, classes[-1]))
            continue
        ends = unique_names([plain_name(c) for c in classes], classes)
        names += [f"{SCORE}{short[run]}_{end}" for end in ends]
        columns += [ScoreColumn(run, c) for c in classes]
    # run `a` with class `b_c`, and run `a_b` with class `c`
    unique = unique_names(names, ["\n".join(c) for c in columns])
    return dict(zip(unique, columns, strict=True))


def shared_scores(classes: Sequence[str]) -> list[str]:
    """Name the classes that releases before this one gave a single column; empty: none."""
    short = [plain_name(c) for c in classes]
    return [c for c, name in zip(classes, short, strict=True) if short.count(name) > 1]


def input_status(
    image_ids: pd.Series, predictions: Mapping[str, pd.DataFrame]
) -> npt.NDArray[np.object_]:
    """Return the status of each sample, (N,): the best that any run gives it.

    `ok` where a run could read the image, else `unreadable`, else `missing`, as `ensemble` has it.
    """
    best = np.full(len(image_ids), len(STATUSES) - 1)
    for frame in predictions.values():
        place = frame["status"].map({status: i for i, status in enumerate(STATUSES)})
        place = pd.Series(place.to_numpy(), index=frame["image_id"])
        given = place.reindex(image_ids).fillna(len(STATUSES) - 1)
        best = np.minimum(best, given.to_numpy(np.int64))
    status: npt.NDArray[np.object_] = np.array(STATUSES, dtype=object)[best]
    return status


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


def reads_scores(node: Mapping[str, Any]) -> bool:
    """Return whether a family is made of the scores of image runs."""
    return any(c.startswith(SCORE) for c in node.get("columns") or ())
