"""Fit a stack whose parts are there, and write all that it is: predictions, score, models.

| file | holds |
|---|---|
| `oof.parquet`, `test.parquet`, `submission.csv` | as of an image run |
| `score.json`, `curves/` | scores with intervals, of each seed alone, by hospital where asked |
| `importance.csv`, `importance.png` | gain and mean SHAP of each feature |
| `kept.txt` | the features used, and in how many folds |
| `stack.json`, `models/` | what `predict.py stack=` applies (`isic.stack.manifest`) |
"""

import logging
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.assemble import (
    calibration,
    check_sample,
    decided_scores,
    score_predictions,
    submit,
    with_targets,
)
from isic.audit.cautions import pseudo_cautions, shortcut_cautions
from isic.dashboard import publish
from isic.files import write_text
from isic.index.in_test import differences
from isic.index.schema import index_hash
from isic.index.unread_cells import refuse_unread
from isic.predictions import read_predictions, score, write_predictions, write_score
from isic.predictions.fitted import fit_to
from isic.predictions.origin import with_images
from isic.predictions.table import TARGET
from isic.report.importance import write_importance
from isic.split.split_file import HELD_OUT
from isic.stack import CrossFit, Plan, cross_fit
from isic.stack.feature_inputs import States, category_columns, fold_inputs, needed_columns
from isic.stack.importance import importance_table
from isic.stack.inputs import Fold, FoldInputs, Samples
from isic.stack.manifest import save_stack
from isic.stack.stackers import rank_stackers
from isic.stages.stack_baseline import inputs_alone, worse_than_inputs
from isic.stages.stack_hospitals import hospital_scores, without_hospitals
from isic.stages.stack_reliance import (
    Families,
    alike,
    blank_warnings,
    reliance,
    reliance_warnings,
)
from isic.stages.stack_rows import (
    Request,
    predictions,
    run_scores,
    stack_rows,
    with_score_columns,
)

log = logging.getLogger(__name__)

EXPLAINED = 500  # held-out rows a model, alike of each class, that SHAP values are averaged over


def fit_and_write(request: Request, *, begin: Callable[[], None]) -> None:
    """Everything of a stack; the score comes last.

    begin: Takes the folder, once rows and features are there: what is refused leaves none.
    """
    started = time.perf_counter()
    rows, samples = stack_rows(request)
    refuse_unread(request.index, needed_columns(request.families, rows), key="features")
    if (rows["split"] == "test").any():
        check_sample(request.index, by_images=False)
    ids = request.index.ids
    left = without_hospitals(rows, samples, ids=ids) if request.config["hospitals"] else None
    refit = bool(request.config["refit"])
    folds: list[Fold] = [*samples.folds, *(["all"] if refit else [])]
    inputs, states = fold_inputs(
        request.families, rows, samples, folds, info=request.index.info,
        cache_root=request.cache_root, selector=request.selector, always=set(run_scores(request)),
    )  # fmt: skip
    plan = with_score_columns(request, inputs[folds[0]].names)
    begin()
    parts = Families(request.families, rows, inputs, states)
    warnings = _cautions(request, rows, parts)
    _announce(request, samples, parts, plan, started)
    for warning in warnings:
        log.warning("%s", warning)
    test_rows = np.flatnonzero((rows["split"] == "test").to_numpy())
    result = cross_fit(samples, inputs, request.makers, plan, test_rows=test_rows, refit=refit)
    _write_predictions(request, rows, result, test_rows)
    _write_models(request, result, inputs, states)
    _write_features(request, result, inputs, samples, plan)
    scored = _score(request, rows, samples, result)
    told = reliance(request, samples, inputs, result, parts)
    late = reliance_warnings(request, rows, inputs, parts, told)
    late += worse_than_inputs(request, scored.get("inputs_alone", {}))
    for warning in late:
        log.warning("%s", warning)
    scored |= {"features": parts.plain(), "reliance": told, "warnings": [*warnings, *late]}
    if left is not None:
        scored["hospitals"] = hospital_scores(request, rows, left, plan)
    scored["seconds"] = round(time.perf_counter() - started, 2)
    options = request.config["logger"]["wandb"]
    if options and options.get("job_type") == "train":  # the default of conf/logger
        options = {**options, "job_type": None}
    publish(
        request.folder, options, name=request.config["name"], config=request.config,
        result=scored, job_type="stack",
    )  # fmt: skip
    write_score(request.folder / "score.json", scored)  # a killed one is published again, as one


def _cautions(request: Request, rows: pd.DataFrame, parts: Families) -> list[str]:
    """What the score must be read with: what its image runs say of theirs, and its own features."""
    own = [c for c in parts.columns() if c not in run_scores(request)]
    texts = [c for c in category_columns(request.families, rows) if c in own]
    trained = rows[rows["fold"] != HELD_OUT]
    return [
        *request.runs.warnings,
        *blank_warnings(parts, rows),
        *differences(rows, own, texts=texts, key="features"),
        *shortcut_cautions(request.index, rows, own, key="features"),
        *([] if request.runs.folders else pseudo_cautions(trained)),
    ]


def _announce(
    request: Request, samples: Samples, parts: Families, plan: Plan, started: float
) -> None:
    """What is fitted, in plain words."""
    target = samples.target[samples.target >= 0]
    counts = np.bincount(target, minlength=len(samples.classes))
    named = ", ".join(f"{n} {c}" for n, c in zip(counts, samples.classes, strict=True))
    log.info("stack   %s", request.folder)
    log.info("rows    %d labelled (%s), split %s", len(target), named, request.split.path)
    log.info("runs    %s", ", ".join(request.runs.folders) or "none")
    n_used = sum(map(len, parts.used.values()))
    seconds = time.perf_counter() - started
    log.info("known   %d features (%s), %.1f s", n_used, parts.text(), seconds)
    log.info(
        "models  %s, %d folds x %d seeds, %s, %d at once",
        *(", ".join(request.makers), len(samples.folds), len(plan.seeds)),
        *(plan.combine, plan.n_jobs),
    )


