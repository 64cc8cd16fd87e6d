"""A process that has imported what trains and computes nothing: every trial is a fork of it.

`python -m isic.search.server` reads one JSON request a line and answers each with one:
`{"job": "train", "config": FILE, "log": FILE}` -> `{"pid": 1}`, `{"poll": 1}` -> `{"code": null}`.
A fork costs no imports, which take longer than a short trial. CUDA cannot be forked once it is in
use: no request is computed in this process, and each child starts CUDA for itself. The children
get SIGTERM when this process ends, and this one ends with its standard input.
"""

import gc
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from isic.errors import IsicError, unwrapped
from isic.files import write_text
from isic.workers import die_with_parent

PRELOADED = {
    "train": (
        "isic.engine.fold timm matplotlib.pyplot sklearn.model_selection pyarrow.parquet "
        "rich.progress"
    ),
    "stack": "isic.stages.stack lightgbm sklearn.model_selection pyarrow.parquet",
}


def train(config: dict[str, Any]) -> None:
    """A fold of a trial."""
    from isic.engine.fold import fit_fold

    fit_fold(config)


def stack(config: dict[str, Any]) -> None:
    """A stack, all its folds."""
    from isic.stages.stack import fit_stack

    fit_stack(config)


def prepare_train(config: dict[str, Any]) -> dict[str, Any]:
    """Index, split and pack, once for all trials; their hashes."""
    from isic.engine.build import build_data, check_components
    from isic.index.schema import archive_hash
    from isic.signatures import check_signatures

    check_signatures(config)
    for fold in config["folds"]:
        check_components({**config, "fold": fold})
        data = build_data({**config, "fold": fold})
        split_hash = data.split.hash
    data.setup("fit")
    return {"archive": archive_hash(data.index), "split_hash": split_hash}


def prepare_stack(config: dict[str, Any]) -> dict[str, Any]:
    """Index, split and image runs; their hashes."""
    from isic.stages.stack import stack_hashes

    return stack_hashes(config)


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "train": train,
    "stack": stack,
    "prepare_train": prepare_train,
    "prepare_stack": prepare_stack,
}
"""What a job answers goes to the file `prepared` of its config."""


def serve(stage: str) -> None:
    """Answer requests until standard input ends."""
    for module in PRELOADED[stage].split():
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
                _leave_after(request)
            _lead_a_group(pid)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _leave_after(request: Mapping[str, Any]) -> None:
    """Run the job in this fork and exit as Python does, without the seconds of its teardown."""
    import atexit
    import threading

    code = 1
    try:
        _become(Path(request["log"]))
        code = _run(request)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _lead_a_group(pid: int) -> None:
    """Said by both sides of a fork: a signal to the group finds it, whichever runs first."""
    with suppress(OSError):
        os.setpgid(pid, pid)


def _become(log: Path) -> None:
    """A process group of its own that writes to the trial's log."""
    _lead_a_group(0)
    die_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    # results of a trial are lines of its log too, whatever this process answers its worker by
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr, force=True)
    logging.captureWarnings(True)


def _run(request: Mapping[str, Any]) -> int:
    """The job's exit code; what went wrong is the last thing in the log."""
    import traceback

    try:
        config = yaml.safe_load(Path(request["config"]).read_text())
        if answer := JOBS[request["job"]](config):
            write_text(Path(config["prepared"]), json.dumps(answer))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        error = unwrapped(error)
        if isinstance(error, IsicError):
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code
        traceback.print_exc()
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        return 1
    return 0


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    die_with_parent()
    serve(sys.argv[1])
