"""Surroundings of every test: no network, no writes outside a scratch folder, one thread.

Set before anything heavy is imported and in os.environ, so that subprocesses and DDP ranks get the
same. Torch is not imported here: the tests of the table stages start without it.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Threads: test images are 32 px, where a second thread costs more than it gives, and two DDP ranks
# must not share two cores four ways.
SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "WANDB_MODE": "disabled",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_OFFLINE": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
ROOTS = ("ISIC_DATA_ROOT", "ISIC_RUNS_ROOT", "ISIC_CACHE_ROOT", "WANDB_DIR", "MPLCONFIGDIR")
LOCAL = ("127.0.0.1", "::1", "localhost")
REAL = "ISIC_REAL"

pytest_plugins = ["tests.commands", "tests.archives"]

settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="isic-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    os.environ.update(SURROUNDINGS)
    for root in ROOTS:
        os.environ[root] = str(scratch / root.lower())
        Path(os.environ[root]).mkdir()
    os.environ.pop("HYDRA_FULL_ERROR", None)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Refuse, in this process, every connection that would leave the machine."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise OSError(f"tests use no network, got a connection to {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The folder of real samples that $ISIC_REAL names; the test is skipped without it."""
    if not os.environ.get(REAL):
        pytest.skip(f"{REAL} is not set")
    return Path(os.environ[REAL])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    n = sum(REAL in str(report.longrepr) for report in skipped)
    if n:
        terminalreporter.write_line(f"{n} tests on real samples skipped: {REAL} is not set")