def gives_ranks(request: Request) -> bool:
    """Whether what comes out is right in its order only: no probability to cut or to temper."""
    return request.plan.combine == "rank_mean" or rank_stackers(request.config["stacker"]) != []


def _write_predictions(
    request: Request, rows: pd.DataFrame, result: CrossFit, test_rows: npt.NDArray[np.int64]
) -> None:
    """`oof.parquet`, and of test rows `test.parquet` and `submission.csv`."""
    classes, folder = request.index.info.classes, request.folder
    about: dict[str, Any] = {
        "run": request.config["name"],
        "index_hash": index_hash(request.index.table),
        "split_hash": request.split.hash,
        "split_file": request.split.path,
        "ranks": gives_ranks(request),
    }
    held_out = (rows["fold"] >= 0).to_numpy()
    frame = predictions(rows[held_out], result.oof[held_out], classes)
    frame = with_images(frame, rows[held_out], request.index)
    frame[TARGET] = rows["target"][held_out].to_numpy()
    write_predictions(folder / "oof.parquet", frame, **about)
    if result.test is not None:
        frame = predictions(rows.iloc[test_rows], result.test, classes)
        frame = with_images(frame, rows.iloc[test_rows], request.index)
        write_predictions(folder / "test.parquet", frame, **about)
        submit(folder / "submission.csv", frame, request.index)
        log.info("submission: %s", folder / "submission.csv")


def _write_models(
    request: Request,
    result: CrossFit,
    inputs: Mapping[Fold, FoldInputs],
    states: Mapping[Fold, States],
) -> None:
    """`stack.json` and `models/`, unless a stacker has no text format."""
    odd = sorted({task.stacker for task, model in result.models.items() if not model.kind})
    if odd:
        log.warning("%s: no text format, so the models are not kept", ", ".join(odd))
        return
    config = request.config
    save_stack(
        request.folder,
        result.models,
        columns={fold: source.columns for fold, source in inputs.items()},
        states=states,
        about={
            "name": config["name"],
            "classes": list(request.index.info.classes),
            "info": request.index.info.to_dict(),
            "combine": request.plan.combine,
            "ranks": gives_ranks(request),
            "runs": [
                {"run": name, "hash": request.runs.hashes[name]} for name in request.runs.folders
            ],
            "families": request.nodes,
            "scores": {name: list(column) for name, column in run_scores(request).items()},
            "data": {key: config["data"][key] for key in ("index", "root")},
            "paths": {"cwd": config["paths"].get("cwd")},
            "metrics": config["metrics"],
            "index_hash": index_hash(request.index.table),
            "split_hash": request.split.hash,
            "split_file": request.split.path.name,
        },
    )


def _write_features(
    request: Request,
    result: CrossFit,
    inputs: Mapping[Fold, FoldInputs],
    samples: Samples,
    plan: Plan,
) -> None:
    """`kept.txt` and importances, of models on rows that they did not see."""
    counted = pd.Series([c for source in inputs.values() for c in source.columns]).value_counts()
    order = [n for n in next(iter(inputs.values())).names if n in counted.index]
    lines = [f"{name}\t{counted[name]}/{len(inputs)}" for name in order]
    write_text(request.folder / "kept.txt", "\n".join(lines) + "\n")
    number = samples.table["fold"].to_numpy()
    shown = []
    for task, model in result.models.items():
        if task.fold == "all":
            continue
        held_out = np.flatnonzero(number == task.fold)
        rows = alike(held_out, samples.target[held_out], most=EXPLAINED, seed=task.seed)
        shown.append((model, inputs[task.fold].columns, inputs[task.fold].take(rows)))
    write_importance(request.folder, importance_table(shown))


def _score(
    request: Request, rows: pd.DataFrame, samples: Samples, result: CrossFit
) -> dict[str, Any]:
    """The contents of `score.json`, but for the seconds."""
    folder, index, metrics = request.folder, request.index, request.metrics
    frame = read_predictions(folder / "oof.parquet")
    scored = score_predictions(frame, index, metrics, folder=folder / "curves")
    if alone := inputs_alone(request, rows, samples, frame):
        scored["inputs_alone"] = alone
    if not gives_ranks(request):
        scored["metrics"] |= decided_scores(frame, index, metrics)
        labelled = with_targets(frame, index)
        fit_to(frame, labelled["target"]).write(folder)
        scored["calibration"] = calibration(labelled)
    scored["seeds"] = _by_seed(request, rows, result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return scored | {
        "folds": len(samples.folds),
        "models": len(result.models),
        "images_per_second": 0.0,
        "peak_memory_mb": round(peak, 1),
        "selected_on_validation": request.runs.selected_on_validation,
    }


def _by_seed(request: Request, rows: pd.DataFrame, result: CrossFit) -> dict[str, Any]:
    """The first metric of each seed's models alone, their mean and deviation."""
    name, metric = next(iter(request.metrics.items()))
    held_out = (rows["fold"] >= 0).to_numpy()
    values = []
    for probs in result.by_seed.values():
        frame = predictions(rows[held_out], probs[held_out], request.index.info.classes)
        joined = with_targets(frame, request.index)
        alone = score(
            joined, classes=request.index.info.classes, metrics={name: metric}, n_replicates=2,
            chance=False,
        )  # fmt: skip
        values.append(alone["metrics"][name]["value"])
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"metric": name, "values": values, "mean": float(np.mean(values)), "std": spread}
