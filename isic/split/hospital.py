"""Leave one hospital out: each value of `attribution` with two classes is a fold.

Source: the gap between cross-validation and leaderboard that ISIC 2024's solutions report (4th:
0.187 in folds, 0.172 private), which folds by patient do not show.
Rows of other hospitals, or of none, train in every fold (-2). Unit: row = labelled train sample.
Trap: a patient may be seen in two hospitals; the whole group goes where most of its rows are.
"""

import logging

import numpy as np
import pandas as pd

from isic.errors import DataError, first_five
from isic.index.id_spellings import fault_of
from isic.index.schema import raise_faults
from isic.split.split_file import TRAINS

log = logging.getLogger(__name__)

ATTRIBUTION = "attribution"


def hospital_folds(rows: pd.DataFrame, group: pd.Series) -> pd.Series:
    """The fold of each row, hospitals in the order of their names; -2 where there is none.

    group: Name of each row's group, on index labels that include those of `rows`.

    Raises:
        DataError: Fewer than two hospitals have rows of two classes.
    """
    place = rows[ATTRIBUTION].astype("string").str.strip()
    place = place.mask(place == "").rename("place")
    names = _with_two_classes(rows, place)
    while True:
        home = _home(place.where(place.isin(names)), group.loc[rows.index])
        # Where groups go elsewhere, a hospital may be left with one class: it is none then.
        left = [n for n in _with_two_classes(rows, home) if n in names]
        if left == names:
            break
        names = left
    if len(names) < 2:
        found = first_five(f"{n} ({c} rows)" for n, c in place.value_counts().sort_index().items())
        raise DataError(
            f"folds by hospital need two attributions with two classes each, got {len(names)}; "
            f"attributions of {len(rows)} labelled rows: {found or 'none'}. Use folds=grouped."
        )
    _say(rows, place, home, names)
    number = {name: i for i, name in enumerate(names)}
    fold = home.map(number).astype("Float64").fillna(TRAINS).astype(np.int64)
    return fold.rename("fold")


def refuse_spellings(rows: pd.DataFrame, ids: str | None) -> None:
    """Raise DataError where one hospital has two spellings and `data.index.ids` says nothing."""
    if ids is None:
        faults = fault_of(ATTRIBUTION, [rows[ATTRIBUTION]])
        raise_faults(faults, where="folds by hospital", next_step="Or correct the column.")


def _with_two_classes(rows: pd.DataFrame, place: pd.Series) -> list[str]:
    classes = rows["target"].groupby(place).nunique()
    return sorted(str(name) for name in classes.index[classes >= 2])


def _home(place: pd.Series, group: pd.Series) -> pd.Series:
    """The hospital of each row's group: where most of its rows are, the first by name of equals."""
    frame = pd.DataFrame({"group": group, "place": place}).dropna()
    counts = frame.value_counts(["group", "place"]).rename("n").reset_index()
    counts = counts.sort_values(["group", "n", "place"], ascending=[True, False, True])
    home = counts.drop_duplicates("group").set_index("group")["place"]
    return group.map(home).astype("string").rename("place")


def _say(rows: pd.DataFrame, place: pd.Series, home: pd.Series, names: list[str]) -> None:
    """Name the hospital of each fold, who trains everywhere, and who was moved."""
    for i, name in enumerate(names):
        inside = home == name
        log.info("fold %d: %d rows of %s", i, int(inside.sum()), name)
    everywhere = home.isna()
    if everywhere.any():
        named = first_five(place[everywhere].fillna("unknown").unique())
        log.info("in every training: %d rows of %s", int(everywhere.sum()), named)
    moved = home.notna() & (place != home).fillna(True)
    if moved.any():
        log.warning(
            "%d rows are of groups (patients, lesions) with more rows in another hospital, and go "
            "there: %s", int(moved.sum()), first_five(rows["image_id"][moved]),
        )  # fmt: skip
