"""Every stacker on every fold by every seed: held-out rows and test rows predicted, models kept.

Rows of one training fold are drawn again inside it, held-out rows are never drawn. Fits run side by
side in threads, one thread each: boosters leave Python while they fit, and the matrix is shared. A
fit is a function of (stacker, fold, seed) alone and results are added in one order, so any number
of threads gives the same bits. Unit: row = sample.
Trap: a second thread inside a small fit is worth 1.1x, a second fit beside it nearly 2x.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from isic.errors import IsicError
from isic.stack.combine import Mean
from isic.stack.early import fit_stopped, inner_fold
from isic.stack.fitted import Fitted, fitted
from isic.stack.inputs import Fold, FoldInputs, Samples
from isic.stack.resample import Resample
from isic.stack.stackers import Maker, make, refuse_one_class

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """How a stack is fitted.

    seeds: One model a stacker, fold and seed.
    noise: Standard deviation of Gaussian noise on the `noisy` columns while training, in units of
        each column's own; image scores of test rows are means over folds, and so less sharp.
    scores: Names of the columns that are an image run's scores.
    score_classes: The class that each of `scores` is a probability of.
    noisy: Names of the columns that get noise: those, and what was made of them.
    combine: `mean` or `rank_mean` over models.
    early_stopping: Rounds without gain on a fifth of the training groups; None: all rounds.
    n_jobs: Fits side by side.
    """

    seeds: tuple[int, ...] = (0,)
    resample: Resample = field(default_factory=Resample)
    noise: float = 0.0
    scores: tuple[str, ...] = ()
    score_classes: tuple[str, ...] = ()
    noisy: frozenset[str] = frozenset()
    combine: str = "mean"
    early_stopping: int | None = None
    n_jobs: int = 1


@dataclass(frozen=True)
class Task:
    """One fit."""

    stacker: str
    fold: Fold
    seed: int


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What comes of it.

    oof: (N, C) mean over stackers and seeds of the held-out predictions; NaN where none was made.
    by_seed: The same of each seed alone.
    test: (M, C) mean over all models; None without test rows.
    models: In the order of tasks.
    """

    oof: Floats
    by_seed: dict[int, Floats]
    test: Floats | None
    models: dict[Task, Fitted]


def cross_fit(
    samples: Samples,
    inputs: Mapping[Fold, FoldInputs],
    makers: Mapping[str, Maker],
    plan: Plan,
    *,
    test_rows: Ints | None = None,
    refit: bool = False,
) -> CrossFit:
    """Fit and predict.

    inputs: Of each fold, and of `all` where `refit`; rows as in `samples`.
    makers: Name -> stacker.
    test_rows: Positions of the rows that every model predicts.
    refit: Fit on every row as well; test rows are then predicted by those models alone.

    Raises:
        DataError: A training fold of one class.
    """
    for fold in samples.folds:
        refuse_one_class(samples.target[samples.training(fold)], samples.classes, fold=fold)
    number, width = samples.table["fold"].to_numpy(), len(samples.classes)
    held_out: dict[tuple[str, int], Floats] = {}
    models: dict[Task, Fitted] = {}
    tested_rows = np.arange(0) if test_rows is None else test_rows
    test_mean = Mean(plan.combine, (len(tested_rows), width))

    def one(task: Task) -> tuple[Fitted, Floats, Floats | None]:
        source = inputs[task.fold]
        model = fit_one(task, source, samples, makers[task.stacker], plan)
        rows = np.flatnonzero(number == task.fold) if task.fold != "all" else np.arange(0)
        probs = model.predict_rows(source, rows)
        if not len(tested_rows) or (task.fold == "all") != refit:
            return model, probs, None
        return model, probs, model.predict_rows(source, tested_rows)

    tasks = plan_tasks(samples.folds, list(makers), plan.seeds, refit=refit)
    for task, (model, probs, tested) in _in_order(one, tasks, plan.n_jobs):
        models[task] = model
        if task.fold != "all":
            key = task.stacker, task.seed
            held_out.setdefault(key, np.full((len(number), width), np.nan))
            held_out[key][number == task.fold] = probs
        if tested is not None:
            test_mean.add(tested)
    by_seed = {s: _combined(held_out, plan.combine, [s]) for s in plan.seeds}
    oof = _combined(held_out, plan.combine, plan.seeds)
    return CrossFit(oof, by_seed, test_mean.value if len(tested_rows) else None, models)


