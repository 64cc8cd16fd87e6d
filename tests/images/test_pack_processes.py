"""Several packers at once, killed packers, full disks."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from isic.errors import IsicError
from isic.images.pack import build_pack
from isic.images.packfile import Pack

PACKER = """
import logging, pathlib, sys, time
from isic.images import pack
logging.basicConfig(level=logging.INFO, format="%(message)s")
root, cache, go = map(pathlib.Path, sys.argv[1:4])
refs = sys.argv[4:]
convert = pack._convert_chunk
pack._CHUNK = 4
def held(chunk, options):
    done = convert(chunk, options)
    while not go.exists():
        time.sleep(0.01)
    return done
pack._convert_chunk = held
print(len(pack.build_pack(root, refs, cache_root=cache)))
"""


def start(root: Path, cache: Path, go: Path, refs: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PACKER, str(root), str(cache), str(go), *refs]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def wait_for(path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 60
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        time.sleep(0.01)


def litter(cache: Path) -> list[str]:
    return [p.name for p in cache.iterdir() if p.suffix not in (".pack", ".lock")]


def test_of_five_packers_one_packs_and_four_wait_and_say_so(archive, tmp_path):
    root, refs = archive
    cache, go = tmp_path / "cache", tmp_path / "go"
    first = start(root, cache, go, refs)
    wait_for(cache, ".*.partial")
    others = [start(root, cache, go, refs) for _ in range(4)]
    for other in others:
        assert "waiting for another process that is packing" in other.stderr.readline()
    go.touch()
    outputs = [process.communicate(timeout=60) for process in (first, *others)]
    assert [out for out, _ in outputs] == ["12\n"] * 5
    assert sum("packed 12 images" in err for _, err in outputs) == 1
    assert "packed" in outputs[0][1]
    assert len(list(cache.glob("*.pack"))) == 1
    assert litter(cache) == []


def test_a_killed_packer_is_replaced_by_one_that_waits(archive, tmp_path):
    root, refs = archive
    cache, go = tmp_path / "cache", tmp_path / "go"
    killed = start(root, cache, go, refs)
    wait_for(cache, ".*.partial")
    heir = start(root, cache, go, refs)
    assert "waiting" in heir.stderr.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list(cache.glob("*.pack"))
    go.touch()
    out, err = heir.communicate(timeout=60)
    assert (out, heir.returncode) == ("12\n", 0)
    assert "packed 12 images" in err
    assert litter(cache) == []
    assert len(Pack(next(cache.glob("*.pack")))) == 12


def test_too_little_space_is_refused_before_writing(archive, tmp_path, monkeypatch):
    root, refs = archive
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 0, 10))
    with pytest.raises(IsicError, match=r"needs [\d,]+ bytes .* only 10 are"):
        build_pack(root, refs, cache_root=tmp_path / "cache")
    assert litter(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").glob("*.pack"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_leaves_nothing(archive, tmp_path, monkeypatch, code):
    root, refs = archive

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("isic.images.pack.os.fsync", full)
    with pytest.raises(IsicError, match=r"needs [\d,]+ bytes .*nothing was left there"):
        build_pack(root, refs, cache_root=tmp_path / "cache")
    assert litter(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").glob("*.pack"))


def test_an_interrupt_before_anything_was_done_leaves_nothing(archive, tmp_path, monkeypatch):
    root, refs = archive

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isic.images.pack._convert_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_pack(root, refs, cache_root=tmp_path / "cache")
    assert litter(tmp_path / "cache") == []


@pytest.mark.slow
def test_a_small_real_disk_is_refused_and_left_empty(archive, tmp_path, monkeypatch, tile):
    root, refs = archive
    cache = tmp_path / "disk"
    cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(cache)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        for name in (f"{i}.jpg" for i in range(40)):
            (root / name).write_bytes(tile(0, 200))
            refs = [*refs, name]
        with pytest.raises(IsicError, match="bytes"):
            build_pack(root, refs, cache_root=cache)
        # the estimate may be too low: then the write itself meets the full disk
        monkeypatch.setattr("isic.images.pack._refuse_without_space", lambda *_: None)
        with pytest.raises(IsicError, match="nothing was left there"):
            build_pack(root, refs, cache_root=cache)
        assert litter(cache) == []
        assert not list(cache.glob("*.pack"))
    finally:
        subprocess.run(["umount", str(cache)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_pack_killed_at_any_moment_is_whole_or_absent(archive, tmp_path, seed):
    root, refs = archive
    cache, go = tmp_path / "cache", tmp_path / "go"
    go.touch()
    packer = start(root, cache, go, refs * 400)
    wait_for(tmp_path, "cache/*.lock")
    time.sleep(seed * 0.02)
    packer.send_signal(signal.SIGKILL)
    packer.communicate()
    for path in cache.glob("*.pack"):
        Pack(path)
    assert len(build_pack(root, refs * 400, cache_root=cache)) == 12 * 400
    assert litter(cache) == []
