"""Storages: what cannot be had is said in seconds, before any trial."""

import sqlite3
from pathlib import Path

import optuna
import pytest

from isic.errors import ConfigError
from isic.search.slots import lost
from isic.search.storage import Store, open_store
from tests.search.sweeps import options


def opened(folder: Path, storage: str | None) -> Store:
    return open_store(options(folder, storage=storage), lost=lost)


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("mysql://me:secret@host/db", "expected sqlite:///FILE, journal:FILE or postgresql://"),
        ("study.db", "expected sqlite:///FILE"),
        ("sqlite:////nowhere/at/all/study.db", "unable to open database file"),
        ("journal:/proc/study.log", "storage: /proc/study.log: "),
        ("postgresql://me:secret@127.0.0.1:9/db", "127.0.0.1:9/db cannot be reached: "),
        ("mysql://me:the@secret@host/db", "got host/db"),
        ("postgresql://me:the@secret@127.0.0.1:9/db", "%40"),
        ("postgresql://me:secret@host:port/db", r"HOST:PORT/DATABASE, got host:port/db .*'port'"),
        ("postgresql://[::1/db", "expected postgresql://"),
    ],
)
def test_a_storage_that_cannot_be_had(storage: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        opened(tmp_path, storage)
    assert "secret" not in str(caught.value)


def test_a_locked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isic.search.storage.REACH", 0.1)
    file = tmp_path / "study.db"
    holder = sqlite3.connect(file)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConfigError, match="locked; end the program that holds it"):
        opened(tmp_path, f"sqlite:///{file}")
    holder.close()


@pytest.mark.parametrize("scheme", ["sqlite:///", "journal:"])
def test_a_file_of_something_else(scheme: str, tmp_path: Path) -> None:
    file = tmp_path / "study"
    file.write_text("a,b\n1,2\n" * 100)
    with pytest.raises(ConfigError, match=r"not a database|no journal of Optuna"):
        optuna.create_study(storage=opened(tmp_path, f"{scheme}{file}").storage)


@pytest.mark.parametrize("scheme", [None, "sqlite:///", "journal:"])
@pytest.mark.parametrize("name", ["a?b%20c", "50%{d}", "é #x=y;z&'q'+w"])
def test_a_path_of_any_characters(scheme: str | None, name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    given = None if scheme is None else f"{scheme}{folder / name}.db"
    for _ in range(2):  # made, then joined
        store = opened(folder, given)
        study = optuna.create_study(storage=store.storage, study_name="s", load_if_exists=True)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        store.close()
    assert len(study.trials) == 2
    file = folder / "study" / "study.db" if given is None else folder / f"{name}.db"
    assert file.is_file() and file.stat().st_size
    assert {p.name for p in tmp_path.iterdir()} == {name}


def test_the_default_is_a_file_in_the_studys_folder(tmp_path: Path) -> None:
    opened(tmp_path, None).close()
    assert (tmp_path / "study" / "study.db").exists()
