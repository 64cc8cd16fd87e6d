"""What a stack is fitted on: its parts as objects, its rows, and rows as predictions again.

Unit: row = sample of the split, and of the test set where every image run predicted it.
Trap: a row that trains in every fold has no out-of-fold score; see `stack_rows`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import first_five
from isic.features.family import Family
from isic.features.image_scores import (
    ScoreColumn,
    input_status,
    score_columns,
    with_scores,
)
from isic.index.schema import Index, sample_rows
from isic.metrics import Metric
from isic.predictions.table import classes_of, prob_columns
from isic.split.options import Split
from isic.split.split_file import HELD_OUT, TRAINS
from isic.stack import Plan
from isic.stack.feature_inputs import Selector, needed_columns
from isic.stack.inputs import Samples
from isic.stack.scores import ImageRuns
from isic.stack.stackers import Maker

log = logging.getLogger(__name__)

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Request:
    """What is fitted.

    nodes: The config nodes of `families`.
    """

    config: Mapping[str, Any]
    index: Index
    split: Split
    runs: ImageRuns
    families: Mapping[str, Family]
    nodes: Mapping[str, Any]
    makers: Mapping[str, Maker]
    selector: Selector | None
    metrics: Mapping[str, Metric]
    plan: Plan
    folder: Path
    cache_root: Path


def stack_rows(request: Request) -> tuple[pd.DataFrame, Samples]:
    """The samples of split and test set with their image scores; and who trains.

    With image runs only rows with an out-of-fold score train: those that train in every fold (-2)
    have none, and a stacker would learn what a missing score says. Without runs the same goes for
    the columns that every validating row has.
    """
    index, runs = request.index, request.runs
    samples = sample_rows(index)
    tested = (samples["split"] == "test") & (runs.test or not runs.folders)
    kept = samples["image_id"].isin(request.split.table["image_id"]) | tested
    rows = samples[kept].merge(request.split.table, on="image_id", how="left")
    rows["fold"] = rows["fold"].fillna(HELD_OUT).astype("int64")
    rows["group"] = rows["group"].fillna("").astype(str)
    rows["patient_id"] = patients_apart(rows)
    validates = (rows["fold"] >= 0).to_numpy()
    everywhere = (rows["fold"] == TRAINS).to_numpy()
    if runs.folders:
        required = validates | (rows["split"] == "test").to_numpy()
        rows = with_scores(rows, runs.tables, required=required)
        rows["status"] = input_status(rows["image_id"], runs.tables)
        # of a row that no run could read a stacker would learn what a missing score says
        trains, lack = validates & (rows["status"] == "ok").to_numpy(), "no score"
        if unread := (rows["image_id"][validates & ~trains]).tolist():
            log.warning(
                "%d rows that no run could read train nothing, and keep their status: %s",
                *(len(unread), first_five(unread)),
            )
    else:
        rows["status"] = "ok"  # of features that need no image
        whole = _whole_rows(request.families, rows, validates)
        trains, lack = validates | (everywhere & whole), "not the columns that all others have"
    if without := int((everywhere & ~trains).sum()):
        log.warning("%d rows that train in every fold have %s and are left out", without, lack)
    target = np.asarray(rows["target"].astype("Int64").fillna(-1), dtype=np.int64)
    weight = rows["weight"].fillna(1.0).to_numpy("float64") if "weight" in rows else None
    table = rows[["group", "fold"]]
    return rows, Samples(table, target, index.info.classes, trains, weight)


def patients_apart(rows: pd.DataFrame) -> pd.Series:
    """Patient ids, other ones for test rows of patients who have train rows too.

    A saved stack sees test rows alone: a patient's context must be the same there and here.
    """
    patient, test = rows["patient_id"], rows["split"] == "test"
    shared = test & patient.notna() & patient.isin(patient[~test])
    if shared.any():
        log.warning("%d test rows are of patients with train rows: apart in features", shared.sum())
    return patient.mask(shared, patient.astype("string") + " (test)")


def _whole_rows(families: Mapping[str, Family], rows: pd.DataFrame, validates: Bools) -> Bools:
    """Which rows have every column that features need and no validating row lacks."""
    known = rows[needed_columns(families, rows)].notna()
    always = known.columns[known[validates].all()]
    return known[always].all(axis=1).to_numpy()


def with_score_columns(request: Request, names: Sequence[str]) -> Plan:
    """The plan, knowing which features are image scores and which were made of them."""
    columns = run_scores(request)
    scores = tuple(name for name in names if name in columns)
    return replace(
        request.plan,
        scores=scores,
        score_classes=tuple(columns[name].class_name for name in scores),
        noisy=frozenset(name for name in names if name.startswith(tuple(columns))),
    )


def run_scores(request: Request) -> dict[str, ScoreColumn]:
    """Map each column to the run and the class whose probability it holds."""
    tables = request.runs.tables
    return score_columns({run: classes_of(table) for run, table in tables.items()})


def predictions(rows: pd.DataFrame, probs: Floats, classes: tuple[str, ...]) -> pd.DataFrame:
    """A predictions table of some rows; one that no image run could read has its status and NaN."""
    frame = rows[["image_id", "lesion_id", "fold", "split", "status"]].reset_index(drop=True)
    frame["fold"] = frame["fold"].astype("Int64").mask(frame["split"] == "test")
    ok = (frame["status"] == "ok").to_numpy()
    frame[prob_columns(classes)] = np.where(ok[:, None], probs, np.nan)
    return frame
