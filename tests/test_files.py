"""Whole files, locks, and what killed writers leave."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isic import files
from isic.errors import IsicError
from isic.files import PREFIX, file_lock, remove_left, waiting_lock, whole_file, write_text

ROOT = Path(__file__).resolve().parents[1]
WRITER = """
import sys, time
from pathlib import Path
from isic.files import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "table.parquet"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()


def left(folder):
    return list(folder.glob(f"{PREFIX}*"))


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_a_killed_writer_leaves_goes_with_the_next_file_there(writer, tmp_path, caplog):
    caplog.set_level("INFO")
    (temporary,) = left(tmp_path)
    age(temporary, 60)
    remove_left(tmp_path)
    assert left(tmp_path) == [temporary]  # it is still being written
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    write_text(tmp_path / "other.txt", "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.txt"]
    assert f"removed {temporary}" in caplog.text


def test_a_file_that_was_just_made_is_left_alone(tmp_path):
    """Its writer may not have locked it yet."""
    new = tmp_path / f"{PREFIX}1-abc-table.csv"
    new.touch()
    remove_left(tmp_path)
    assert left(tmp_path) == [new]
    age(new, 6)
    remove_left(tmp_path)
    assert not left(tmp_path)


def test_without_locks_only_old_files_go(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    write_text(tmp_path / "whole.txt", "whole")
    recent, old = (tmp_path / f"{PREFIX}1-{name}" for name in ("recent", "old"))
    for path, seconds in ((recent, 3600), (old, files.FORGOTTEN + 60)):
        path.touch()
        age(path, seconds)
    remove_left(tmp_path)
    assert left(tmp_path) == [recent]


def test_a_folder_is_looked_at_once(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(files, "remove_left", looked.append)
    for name in ("a", "b", "c"):
        write_text(tmp_path / name, name)
    assert looked == [tmp_path.resolve()]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_its_remedy(tmp_path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    for lock in (waiting_lock(tmp_path / "run" / ".lock", "training"), file_lock(tmp_path / "l")):
        with pytest.raises(IsicError) as caught, lock:
            pass
        text = str(caught.value)
        assert str(tmp_path) in text
        assert f"errno {number}" in text
        assert "ISIC_RUNS_ROOT" in text
        assert "\n" not in text


def test_an_error_under_a_lock_is_its_own(tmp_path):
    with pytest.raises(OSError, match="full"), waiting_lock(tmp_path / ".lock", "writing"):
        raise OSError(errno.ENOSPC, "full")
    with whole_file(tmp_path / "file") as file:
        file.write(b"free again")
    with file_lock(tmp_path / ".lock", timeout=0):
        pass
