"""What a study leaves beside its trials: weights of the best, a table, pictures as HTML."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from isic.cells import spreadsheet_csv
from isic.files import waiting_lock, write_summed, write_text
from isic.search.options import SearchOptions
from isic.search.slots import FAILURE, RUN, run_of

log = logging.getLogger(__name__)

PLOTLY = "plotly.min.js"


def best_trials(study: optuna.Study, n: int) -> list[FrozenTrial]:
    """The best `n` complete trials, best first; among equals the earlier."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(done, key=lambda t: (sign * float(t.value or 0.0), t.number))[:n]


def drop_weights(study: optuna.Study, search: SearchOptions) -> None:
    """Delete the checkpoints of every ended trial that is not among the best; scores stay.

    A trial that fell out of the best never comes back, so that workers may do this at once. One
    that waits to be run again keeps what it has learnt.
    """
    trials = study.get_trials(deepcopy=False)
    kept = {run_of(t) for t in best_trials(study, search.keep_weights)}
    kept |= {run_of(t) for t in trials if not t.state.is_finished() and RUN in t.user_attrs}
    for run in {run_of(t) for t in trials if RUN in t.user_attrs} - kept:
        for weights in ("fold*/checkpoints", "models"):
            for folder in (search.folder / run).glob(weights):
                shutil.rmtree(folder, ignore_errors=True)


def summary(study: optuna.Study, search: SearchOptions) -> str:
    """The best trial and how many ended in which way, in one line."""
    states = [t.state.name for t in study.get_trials(deepcopy=False)]
    counts = ", ".join(f"{states.count(s)} {s.lower()}" for s in sorted({*states}))
    best = best_trials(study, 1)
    if not best:
        return f"{search.name}: no trial is complete ({counts})"
    trial = best[0]
    spread = trial.user_attrs.get("spread")
    folds = f" +- {spread:.4f} over {len(search.folds)} folds" if spread is not None else ""
    values = " ".join(f"{k}={_short(v)}" for k, v in trial.params.items())
    return (
        f"{search.name}: {search.monitor} {trial.value:.6g}{folds} in trial {trial.number}: "
        f"{values} ({counts})"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_results(study: optuna.Study, search: SearchOptions) -> None:
    """`trials.csv` and four pictures in the study's folder; the last worker's are the last."""
    with waiting_lock(search.folder / ".pictures.lock", "drawing the study"):
        table = study.trials_dataframe(
            attrs=("number", "value", "state", "duration", "params", "user_attrs")
        )
        write_summed(search.folder / "trials.csv", spreadsheet_csv(table))
        _write_plotly(search.folder / PLOTLY)
        for name, draw in (_pictures(study) if best_trials(study, 1) else {}).items():
            try:
                figure = draw()
            except (ValueError, RuntimeError, ZeroDivisionError) as error:
                log.info("%s.html not drawn: %s", name, str(error).partition("\n")[0])
                continue
            write_text(search.folder / f"{name}.html", figure.to_html(include_plotlyjs=PLOTLY))


def _write_plotly(path: Path) -> None:
    """One copy beside the pages, which then need no network."""
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs()
    if not path.exists() or path.stat().st_size != len(script.encode()):
        write_text(path, script)


def _pictures(study: optuna.Study) -> dict[str, Callable[[], Any]]:
    from optuna import visualization

    return {
        "history": lambda: visualization.plot_optimization_history(study),
        "importance": lambda: visualization.plot_param_importances(study),
        "parallel": lambda: visualization.plot_parallel_coordinate(study),
        "slices": lambda: visualization.plot_slice(study),
    }


def ended(trial: FrozenTrial) -> str:
    """How a trial ended, for a log line."""
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs.get(FAILURE, 'its worker died')}"
    value = "" if trial.value is None else f" {trial.value:.6g}"
    return f"{trial.state.name.lower()}{value}"
