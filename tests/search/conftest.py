"""Fixtures of the tests of sweeps."""

from pathlib import Path

import pytest

from tests.commands import ForkServer
from tests.search.sweeps import Sweeping


@pytest.fixture(scope="session")
def sweep_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep-cache")


@pytest.fixture
def sweeping(commands: ForkServer, tiny: list[str], tmp_path: Path, sweep_cache: Path) -> Sweeping:
    """`sweep.py` on 161 tiles of 32 px: a trial is a training of a second."""
    own = [a for a in tiny if not a.startswith("sampler")]
    return Sweeping(commands, own, tmp_path / "runs", sweep_cache)
