"""Whatever a user's own code rests on makes another key; what cannot be compared is not kept."""

import functools
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from isic import module_sources
from isic.code_hash import CODE, code_hash, edited_since, target_hash, targets_code
from isic.engine.finished import say_when
from isic.features.cache import cached_features, features_hash
from isic.features.table import make_features
from isic.identity import read_config
from isic.index.cache import cached_index
from isic.index.isic2024 import INFO, build_index
from isic.runs import RunFolder

READER = """
from mine_helper import shift
from isic.index.isic2024 import build_index as ours
from isic.index.schema import Index

def build_index(root, extra=0):
    index = ours(root)
    table = index.table.assign(age=index.table["age"] + shift() + extra)
    return Index(table, index.info, index.root)
"""
FAMILY = """
from dataclasses import dataclass
from typing import ClassVar
from isic.features.family import frame_of, number

@dataclass(frozen=True)
class Doubled:
    column: str = "age"
    name: ClassVar[str] = "doubled"
    learns: ClassVar[bool] = False

    def needs(self, available):
        return (self.column,)

    def fit(self, rows):
        return {}

    def transform(self, rows, state):
        return frame_of({"twice": number(rows, self.column) * 2}, rows)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's own modules; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    module_sources.spec_of.cache_clear()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def imported(name: str) -> ModuleType:
    """A module as a new process would have it."""
    importlib.invalidate_caches()
    module_sources.spec_of.cache_clear()
    top = name.partition(".")[0]
    for known in [m for m in sys.modules if m.partition(".")[0] in (top, "mine_helper")]:
        del sys.modules[known]
    sys.dont_write_bytecode = True  # two edits within a second look the same to its mtime
    try:
        return importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = False


def test_an_edited_reader_of_ones_own_gives_its_new_rows(archive32: Path, folder: Path) -> None:
    cache = folder / "cache"
    reader = write(folder / "mine_reader.py", READER)
    helper = write(folder / "mine_helper.py", "def shift():\n    return 1\n")

    def ages() -> float:
        index = cached_index(imported("mine_reader").build_index, archive32, cache_root=cache)
        return float(index.table["age"].mean())

    first = ages()
    assert ages() == first
    assert len(list(cache.glob("*.parquet"))) == 1
    reader.write_text(READER.replace("+ extra", "+ extra + 10"))
    assert ages() == pytest.approx(first + 10)
    helper.write_text("def shift():\n    return 101\n")
    assert ages() == pytest.approx(first + 110)


def test_an_edited_family_of_ones_own_gives_its_new_numbers(folder: Path) -> None:
    samples = pd.DataFrame({"image_id": ["a", "b"], "age": [20.0, 30.0]})

    def made() -> list[float]:
        family = imported("mine_family").Doubled()
        table = make_features({"d": family}, samples, info=INFO, cache_root=folder / "cache")
        return [float(v) for v in table.values[:, 0]]

    write(folder / "mine_family.py", FAMILY)
    assert made() == made() == [40, 60]
    assert len(list((folder / "cache" / "features").iterdir())) == 1
    write(folder / "mine_family.py", FAMILY.replace("* 2", "* 3"))
    assert made() == [60, 90]


REACHED = {
    "itself": ("mine/reader.py", "import json\ndef build_index(root): return 2\n"),
    "relative import": ("mine/near.py", "import mine_far\n\nvalue = 2\n"),
    "import in a function": ("mine_late.py", "value = 2\n"),
    "import of an import": ("mine_far.py", "value = 2\n"),
    "the package": ("mine/__init__.py", "value = 2\n"),
    "a module named at run time": ("mine/deep/plugin.py", "value = 2\n"),
}


@pytest.mark.parametrize("which", REACHED)
def test_every_source_that_is_reached_counts(folder: Path, which: str) -> None:
    write(folder / "mine/__init__.py", "")
    write(folder / "mine/near.py", "import mine_far\n")
    write(folder / "mine/deep/plugin.py", "value = 1\n")
    write(folder / "mine_late.py", "value = 1\n")
    write(folder / "mine_far.py", "value = 1\n")
    write(folder / "unrelated.py", "value = 1\n")
    source = "from .near import mine_far\ndef build_index(root):\n    import mine_late\n"
    write(folder / "mine/reader.py", source)
    before = code_hash(imported("mine.reader").build_index)
    assert before is not None
    assert before == code_hash(imported("mine.reader").build_index)
    assert before != target_hash("mine.reader.build_index") is not None
    asked = target_hash("mine.reader.build_index")
    write(folder / "unrelated.py", "value = 2\n")
    assert target_hash("mine.reader.build_index") == asked
    file, text = REACHED[which]
    write(folder / file, text)
    assert code_hash(imported("mine.reader").build_index) != before
    assert target_hash("mine.reader.build_index") != asked


def adder(n: float) -> Callable[[Path], float]:
    def add(root: Path) -> float:
        return n

    return add


class Reader:
    """A reader with a state."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)

    def build(self, root: Path) -> Any:
        return self

    __call__ = build


@functools.lru_cache
def remembered(root: Path) -> int:
    return 1


def with_default(root: Path, n: Any = 1) -> Any:
    return n


def decorated(n: int) -> Any:
    @functools.wraps(with_default)
    def wrapper(root: Path) -> Any:
        return with_default(root, n)

    return wrapper


