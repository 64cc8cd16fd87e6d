"""A pack that goes on after a kill equals one never stopped; what is doubtful is done again."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from isic.errors import IsicError
from isic.files import file_lock
from isic.images import convert, pack, partial
from isic.images.pack import build_pack
from isic.images.packfile import Pack
from isic.images.partial import beside, remove_forgotten

IMAGES = 40
KILLED = """
import os, pathlib, sys, time
from isic.images import pack, partial
pack._CHUNK, partial.COMMIT_SECONDS = 4, 0.0
sync, left = os.fsync, [int(sys.argv[4])]
def counted(handle):
    sync(handle)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), 9)
os.fsync = counted
options = dict(word.split("=") for word in sys.argv[5:])
pack.build_pack(sys.argv[1], pathlib.Path(sys.argv[2]).read_text().split("\\n"),
                cache_root=sys.argv[3], **{k: int(v) for k, v in options.items()})
"""


class Stop(BaseException):
    """Stands for SIGTERM's SystemExit and for Ctrl-C."""


@pytest.fixture
def folder(tmp_path, tile, monkeypatch) -> tuple[Path, list[str]]:
    """Forty images, one of them broken, one absent; chunks of four, each committed at once."""
    root = tmp_path / "archive"
    root.mkdir()
    refs = [f"{i}.jpg" for i in range(IMAGES)]
    for i, ref in enumerate(refs):
        (root / ref).write_bytes(tile(i)[: 200 if i == 9 else None])
    (root / "17.jpg").unlink()
    monkeypatch.setattr(pack, "_CHUNK", 4)
    monkeypatch.setattr(partial, "COMMIT_SECONDS", 0.0)
    return root, refs


@pytest.fixture
def stopped(folder, tmp_path, monkeypatch) -> Callable[..., Path]:
    """Pack until `after` chunks were handed over, then stop as a signal does."""

    def run(after: int, error: BaseException | None = None, **options: int) -> Path:
        add, calls = partial.PartialPack.add, []

        def counted(self: partial.PartialPack, rows: list[convert.Row]) -> None:
            if len(calls) == after:
                raise error or Stop
            calls.append(0)
            add(self, rows)

        with monkeypatch.context() as patch:
            patch.setattr(partial.PartialPack, "add", counted)
            with pytest.raises(type(error) if error else Stop):
                build_pack(*folder, cache_root=tmp_path / "cache", **options)
        return tmp_path / "cache"

    return run


def made(folder: tuple[Path, list[str]], cache: Path, **options: int) -> bytes:
    return build_pack(*folder, cache_root=cache, **options).path.read_bytes()


def litter(cache: Path) -> list[str]:
    return sorted(p.suffix for p in cache.iterdir() if p.suffix not in (".pack", ".lock"))


def file_of(cache: Path, kind: str) -> Path:
    return next(cache.glob(f".*.{kind}"))


@pytest.mark.parametrize("options", [{}, {"resize": 16}, {"pixels": 8}])
@pytest.mark.parametrize("after", [1, 3, 9, 10])
def test_what_goes_on_equals_what_was_never_stopped(
    folder, stopped, tmp_path, caplog, monkeypatch, after, options
):
    caplog.set_level(logging.INFO)
    whole = made(folder, tmp_path / "other", **options)
    cache = stopped(after, **options) if after < 10 else stopped(9, **options)
    assert litter(cache) == [".journal", ".partial"]
    done = 4 * min(after, 9)
    assert f"stopped after {done} of 40 images; the same command goes on from there" in caplog.text
    read: list[str] = []
    read_refs = pack.read_refs
    monkeypatch.setattr(pack, "read_refs", lambda s, refs: read.extend(refs) or read_refs(s, refs))
    assert made(folder, cache, **options) == whole
    assert read == folder[1][done:]
    assert f"going on after {done} of 40 images" in caplog.text
    assert "packed 38 images" in caplog.text.splitlines()[-1]
    assert litter(cache) == []


def test_stopped_again_and_again_it_still_ends(folder, stopped, tmp_path):
    whole = made(folder, tmp_path / "other")
    for _ in range(9):
        cache = stopped(1)
    assert made(folder, cache) == whole


def test_stopped_before_anything_was_done_nothing_stays(stopped):
    assert litter(stopped(0)) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), RuntimeError("fault")])
def test_what_was_done_stays_whatever_stopped_it(folder, stopped, tmp_path, error):
    cache = stopped(2, error)
    assert litter(cache) == [".journal", ".partial"]
    assert made(folder, cache) == made(folder, tmp_path / "other")


def test_a_disk_that_fills_up_while_going_on_leaves_nothing(folder, stopped, monkeypatch):
    cache = stopped(5)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IsicError, match="nothing was left there"):
        build_pack(*folder, cache_root=cache)
    assert litter(cache) == []


