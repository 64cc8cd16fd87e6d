"""The worker's side of `isic.search.server`: start a job, ask how it stands, end its tree."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import yaml

from isic.errors import IsicError
from isic.runs import write_text

PR_SET_PDEATHSIG = 1  # prctl(2): signal to get when the parent dies
MERCY = 20  # seconds between SIGTERM and SIGKILL


class Jobs(Protocol):
    """What runs the jobs of trials."""

    def start(self, job: str, config: Mapping[str, Any], file: Path, log: Path) -> int:
        """Begin a job on a config that is frozen in `file`; its process id."""

    def poll(self, pid: int) -> int | None:
        """Exit code, negative for a signal; None while it runs."""

    def end(self, pid: int) -> None:
        """End the job and all that it started; nothing is left when this returns."""


class Forks:
    """Jobs as forks of one warm process, which ends with this one."""

    def __init__(self, stage: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "isic.search.server", stage],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the worker, which then ends its trial
            preexec_fn=die_with_parent,
            text=True,
        )

    def start(self, job: str, config: Mapping[str, Any], file: Path, log: Path) -> int:
        """Begin a job on a config that is frozen in `file`; its process id."""
        write_text(file, yaml.safe_dump(dict(config), sort_keys=False))
        request = {"job": job, "config": str(file), "log": str(log)}
        return int(self._ask(request)["pid"])

    def poll(self, pid: int) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        code: int | None = self._ask({"poll": pid})["code"]
        if code is not None:
            _signal_group(pid, signal.SIGKILL)  # loaders that outlived a crash
        return code

    def end(self, pid: int) -> None:
        """End the job and all that it started; nothing is left when this returns."""
        _signal_group(pid, signal.SIGTERM)
        patience = time.monotonic() + MERCY
        while self.poll(pid) is None:
            if time.monotonic() > patience:
                _signal_group(pid, signal.SIGKILL)
            time.sleep(0.02)

    def close(self) -> None:
        """End the warm process."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise IsicError(
                f"the process that starts trials ended (exit code {self._process.wait()}); "
                "the same command goes on"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def die_with_parent() -> None:
    """This process gets SIGTERM when the one that started it dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
