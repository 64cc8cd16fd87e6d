"""A worker: claim a trial, run it, tell how it ended, until all are taken and nobody works."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from hydra.utils import instantiate
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from isic.errors import IsicError
from isic.identity import Defaults
from isic.search.alive import SignsOfLife
from isic.search.compose import Composer
from isic.search.forks import Forks, Jobs
from isic.search.options import SearchOptions
from isic.search.results import drop_weights, ended
from isic.search.slots import DEATHS, FAILURE, claim, lost, n_taken, put_back
from isic.search.space import Parameter, suggest
from isic.search.storage import Store, open_store, patiently
from isic.search.study import make_ready, open_study
from isic.search.trial import Failed, run_trial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """What every worker of a command knows; it holds no connection and can be forked.

    experiment: The study's fingerprint.
    pruner: A node with a `_target_`.
    defaults: Of the keys that a study of an earlier version does not know.
    """

    search: SearchOptions
    space: Sequence[Parameter]
    composer: Composer
    experiment: Mapping[str, Any]
    pruner: Mapping[str, Any]
    defaults: Defaults | None = None

    @contextmanager
    def joined(self, *, announce: bool) -> Iterator[tuple[Store, optuna.Study]]:
        """The storage and the study, for as long as the block lasts.

        announce: Whether the log names the study; once a command is enough.
        """
        store = open_store(self.search, lost=lost)
        try:
            pruner = instantiate(self.pruner)
            study = open_study(
                store, self.search, self.experiment, pruner, self.defaults, announce=announce
            )
            yield store, study
        finally:
            store.close()

    def make_ready(self, study: optuna.Study, jobs: Jobs) -> None:
        """What trials read is there, and is that of the other workers."""
        make_ready(study, self.composer.config({}), self.search, jobs)


def work(this: Sweep, *, ready: bool = False) -> None:
    """Run trials until the study has them all; waits for those of others, which may die.

    ready: Index, split and pack are known to be there.

    Raises:
        IsicError: This worker's first trials all failed, and no other one succeeded.
    """
    with this.joined(announce=not ready) as (store, study), Member(this, store, study) as member:
        if not ready and n_taken(study) < this.search.n_trials:
            this.make_ready(study, member.jobs)
        while trial := member.next_trial():
            member.run(trial)


class Member:
    """One worker at a study: its sign of life, and the warm process that its trials are forks of.

    jobs: Started when they are first asked for.
    """

    def __init__(self, this: Sweep, store: Store, study: optuna.Study) -> None:
        self.this, self.store, self.study = this, store, study
        self.signs = SignsOfLife(store, this.search.heartbeat)
        self._forks: Forks | None = None
        self._failed = 0

    def __enter__(self) -> "Member":
        """Begin to say that this worker lives."""
        self.signs.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End what was started."""
        self.signs.end()
        if self._forks:
            self._forks.close()

    @property
    def jobs(self) -> Jobs:
        """What runs the jobs of trials."""
        if self._forks is None:
            self._forks = Forks(self.this.search.stage)
        return self._forks

    def next_trial(self) -> optuna.Trial | None:
        """A trial of this worker's; None when the study has all of them and none still runs."""
        said = False
        while True:
            trial = claim(self.study, self.store, self.this.search, self.signs)
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if trial or not running:
                return trial
            if not said:
                log.info("every trial is taken; waiting for %d of other workers", len(running))
            said = True
            time.sleep(0.5)

    def run(self, trial: optuna.Trial) -> None:
        """Run a trial and record how it ended; one that is interrupted waits for the next worker.

        Raises:
            IsicError: The first trials all failed.
        """
        try:
            self._score(trial)
        except UpdateFinishedTrialError:
            # no sign of life got through for too long: another worker has it now
            log.warning("trial %d was given up as dead meanwhile", trial.number)
        except BaseException:
            with suppress(Exception):  # without a database the next one to claim will see to it
                self._put_back(trial)
            raise
        finally:
            self.signs.between_trials()
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        taken, all_of_them = n_taken(self.study), self.this.search.n_trials
        log.info("trial %d %s (%d of %d)", trial.number, ended(frozen), taken, all_of_them)
        drop_weights(self.study, self.this.search)
        self._give_up_where_all_fail(frozen)

    def _score(self, trial: optuna.Trial) -> None:
        chosen = suggest(self.this.space, trial)
        values = " ".join(
            f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in chosen.items()
        )
        log.info("trial %d %s", trial.number, values)
        config = self.this.composer.config(chosen)
        try:
            value = run_trial(trial, config, self.this.search, self.jobs)
        except optuna.TrialPruned:
            self._tell(trial, TrialState.PRUNED)
        except Failed as error:
            patiently(partial(trial.set_user_attr, FAILURE, str(error)), self.this.search.grace)
            self._tell(trial, TrialState.FAIL)
        else:
            self._tell(trial, TrialState.COMPLETE, value)

    def _tell(self, trial: optuna.Trial, state: TrialState, value: float | None = None) -> None:
        try:
            patiently(partial(self.study.tell, trial, value, state=state), self.this.search.grace)
        except ValueError as error:  # Optuna looks itself before the storage refuses
            raise UpdateFinishedTrialError(str(error)) from None

    def _put_back(self, trial: optuna.Trial) -> None:
        with self.store.lock():
            frozen = self.study.tell(trial, state=TrialState.FAIL)
            put_back(self.study, frozen, deaths=int(frozen.user_attrs.get(DEATHS, 0)))

    def _give_up_where_all_fail(self, trial: optuna.trial.FrozenTrial) -> None:
        good = (TrialState.COMPLETE, TrialState.PRUNED)
        self._failed += trial.state == TrialState.FAIL and FAILURE in trial.user_attrs
        if self._failed < self.this.search.give_up_after:
            return
        if not self.study.get_trials(deepcopy=False, states=good):
            raise IsicError(
                f"the first {self._failed} trials all failed, the last one with: {ended(trial)}. "
                f"Logs: {self.this.search.folder}"
            )
