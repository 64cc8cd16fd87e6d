"""The worker's side of `isic.search.server`: start a job, ask how it stands, end its tree."""

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
from isic.files import write_text
from isic.workers import TIMEOUT, alone, answers, die_with_parent, worker_timeout

GLANCE = 0.1  # seconds between two looks at a job
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
            env=alone(),  # each task of srun may be a worker; its trials are no ranks of each other
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
        try:
            self._process.wait(MERCY)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            if not answers(self._process.stdout, worker_timeout()):
                raise IsicError(
                    f"the process that starts trials gave no answer for {worker_timeout():g} s "
                    f"({TIMEOUT}=SECONDS waits longer); the same command goes on"
                )
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


def wait_for(jobs: Jobs, pid: int) -> int:
    """Exit code of a job; it is ended where the wait is."""
    code = None
    try:
        while code is None:
            time.sleep(GLANCE)
            code = jobs.poll(pid)
    finally:
        if code is None:
            jobs.end(pid)
    return code


def reason(code: int, log_file: Path, begun: int) -> str:
    """Why a job failed, in one line: what it said last, or the signal that ended it."""
    with log_file.open("rb") as file:
        file.seek(begun)
        lines = file.read().decode(errors="replace").strip().splitlines()
    said = [line for line in lines if line.startswith("error: ")]
    if code < 0:
        name = signal.Signals(-code).name
        text = "out of memory?" if code == -signal.SIGKILL else (lines or [""])[-1]
        return f"killed by {name}: {text}"[:500]
    text = said[-1].removeprefix("error: ") if said else (lines or [f"see {log_file}"])[-1]
    return f"exit code {code}: {text}"[:500]
