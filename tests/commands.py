"""The project's commands as real processes, without paying for their imports each time.

A fork server imports torch, Lightning and timm once and computes nothing; each command is a fork
of it that runs `train.py` and the like as `__main__`. Signals, exit codes, locks and memory are
those of a process of its own; only the five seconds of imports are shared.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isic.workers import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = (
    "isic.engine.apply isic.engine.fold isic.stages.archive isic.stages.runs isic.search.start "
    "isic.cli timm matplotlib.pyplot "
    "pyarrow.parquet pyarrow.csv h5py "
    "sklearn.model_selection pytorch_lightning.loggers rich.progress"
).split()
TINY = (
    "model=resnet18 model.backbone=test_resnet.r160_in1k model.pretrained=false data.image_size=32 "
    "data.batch_size=8 split.n_folds=2 trainer=cpu trainer.max_epochs=3 logger=csv"
).split()
"""A training of seconds: dropout and EMA are on by default."""


@dataclass
class Command:
    """A started command: its process id and the file that its output goes to."""

    server: "ForkServer"
    pid: int
    output: Path
    code: int | None = None

    @property
    def text(self) -> str:
        """Standard output and error so far."""
        return self.output.read_text(errors="replace")

    def signal(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Exit code, negative for a signal, as `subprocess` gives it; None while it runs."""
        if self.code is None:
            self.code = self.server.ask({"poll": self.pid})["code"]
        return self.code

    def wait(self, timeout: float = 240) -> int:
        """Wait for the end; a command that takes longer is killed and fails the test."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.signal()
                raise AssertionError(f"still running after {timeout} s:\n{self.text}")
            time.sleep(0.02)
        return code

    def wait_for(self, text: str, timeout: float = 120) -> None:
        """Wait until the output holds `text`."""
        end = time.monotonic() + timeout
        while text not in self.text:
            assert self.poll() is None, f"ended without {text!r}:\n{self.text}"
            assert time.monotonic() < end, f"no {text!r} after {timeout} s:\n{self.text}"
            time.sleep(0.02)


class ForkServer:
    """Starts commands; one a test session."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands", *PRELOADED],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one line, read one line."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self, *argv: str | Path, env: Mapping[str, str] | None = None, prelude: str = ""
    ) -> Command:
        """Start `script arguments...`; `prelude` is Python run first in the new process."""
        self._count += 1
        output = self.folder / f"{self._count:03d}.txt"
        request = {
            "argv": [str(a) for a in argv],
            "env": {**os.environ, **(env or {})},
            "output": str(output),
            "prelude": prelude,
        }
        output.touch()
        return Command(self, self.ask(request)["pid"], output)

    def run(self, *argv: str | Path, timeout: float = 240, **options: Any) -> tuple[int, str]:
        """Start, wait; exit code and output."""
        command = self.start(*argv, **options)
        return command.wait(timeout), command.text

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)


@pytest.fixture(scope="session")
def tiny_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """161 training and 21 test tiles of 32 px in the layout of ISIC 2024."""
    from isic.acquire.synthetic import write_isic2024

    root = tmp_path_factory.mktemp("archive") / "isic2024"
    return write_isic2024(root, n_images=161, n_test=21, size_range=32, n_patients=40, positives=24)


@pytest.fixture(scope="session")
def tiny(tiny_archive: Path) -> list[str]:
    """Arguments of `train.py` for a training of a second: EMA, dropout, redrawn negatives."""
    return [*TINY, f"data.root={tiny_archive}", "sampler=negatives", "sampler.ratio=2"]


@pytest.fixture(scope="session")
def commands() -> Iterator[ForkServer]:
    """Starts `train.py`, `predict.py` and `isic` (for `python -m isic`)."""
    with tempfile.TemporaryDirectory(prefix="isic-commands-") as folder:
        server = ForkServer(Path(folder))
        yield server
        server.close()


@pytest.fixture(scope="session")
def two_folds(
    commands: ForkServer, tiny: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder of a run of two folds, W&B offline, and what the command said."""
    runs = tmp_path_factory.mktemp("two-folds") / "runs"
    arguments = [*tiny, "logger=wandb", "logger.wandb.mode=offline", "name=two"]
    code, text = commands.run(
        "train.py", "-m", "fold=0,1", *arguments, env={"ISIC_RUNS_ROOT": str(runs)}
    )
    assert code == 0, text
    return runs / "two", text


def serve(modules: list[str]) -> None:
    """Answer requests until standard input ends."""
    import gc
    import importlib

    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # forks then copy fewer pages
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            pid = os.fork()
            if pid == 0:
                leave_after(request)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def leave_after(request: Mapping[str, Any]) -> None:
    """Run the command and exit as Python does, without the seconds that its teardown takes."""
    import atexit
    import threading
    import traceback

    code: Any = 0
    try:
        become(request)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def become(request: Mapping[str, Any]) -> None:
    """Turn this fork into the command: its own streams, environment and arguments."""
    import runpy

    os.setsid()
    die_with_parent()  # a suite that is killed leaves no training behind
    # Where the suite itself runs in the background, SIGINT is ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["env"])
    script, *arguments = request["argv"]
    sys.argv = [script, *arguments]
    exec(request["prelude"], {})
    if script == "isic":
        runpy.run_module("isic", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(ROOT / script), run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1:])
