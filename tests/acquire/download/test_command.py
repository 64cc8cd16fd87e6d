"""`python -m isic download` as a process: exit codes, kills, two at once, and the folder opens."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from isic.__main__ import verbatim
from isic.files import PREFIX
from isic.index.folder import build_index
from tests.acquire.download.server import Archive, served
from tests.commands import ROOT, Command, ForkServer

QUICK = ("retry.base=0.001", "retry.longest=0.01")


@pytest.fixture
def archive() -> Iterator[Archive]:
    with served(Archive(40, page=10)) as archive:
        yield archive
        archive.released.set()


def words(archive: Archive, root: Path, *more: str) -> list[str]:
    return ["isic", "download", f"data.root={root}", f"api={archive.url}", *QUICK, *more]


def stalls(archive: Archive, *positions: int) -> None:
    """The first request for these images gets half of them and then nothing."""
    slow = {f"/images/{archive.names[i]}.jpg" for i in positions}
    archive.fault = lambda path, nth: "stall" if path in slow and nth == 1 else None


def wait_for_files(root: Path, n: int, command: Command) -> None:
    end = time.monotonic() + 60
    while len(list(root.glob("ISIC*.jpg"))) < n:
        assert command.poll() is None, command.text
        assert time.monotonic() < end, command.text
        time.sleep(0.01)


def assert_whole(archive: Archive, root: Path) -> None:
    assert {p.stem: p.read_bytes() for p in root.glob("ISIC*.jpg")} == archive.files
    assert not list(root.glob(f"{PREFIX}*"))


@pytest.mark.slow
def test_done_and_done_again(commands: ForkServer, archive: Archive, tmp_path: Path) -> None:
    query = "age_approx:[50 TO *] AND diagnosis_3:\"Melanoma, 'in situ'\" AND -sex:*"
    arguments = words(archive, tmp_path / "a b", f"query={query}", "collections=[1,2]", "limit=50")
    code, text = commands.run(*arguments)
    assert code == 0, text
    assert "40 images are whole (40 fetched" in text
    assert "HTTP Request" not in text
    assert archive.queries[0]["query"] == [query]
    assert archive.queries[0]["collections"] == ["1,2"]
    code, text = commands.run(*arguments[:-2], "collections=[1,2]")
    assert code == 0, text
    assert set(archive.fetched().values()) == {1}


@pytest.mark.slow
def test_what_was_downloaded_opens_as_a_folder(
    commands: ForkServer, archive: Archive, tmp_path: Path
) -> None:
    assert commands.run(*words(archive, tmp_path))[0] == 0
    index = build_index(tmp_path)
    table = index.table.set_index("image_id")
    assert set(table.index) == set(archive.names)
    for name in archive.names:
        said = archive.entry(name)["metadata"]["clinical"]
        assert (tmp_path / table.loc[name, "image"]).read_bytes() == archive.files[name]
        assert table.loc[name, "diagnosis"] == said["diagnosis_1"]
        assert table.loc[name, "target"] == (said["diagnosis_1"] == "Malignant")


@pytest.mark.parametrize(
    ("fault", "more", "code", "said"),
    [
        ("", ["query=(sex:male"], 2, "Could not parse search query."),
        ("", ["limit=0"], 2, "limit: expected at least 1"),
        ("", ["n_workers=99"], 2, "n_workers: expected 1 to 32"),
        ("", ["collections=x"], 2, "collections: expected numbers from 1, got ['x']"),
        ("404", ["limit=7"], 3, "python -m isic download 'data.root="),
        ("500", [], 1, "snapshots/ISIC_images.zip"),
    ],
)
def test_exit_codes(
    commands: ForkServer,
    archive: Archive,
    tmp_path: Path,
    fault: str,
    more: list[str],
    code: int,
    said: str,
) -> None:
    images = "ISIC" if fault == "404" else ""
    archive.fault = lambda path, nth: fault if fault and images in path else None
    got, text = commands.run(*words(archive, tmp_path / "with space", *more))
    assert got == code, text
    assert said in text
    assert "Traceback" not in text


def test_killed_and_typed_again(commands: ForkServer, archive: Archive, tmp_path: Path) -> None:
    stalls(archive, 3, 17, 29)
    command = commands.start(*words(archive, tmp_path))
    wait_for_files(tmp_path, 37, command)
    command.signal(signal.SIGKILL)
    assert command.wait() == -9
    there = {p.stem: p.read_bytes() for p in tmp_path.glob("ISIC*.jpg")}
    assert there == {n: archive.files[n] for n in there}  # nothing torn
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 3
    archive.asked.clear()
    archive.fault = lambda path, nth: None
    code, text = commands.run(*words(archive, tmp_path))
    assert code == 0, text
    assert set(archive.fetched()) == set(archive.files) - set(there)
    assert_whole(archive, tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_leaves_whole_files_and_soon(
    commands: ForkServer, archive: Archive, tmp_path: Path, number: int, code: int
) -> None:
    stalls(archive, 2, 20)
    command = commands.start(*words(archive, tmp_path))
    wait_for_files(tmp_path, 38, command)
    start = time.monotonic()
    command.signal(number)
    assert command.wait(20) == code
    assert time.monotonic() - start < 10  # though two threads wait for a silent server
    assert "stopped; counted so far: 38 images are whole" in command.text
    assert "The same command goes on: python -m isic download" in command.text
    assert "Traceback" not in command.text
    assert not list(tmp_path.glob(f"{PREFIX}*"))
    archive.released.set()
    assert commands.run(*words(archive, tmp_path))[0] == 0
    assert_whole(archive, tmp_path)
    assert sum(archive.fetched().values()) == 42


def test_two_at_once_take_turns(commands: ForkServer, archive: Archive, tmp_path: Path) -> None:
    stalls(archive, 5)
    first = commands.start(*words(archive, tmp_path))
    wait_for_files(tmp_path, 39, first)
    second = commands.start(*words(archive, tmp_path))
    second.wait_for("waiting for another process that is downloading to")
    archive.released.set()
    assert (first.wait(), second.wait()) == (0, 0)
    assert "40 there before" in second.text
    assert set(archive.fetched().values()) == {1}
    assert_whole(archive, tmp_path)


def test_help_is_quick_and_loads_no_tables() -> None:
    code = (
        "import atexit, sys; sys.argv = ['isic', 'download', '--help']; import isic.__main__ as m\n"
        "atexit.register(lambda: print('LOADED', *sys.modules))\nm.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    text, loaded = done.stdout.split("LOADED")
    assert done.returncode == 0
    for word in ("python -m isic download data.root=DIR", "age_approx:[50 TO *]", "collections="):
        assert word in text
    assert not {"httpx", "pandas", "numpy", "torch"} & set(loaded.split())


@given(st.text(alphabet=[*"ab'\"\\${}[]():, *=#&+-é\t"], max_size=12))
def test_a_query_comes_through_the_command_line_as_typed(query: str) -> None:
    assume(not (len(query) > 1 and query[0] == query[-1] and query[0] in "'\""))
    read = OverridesParser.create().parse_override(verbatim(f"query={query}"))
    config = OmegaConf.create({"query": None})
    OmegaConf.update(config, "query", read.value())
    assert config.query == query


def test_what_is_quoted_already_is_left_alone() -> None:
    for word in ("query='a b'", 'query="a b"', "query=null", "query=", "data.root=a b", "-m"):
        assert verbatim(word) == word
