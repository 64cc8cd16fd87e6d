"""How a stack travels: fitted once more with each hospital left out, and scored there.

Source: the gap between folds and leaderboard of ISIC 2024, whose test set has other hospitals.
Unit: row = sample of a hospital with two classes; the others train everywhere.
Trap: only the stackers leave the hospital out. The image scores come from the folds of the image
runs, which saw other patients of it; image models that leave it out are trained with
folds=hospital, and stacked on that split.
"""

import logging
from typing import Any

import numpy as np
import pandas as pd

from isic.assemble import with_targets
from isic.predictions import score
from isic.split.hospital import ATTRIBUTION, hospital_folds, refuse_spellings
from isic.split.split_file import HELD_OUT, TRAINS
from isic.stack import Plan, cross_fit
from isic.stack.feature_inputs import fold_inputs
from isic.stack.inputs import Samples
from isic.stages.stack_rows import Request, predictions, run_scores

log = logging.getLogger(__name__)


def without_hospitals(rows: pd.DataFrame, samples: Samples, *, ids: str | None) -> Samples:
    """The samples with a fold a hospital.

    ids: Of the index: how spellings of one hospital are taken.

    Raises:
        DataError: Fewer than two hospitals with rows of two classes, or one in two spellings.
    """
    refuse_spellings(rows, ids)
    validates = rows.index[(rows["fold"] >= 0) & (samples.target >= 0)]
    fold = pd.Series(HELD_OUT, index=rows.index)
    fold.loc[validates] = hospital_folds(rows.loc[validates], rows["group"])
    return Samples(
        rows[["group"]].assign(fold=fold.to_numpy()),
        samples.target,
        samples.classes,
        (fold >= TRAINS).to_numpy(),
        samples.weight,
    )


def hospital_scores(
    request: Request, rows: pd.DataFrame, left: Samples, plan: Plan
) -> dict[str, Any]:
    """`metrics` over all hospitals' rows, and `by_hospital`: rows and the first metric of each.

    left: From `without_hospitals`.
    """
    inputs, _ = fold_inputs(
        request.families, rows, left, left.folds, info=request.index.info,
        cache_root=request.cache_root, selector=request.selector, always=set(run_scores(request)),
    )  # fmt: skip
    result = cross_fit(left, inputs, request.makers, plan)
    fold = left.table["fold"].to_numpy()
    shown = fold >= 0
    frame = predictions(rows[shown], result.oof[shown], left.classes)
    joined = with_targets(frame, request.index)
    whole = score(joined, classes=left.classes, metrics=request.metrics)
    place = fold[shown]
    by_hospital = {}
    name, metric = next(iter(request.metrics.items()))
    for number in left.folds:
        part = joined[place == number]
        most = rows[ATTRIBUTION][fold == number].mode().iat[0]
        alone = score(part, classes=left.classes, metrics={name: metric})
        key = str(most) if str(most) not in by_hospital else f"{most} (fold {number})"
        by_hospital[key] = {"n": len(part), name: alone["metrics"][name]}
    log.info(
        "hospitals left out in turn: %s",
        ", ".join(f"{h} {v[name]['value']:.4f} (n={v['n']})" for h, v in by_hospital.items()),
    )
    return {"metrics": whole["metrics"], "n": int(np.sum(shown)), "by_hospital": by_hospital}
