"""Trials are taken under a lock, so that their number is exact over any number of workers.

A slot is taken by a trial that is complete, pruned, running, or failed by its own fault. A trial
whose worker died takes none: it is recorded as failed, and one with the same settings waits in its
place, once. Who claims next runs what waits before anything new.
"""

import logging
import re

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from isic.errors import CheckpointError
from isic.search.alive import SignsOfLife, Stamp, is_dead
from isic.search.options import SearchOptions
from isic.search.storage import Store

log = logging.getLogger(__name__)

RETRIES = 1  # of a trial whose worker died
FAILURE = "failure"  # user attribute: why a trial failed by its own fault
WORKER, RUN, DEATHS = "worker", "run", "deaths"  # the stamp, the folder, how often it was lost


def run_of(trial: FrozenTrial | optuna.Trial) -> str:
    """The name of a trial's folder in that of its study.

    Raises:
        CheckpointError: The storage names another folder, which `drop_weights` would empty.
    """
    name = str(trial.user_attrs[RUN])
    if not re.fullmatch(r"\d{4,}", name):
        raise CheckpointError(
            f"storage: trial {trial.number} says its folder is {name!r}, expected a number such as "
            "0007: somebody edited the study; give another storage= or name="
        )
    return name


def takes_slot(trial: FrozenTrial) -> bool:
    """Whether a trial counts towards `n_trials`."""
    if trial.state == TrialState.FAIL:
        return FAILURE in trial.user_attrs
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def n_taken(study: optuna.Study) -> int:
    """Slots that are taken."""
    return sum(map(takes_slot, study.get_trials(deepcopy=False)))


def claim(
    study: optuna.Study, store: Store, search: SearchOptions, signs: SignsOfLife
) -> optuna.Trial | None:
    """Take the next trial, or None where every slot is taken.

    The draws of a trial come from the seed and its number alone: workers that share a seed would
    otherwise all begin with the same settings.
    """
    with store.lock():
        bury(study, store, search)
        trials = study.get_trials(deepcopy=False)
        if sum(map(takes_slot, trials)) >= search.n_trials:
            return None
        study.sampler = TPESampler(seed=(search.seed * 1_000_003 + len(trials)) % 2**32)
        trial = study.ask()
        signs.at(trial)  # first: one that bears a stamp has a sign of life to be missed
        trial.set_user_attr(WORKER, str(signs.stamp))
        if RUN not in trial.user_attrs:
            trial.set_user_attr(RUN, f"{trial.number:04d}")
        return trial


def bury(study: optuna.Study, store: Store, search: SearchOptions) -> None:
    """Record the trials of dead workers as failed and put them back, under the lock."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        # one without a worker was being claimed under this lock, by a process that died there
        if worker is None or is_dead(Stamp.read(worker), store, search.grace):
            study.tell(trial.number, state=TrialState.FAIL)
            lost(study, trial)
    optuna.storages.fail_stale_trials(study)


def lost(study: optuna.Study, trial: FrozenTrial) -> None:
    """A trial's worker died: let it run again, in the same folder, once."""
    deaths = int(trial.user_attrs.get(DEATHS, 0)) + 1
    if deaths > RETRIES:
        log.warning("trial %d lost its worker, as the one before it; given up", trial.number)
        return
    log.warning("trial %d lost its worker; it is run again", trial.number)
    put_back(study, trial, deaths=deaths)


def put_back(study: optuna.Study, trial: FrozenTrial, *, deaths: int) -> None:
    """A waiting trial with the settings of this one, which has ended; Optuna's names for it.

    It bears no stamp: whoever takes it next may die before it says so.
    """
    earlier = trial.system_attrs.get("retry_history", [])
    kept = {key: value for key, value in trial.user_attrs.items() if key != WORKER}
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={**kept, DEATHS: deaths},
            system_attrs={
                "failed_trial": trial.number,
                **trial.system_attrs,
                "retry_history": [*earlier, trial.number],
            },
        )
    )
