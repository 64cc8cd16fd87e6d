"""`sweep.py` as a real process on a tiny archive, and the study that it leaves.

The warm process that trials are forks of is itself a fork of the test's own server: its imports
would take longer than the trials.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from isic.search.options import SearchOptions
from tests.commands import Command, ForkServer

FORKED = """
import io, os, sys
import isic.search.forks as forks
from isic import workers
from isic.search import server

class ForkedPopen:
    def __init__(self, argv, **options):
        asked, asks = os.pipe()
        answers, answered = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.close(asks), os.close(answers)
            workers.die_with_parent()
            import signal
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            sys.stdin, sys.stdout = os.fdopen(asked), os.fdopen(answered, "w")
            server.PRELOADED = {argv[-1]: ""}
            try:
                server.serve(argv[-1])
            finally:
                os._exit(0)
        os.close(asked), os.close(answered)
        self.stdin, self.stdout = os.fdopen(asks, "w"), os.fdopen(answers)

    def wait(self, timeout=None):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

class subprocess:
    Popen, PIPE, TimeoutExpired = ForkedPopen, -1, TimeoutError

forks.subprocess = subprocess
"""


def options(folder: Path, **changed: Any) -> SearchOptions:
    """Those of a study that maximizes `val/auc` on fold 0."""
    fixed: dict[str, Any] = {
        "name": "study",
        "folder": folder / "study",
        "stage": "train",
        "storage": None,
        "n_trials": 10,
        "n_workers": 1,
        "folds": (0,),
        "monitor": "val/auc",
        "seed": 0,
        "direction": "maximize",
        "heartbeat": 15.0,
        "keep_weights": 3,
        "give_up_after": 3,
    }
    return SearchOptions(**{**fixed, **changed})


@dataclass
class Sweeping:
    """A command line of `sweep.py`, with runs of its own and one cache for all of them."""

    commands: ForkServer
    arguments: list[str]
    runs: Path
    cache: Path

    def start(self, *arguments: str, prelude: str = "", env: Mapping[str, str] = {}) -> Command:
        roots = {"ISIC_RUNS_ROOT": str(self.runs), "ISIC_CACHE_ROOT": str(self.cache)}
        return self.commands.start(
            "sweep.py",
            *(*self.arguments, *arguments),
            env={**roots, **env},
            prelude=FORKED + prelude,
        )

    def run(self, *arguments: str, prelude: str = "") -> tuple[int, str]:
        command = self.start(*arguments, prelude=prelude)
        return command.wait(timeout=600), command.text

    def study(self, name: str, storage: str | None = None) -> optuna.Study:
        url = storage or f"sqlite:///{self.runs / name / 'study.db'}"
        return optuna.load_study(study_name=name, storage=_storage(url))


def _storage(url: str) -> str | optuna.storages.BaseStorage:
    """What Optuna opens: it has no address for a journal."""
    if not url.startswith("journal:"):
        return url
    file = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:"))
    return optuna.storages.JournalStorage(file)
