"""A PostgreSQL of the test's own: in a temporary folder, on a free port, stopped at its end."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    return found[-1].parent


def _user() -> list[str]:
    """Words that run a command as another user: the server refuses to run as root."""
    if os.geteuid():
        return []
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    pytest.skip("no user postgres or nobody to run the server as")


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a server that trusts local connections."""
    binaries, user = _binaries(), _user()
    folder = Path(tempfile.mkdtemp(prefix="isic-postgres-"))
    if user:
        uid, gid = (int(word.partition("=")[2]) for word in user[1:3])
        os.chown(folder, uid, gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*words: str) -> None:
        done = subprocess.run(
            [*user, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data, control = str(folder / "data"), str(binaries / "pg_ctl")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
    try:
        run(str(binaries / "initdb"), "-D", data, "-U", "isic", "-A", "trust", "--no-sync")
        run(control, "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
        try:
            yield f"postgresql://isic@127.0.0.1:{port}/postgres"
        finally:
            run(control, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