def plan_tasks(
    folds: Sequence[int], stackers: Sequence[str], seeds: Sequence[int], *, refit: bool
) -> list[Task]:
    """Every fit, fold by fold."""
    every: list[Fold] = [*folds, *(["all"] if refit else [])]
    return [Task(name, fold, seed) for fold in every for seed in seeds for name in stackers]


def fit_one(task: Task, source: FoldInputs, samples: Samples, maker: Maker, plan: Plan) -> Fitted:
    """One model, of rows drawn inside its training fold."""
    rng = np.random.default_rng([task.seed, 10**6 if task.fold == "all" else int(task.fold)])
    rows = samples.training(task.fold)
    present, code = np.unique(samples.target[rows], return_inverse=True)
    estimator = make(
        maker,
        seed=task.seed,
        columns=source.columns,
        scores=plan.scores,
        score_classes=plan.score_classes,
        classes=samples.classes,
    )
    stopping: Ints | None = None
    if plan.early_stopping is not None:
        inner = inner_fold(samples.table["group"].to_numpy()[rows], code, seed=task.seed)
        stopping, rows, code = rows[inner], rows[~inner], code[~inner]
    drawn = plan.resample.rows(code, rng)
    rows, code = rows[drawn], code[drawn]
    matrix = source.take(rows)
    add_noise(matrix, source.columns, plan, rng)
    weight = None if samples.weight is None else samples.weight[rows]
    with said_by(task):
        if stopping is None:
            estimator.fit(matrix, code, sample_weight=weight)
        else:
            # classes that only the inner fold has would be unknown labels: `inner_fold` leaves none
            aside = np.searchsorted(present, samples.target[stopping])
            fit_stopped(
                estimator, matrix, code, weight,
                held_out=(source.take(stopping), aside), rounds=plan.early_stopping or 0,
            )  # fmt: skip
    return fitted(estimator, present, n_classes=len(samples.classes))


@contextmanager
def said_by(task: Task) -> Iterator[None]:
    """Name the stacker whose library refuses: most often a parameter of its yaml."""
    try:
        yield
    except (IsicError, MemoryError):
        raise
    except Exception as fault:  # each library raises its own
        raise IsicError(
            f"stacker={task.stacker} cannot be fitted on fold {task.fold}: {fault}; look at "
            f"stacker.{task.stacker}.*, or at the whole trace with HYDRA_FULL_ERROR=1"
        ) from fault


def add_noise(matrix: Matrix, columns: Sequence[str], plan: Plan, rng: np.random.Generator) -> None:
    """Gaussian noise on the image scores, in place."""
    if plan.noise <= 0:
        return
    for at in [i for i, name in enumerate(columns) if name in plan.noisy]:
        column = matrix[:, at]
        if np.isfinite(column).any():
            column += rng.normal(0.0, plan.noise * np.nanstd(column), len(column))


def _combined(
    held_out: Mapping[tuple[str, int], Floats], method: str, seeds: Sequence[int]
) -> Floats:
    """Mean over stackers and some seeds; rows that no fold holds out stay NaN."""
    chosen = [probs for (_, seed), probs in held_out.items() if seed in seeds]
    known = ~np.isnan(chosen[0]).any(axis=1)
    mean = Mean(method, (int(known.sum()), chosen[0].shape[1]))
    for probs in chosen:
        mean.add(probs[known])
    whole = np.full_like(chosen[0], np.nan)
    whole[known] = mean.value
    return whole


def _in_order(
    call: Callable[[Task], Result], tasks: Sequence[Task], n_jobs: int
) -> Iterator[tuple[Task, Result]]:
    """Results in the order of tasks, however many run at once."""
    if n_jobs <= 1:
        yield from ((task, call(task)) for task in tasks)
        return
    with ThreadPoolExecutor(n_jobs) as pool:
        yield from zip(tasks, pool.map(call, tasks), strict=True)
