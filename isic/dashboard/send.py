"""Sending what W&B wrote to disk: beside a training, or later by `python -m isic sync`.

Beside a training, W&B's own `sync --live` reads the growing file in a process of its own. The
training never speaks to it; when the command ends, it gets `PATIENCE` seconds more and is ended.
A file that was sent whole has a marker beside it, so that nothing is sent twice.
The trap: a server that accepts and never answers. Nothing here waits for one without an end.
"""

import atexit
import contextlib
import logging
import netrc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from isic.dashboard.torn import cut_torn_end
from isic.errors import ConfigError, IsicError
from isic.files import file_lock
from isic.workers import die_with_parent

log = logging.getLogger(__name__)

PATIENCE = 6.0  # seconds for all senders together, once the command has nothing else to do
ANSWER = 10.0  # seconds for a connection
SETTLED = 15.0  # seconds after which W&B's service, which outlives its run, writes no more
QUIET = 60.0  # seconds without a word of an unfinished run, whose facts come every 15 or so
SERVER = "https://api.wandb.ai"

_senders: dict[Path, subprocess.Popen[bytes]] = {}


def send_meanwhile(run: Any, options: Mapping[str, Any]) -> None:
    """With mode `online`, start a process that sends `run` while it is written."""
    if options["mode"] != "online":
        return
    if not has_key():
        log.warning("W&B: WANDB_MODE=online, but no API key is set; going on offline")
        return
    folder = Path(run.settings.sync_dir)
    if not _senders:
        atexit.register(wait_for_senders)
    with (folder / "send.log").open("wb") as output:
        _senders[folder] = subprocess.Popen(
            [sys.executable, "-m", "wandb", "beta", "sync", "--live", "--yes", str(folder)],
            env=_own_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the training
            preexec_fn=_modest,
        )


def _own_environment() -> dict[str, str]:
    """Without the address of the training's W&B service, which the sender would keep busy."""
    kept = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    return {**kept, "WANDB_MODE": "online", "OMP_NUM_THREADS": "1"}


def _modest() -> None:
    os.nice(10)
    die_with_parent()


def wait_for_senders(patience: float = PATIENCE) -> None:
    """Give the senders a last moment, end those that are not through, and say what is left."""
    end = time.monotonic() + patience
    while time.monotonic() < end and any(p.poll() is None for p in _senders.values()):
        time.sleep(0.05)
    left = [folder for folder in _senders if not is_sent(folder)]
    for process in _senders.values():
        stop(process)
    _senders.clear()
    if left:
        log.warning("W&B: %d runs are not sent whole; python -m isic sync sends them", len(left))


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a sender and the service that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it reads is on disk, and stays
    process.wait()


def is_sent(folder: Path) -> bool:
    """Whether W&B's marker stands beside the file of an `offline-run-*` folder."""
    return any(folder.glob("*.wandb.synced"))


def kept(runs: Path) -> list[Path]:
    """Folders `offline-run-*` under `runs` that are not sent yet, none of a run that goes on."""
    folders = sorted(runs.glob("**/wandb/offline-run-*"))
    return [f for f in folders if any(f.glob("*.wandb")) and not is_sent(f) and not _at_work(f)]


def _at_work(folder: Path) -> bool:
    """Whether a process trains the run: half a file would be taken for the whole.

    A lock may be seen on its holder's machine alone; there, an unfinished run's file tells.
    """
    from filelock import Timeout

    run = folder.parents[1]
    written = max(path.stat().st_mtime for path in folder.glob("*.wandb"))
    if not (run / "score.json").exists() and time.time() - written < QUIET:
        return True
    lock = run / ".lock"
    if not lock.exists():
        return False
    try:
        with file_lock(lock, timeout=0):
            return False
    except Timeout:
        return True


def send_kept(folders: list[Path], *, timeout: float) -> list[Path]:
    """Send them with W&B's own `sync`; those that were sent whole.

    timeout: Seconds without a further run sent after which it is given up.

    Raises:
        ConfigError: No API key.
        IsicError: The server cannot be reached.
    """
    if not has_key():
        raise ConfigError("W&B: no API key. Set WANDB_API_KEY, or type `wandb login` once.")
    check_server()
    for path in (path for folder in folders for path in folder.glob("*.wandb")):
        if time.time() - path.stat().st_mtime > SETTLED:
            cut_torn_end(path)
    process = subprocess.Popen(
        [sys.executable, "-m", "wandb", "sync", *map(str, folders)],
        env=_own_environment(),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    done, since = 0, time.monotonic()
    try:
        while process.poll() is None and time.monotonic() - since < timeout:
            time.sleep(0.1)
            if (now := sum(map(is_sent, folders))) > done:
                done, since = now, time.monotonic()
    finally:
        stop(process)
    return [folder for folder in folders if is_sent(folder)]


def check_server() -> None:
    """Raise IsicError where nothing answers at WANDB_BASE_URL."""
    address = _server()
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=ANSWER).close()
    except OSError as error:
        raise IsicError(
            f"W&B: no connection to {address.hostname}:{port} ({error}). The runs stay where they "
            "are; the same command sends them where there is a network."
        ) from None


def has_key() -> bool:
    """Whether W&B would not have to ask who this is."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    file = os.environ.get("NETRC", str(Path.home() / ".netrc"))
    try:
        return netrc.netrc(file).authenticators(_server().hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _server() -> SplitResult:
    return urlsplit(os.environ.get("WANDB_BASE_URL", SERVER))