def test_what_is_there_already_needs_no_space(folder, stopped, monkeypatch, tmp_path):
    size = len(made(folder, tmp_path / "other"))
    cache = stopped(9)
    usage = namedtuple("usage", "total used free")
    free = size // 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(size, size - free, free))
    assert len(build_pack(*folder, cache_root=cache)) == IMAGES


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("kind", "change", "kept"),
    [
        ("journal", lambda data: b"", 0),
        ("journal", lambda data: b"garbage\n" * 50, 0),
        ("journal", lambda data: bytes(len(data)), 0),
        ("journal", lambda data: data.replace(b'"rows": 40', b'"rows": 41'), 0),
        ("journal", lambda data: data[:-1], 32),
        ("journal", lambda data: data[:-30], 32),
        ("journal", lambda data: data + b"torn li", 36),
        ("journal", lambda data: data + data[-60:], 36),
        ("journal", lambda data: data.replace(b"truncated", b"truncates"), 8),
        ("partial", lambda data: b"", 0),
        ("partial", lambda data: data[:-1], 32),
        ("partial", lambda data: data + b"half an image", 36),
        ("partial", lambda data: data + bytes(1 << 20), 36),
        ("partial", lambda data: data[:-5] + b"\0" + data[-4:], 32),
        ("partial", lambda data: data[:4200] + b"\0\0" + data[4202:], 0),
        ("partial", lambda data: bytes(4096) + data[4096:], 36),
    ],
)
def test_whatever_became_of_the_files_the_pack_is_right(
    folder, stopped, tmp_path, monkeypatch, kind, change, kept
):
    whole = made(folder, tmp_path / "other")
    cache = stopped(9)
    rewritten(file_of(cache, kind), change)
    read: list[str] = []
    read_refs = pack.read_refs
    monkeypatch.setattr(pack, "read_refs", lambda s, refs: read.extend(refs) or read_refs(s, refs))
    assert made(folder, cache) == whole
    assert len(read) == IMAGES - kept
    assert litter(cache) == []


def test_another_packs_journal_is_not_believed(folder, stopped, tmp_path, caplog):
    whole = made(folder, tmp_path / "other", resize=24)
    cache = stopped(3)
    journal, payload = file_of(cache, "journal"), file_of(cache, "partial")
    stopped(3, resize=24)
    for kind, content in (("journal", journal.read_bytes()), ("partial", payload.read_bytes())):
        next(cache.glob(f".*jpeg24*.{kind}")).write_bytes(content)
    assert made(folder, cache, resize=24) == whole
    assert "no journal of this pack; packing starts anew" in caplog.text


@pytest.mark.parametrize("file", ["journal", "partial"])
def test_one_file_without_the_other_is_no_start(folder, stopped, tmp_path, file):
    cache = stopped(3)
    file_of(cache, file).unlink()
    assert made(folder, cache) == made(folder, tmp_path / "other")
    assert litter(cache) == []


def killed_at(folder, cache: Path, sync: int, *options: str) -> int:
    """A packer that SIGKILL meets after its `sync`-th fsync; its exit code."""
    names = cache.parent / "refs.txt"
    names.write_text("\n".join(folder[1]))
    command = [sys.executable, "-c", KILLED, str(folder[0]), str(names), str(cache), str(sync)]
    return subprocess.run([*command, *options], check=False).returncode


def test_a_killed_packers_work_is_taken_over(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert killed_at(folder, tmp_path / "cache", 8) == -signal.SIGKILL
    assert made(folder, tmp_path / "cache") == made(folder, tmp_path / "other")
    assert "going on after 16 of 40 images" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("pixels=8",)])
def test_killed_after_any_fsync_the_pack_is_right(folder, tmp_path, options):
    numbers = {k: int(v) for k, v in (word.split("=") for word in options)}
    whole = made(folder, tmp_path / "other", **numbers)
    for sync in range(1, 24):
        cache = tmp_path / f"cache{sync}"
        code = killed_at(folder, cache, sync, *options)
        assert code == (-signal.SIGKILL if sync <= 22 else 0)
        for path in cache.glob("*.pack"):
            Pack(path)
        assert made(folder, cache, **numbers) == whole


@pytest.mark.slow
def test_killed_at_any_moment_again_and_again(folder, tmp_path, monkeypatch):
    root, refs = folder
    refs = refs * 200
    whole = made((root, refs), tmp_path / "other")
    names = tmp_path / "refs.txt"
    names.write_text("\n".join(refs))
    cache = tmp_path / "cache"
    rng = np.random.default_rng(0)
    for _ in range(12):
        command = [sys.executable, "-c", KILLED, str(root), str(names), str(cache), "-1"]
        packer = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while not (list(cache.glob(".*.partial")) or list(cache.glob("*.pack"))):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.4)))
        packer.kill()
        packer.wait()
    assert made((root, refs), cache) == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_what_was_done(folder, tmp_path, number):
    code = """
import pathlib, signal, sys, time, logging
from isic.images import pack, partial
logging.basicConfig(level=logging.INFO, format="%(message)s")
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
signal.signal(signal.SIGINT, signal.default_int_handler)
pack._CHUNK, partial.COMMIT_SECONDS = 4, 0.0
add = partial.PartialPack.add
def held(self, rows):
    add(self, rows)
    if self.done == 12:
        print("paused", flush=True)
        time.sleep(60)
partial.PartialPack.add = held
pack.build_pack(sys.argv[1], sys.argv[3:], cache_root=sys.argv[2])
"""
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", code, str(folder[0]), str(cache), *folder[1]]
    packer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert packer.stdout.readline() == "paused\n"
    start = time.monotonic()
    packer.send_signal(number)
    _, said = packer.communicate(timeout=30)
    assert time.monotonic() - start < 10
    assert packer.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)
    assert "stopped after 12 of 40 images; the same command goes on from there" in said
    assert made(folder, cache) == made(folder, tmp_path / "other")


@pytest.mark.parametrize(
    ("days", "held", "stays"), [(2, False, False), (0, False, True), (2, True, True)]
)
def test_what_no_packer_takes_up_any_more_goes(tmp_path, caplog, days, held, stays):
    caplog.set_level("INFO")
    pack = tmp_path / "old-jpeg-0123.pack"
    then = time.time() - days * 86400 - 60
    for kind in ("partial", "journal"):
        beside(pack, kind).write_bytes(b"half")
        os.utime(beside(pack, kind), (then, then))
    with file_lock(tmp_path / f"{pack.name}.lock") if held else nullcontext():
        remove_forgotten(tmp_path)
    assert [beside(pack, kind).exists() for kind in ("partial", "journal")] == [stays, stays]
    assert ("removed" in caplog.text) != stays
