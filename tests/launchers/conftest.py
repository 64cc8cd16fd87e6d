"""Commands that tests of launchers run in this process leave its environment as it was."""

import pytest


@pytest.fixture(autouse=True)
def short_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """`isic.cli.run` asks Hydra for its errors by this variable; later tests read short ones."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