DIFFERENT: list[tuple[Any, Any]] = [
    (adder(1), adder(2)),
    (lambda root: 1, lambda root: 2),
    (decorated(1), decorated(2)),
    (partial(with_default, n=1), partial(with_default, n=2)),
    (partial(with_default, n=[{"a": 1}]), partial(with_default, n=[{"a": 2}])),
    (Reader(n=1), Reader(n=2)),
    (Reader(n=np.arange(3)), Reader(n=np.arange(3) + 1)),
    (Reader(n=np.array(["a"], object)), Reader(n=np.array(["b"], object))),
    (Reader(n=re.compile("a")), Reader(n=re.compile("b"))),
    (Reader(n=1).build, Reader(n=2).build),
    (partial(Reader(n=1)), partial(Reader(n=2))),
    (with_default, remembered),
]


# Numbers, no representations: these hold addresses, and each process of a suite has its own.
@pytest.mark.parametrize("pair", DIFFERENT, ids=range(len(DIFFERENT)))
def test_what_a_callable_holds_counts(pair: tuple[Any, Any]) -> None:
    first, second = (code_hash(value) for value in pair)
    assert first is not None
    assert second is not None
    assert first != second
    assert first == code_hash(pair[0])


def in_a_notebook() -> Any:
    """A function as a notebook's cell makes it."""
    names: dict[str, Any] = {"__name__": "__main__", "build_index": build_index}
    source = "def read(root):\n    return build_index(root)\n"
    exec(compile(source, "<ipython-input-1-3fa9>", "exec"), names)
    return names["read"]


def local_class() -> Any:
    class Local(Reader):
        pass

    return Local(n=1)


@pytest.mark.parametrize(
    "value",
    [in_a_notebook(), local_class(), Reader(n=object()), Reader(n=(i for i in ())), iter(())],
    ids=["notebook", "local class", "no state", "generator", "iterator"],
)
def test_what_cannot_be_compared_has_no_hash(value: Any) -> None:
    assert code_hash(value) is None


def test_a_reader_of_a_notebook_is_asked_each_time(
    archive32: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        index = cached_index(in_a_notebook(), archive32, cache_root=tmp_path)
        assert len(index.table) == 128
    assert not list(tmp_path.iterdir())
    assert "is not kept: <function read" in caplog.text


def test_features_of_unknown_code_are_not_kept(tmp_path: Path) -> None:
    families: Any = {"x": local_class()}
    assert features_hash(families, pd.DataFrame({"image_id": ["a"]}), {}) is None
    made: Any = cached_features(lambda: 1, families, None, {}, cache_root=tmp_path)  # type: ignore
    assert made == 1
    assert not list(tmp_path.iterdir())


def test_another_version_of_a_library_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_hash(pd.DataFrame), code_hash(partial(np.sum))
    assert None not in before
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    module_sources._version.cache_clear()
    try:
        after = code_hash(pd.DataFrame), code_hash(partial(np.sum))
    finally:
        module_sources._version.cache_clear()
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_a_target_is_not_imported_to_be_compared(folder: Path) -> None:
    write(folder / "mine_loss.py", "raise SystemExit('imported')\n")
    assert target_hash("mine_loss.Focal") is not None
    assert "mine_loss" not in sys.modules
    for name in (
        "isic.training.losses.Objective",
        "torch.nn.Linear",
        "no_such.thing",
        "json.loads",
    ):
        assert target_hash(name) is None


def test_a_table_that_an_option_names_deep_inside_counts(archive32: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "labels.txt", "a")
    options = {"parts": [{"table": str(table)}], "where": table}

    def files() -> int:
        cached_index(partial(named, **options), archive32, cache_root=tmp_path / "cache")
        return len(list((tmp_path / "cache").glob("*.parquet")))

    assert files() == files() == 1
    os.utime(table, ns=(1, 1))
    assert files() == 2


def named(root: Path, **options: Any) -> Any:
    return build_index(root)


@pytest.fixture
def edited(folder: Path) -> tuple[RunFolder, dict[str, Any], Path]:
    """A run of a loss of the user's own, its config and the loss's file."""
    loss = write(folder / "mine_loss.py", "def focal(): ...\n")
    nodes = {"loss": {"_target_": "mine_loss.focal", "inner": [{"_target_": "torch.nn.Linear"}]}}
    config = {"name": "a", "fold": 0, "data": {"_target_": "isic.data.ISIC2024DataModule"}, **nodes}
    config[CODE] = targets_code(config)
    assert list(config[CODE]) == ["mine_loss.focal"]
    run = RunFolder(folder / "runs" / "a" / "fold0")
    run.claim(config, {})
    return run, config, loss


def test_a_finished_run_says_that_its_code_was_edited_since(
    edited: tuple[RunFolder, dict[str, Any], Path], caplog: pytest.LogCaptureFixture
) -> None:
    run, config, loss = edited
    run.score_file.write_text("{}")
    say_when(run)
    assert "edited since" not in caplog.text
    loss.write_text("def focal(): return 2\n")
    run.claim({**config, CODE: targets_code(config)}, {})  # the same experiment all the same
    say_when(run)
    assert "mine_loss.focal: edited since; the score is of the code as it was" in caplog.text


def test_a_run_that_learnt_by_two_codes_says_so_in_its_score(
    edited: tuple[RunFolder, dict[str, Any], Path],
) -> None:
    from isic.engine.resume import on_edited_code

    run, config, loss = edited
    assert on_edited_code(config, run) == []
    loss.write_text("def focal(): return 2\n")
    assert on_edited_code(config, run) == [], "nothing was learnt by the code before"
    assert read_config(run.config_file)[CODE] == targets_code(config)
    run.last.parent.mkdir()
    run.last.touch()
    assert on_edited_code(config, run) == []
    loss.write_text("def focal(): return 3\n")
    (said,) = on_edited_code(config, run)
    assert said == "mine_loss.focal was edited after this run had begun: it learnt by both"
    assert edited_since({}) == [], "a run of an earlier version names no code"
    loss.unlink()
    assert on_edited_code(config, run) == [], "what is gone is said where it is wanted"
