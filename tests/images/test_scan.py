"""Reading in parallel: what one process would give, in order; faults by name; no process left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from isic.errors import DataError, IsicError
from isic.images import scan as scanning
from isic.images.scan import scan
from isic.images.sources import Sources

N = 300
SLOW_PARENT = """
import sys
from pathlib import Path
from isic.images.scan import scan
from isic.images.sources import Sources
from tests.images.test_scan import slowly
refs = [f"a.hdf5#i{i}" for i in range(300)]
for pid in scan(Sources(Path(sys.argv[1])), refs, slowly, workers=2):
    print(pid, flush=True)
"""


def told(data: bytes) -> tuple[bytes, int]:
    """What was read, and by which process."""
    return data, os.getpid()


def printed(data: bytes) -> bytes:
    sys.stdout.write("not an answer\n")
    sys.stdout.flush()
    return data


def slowly(data: bytes) -> int:
    time.sleep(0.02)
    return os.getpid()


def choosy(data: bytes) -> int:
    if data == b"image 250":
        raise DataError("a fault") if os.environ.get("FAULT") else ValueError("no such number")
    return 0


def stuck(data: bytes) -> int:
    """As a read of a dead mount: SIGTERM and its like do not end it."""
    if data == b"image 250":
        os.kill(os.getpid(), signal.SIGSTOP)
    return 0


def fatal(data: bytes) -> int:
    os._exit(7)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """300 byte strings in a store, two of them asked for in vain, one a folder."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for i in range(N):
            file[f"i{i}"] = np.bytes_(f"image {i}")
    (tmp_path / "folder.jpg").mkdir()
    return Sources(tmp_path)


def refs_of(n: int = N) -> list[str | None]:
    return [f"a.hdf5#i{i}" for i in range(n)]


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_results_come_in_order_from_any_number_of_processes(
    sources: Sources, workers: int | None
) -> None:
    refs: list[str | None] = [*refs_of(), None, "a.hdf5#absent", "absent.jpg", "folder.jpg"]
    results = list(scan(sources, refs, told, workers=workers))
    found: list[Any] = results[:N]
    assert [data for data, _ in found] == [f"image {i}".encode() for i in range(N)]
    assert results[N : N + 3] == [None, None, None]
    assert isinstance(results[-1], OSError)
    others = {pid for _, pid in found} - {os.getpid()}
    assert len(others) == (3 if workers == 3 else 0), "few references are not worth a process"


def test_work_that_takes_long_goes_to_workers(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "PATIENCE", 0.1)
    pids = set(scan(sources, refs_of(60), slowly))
    cores = len(os.sched_getaffinity(0))
    assert os.getpid() in pids
    assert len(pids) == 1 + cores


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("fault", "kind"), [("", IsicError), ("1", DataError)])
def test_a_failing_function_names_the_reference(
    sources: Sources, workers: int, fault: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(IsicError, match=r"a\.hdf5#i250: .*(no such number|a fault)") as caught:
        list(scan(sources, refs_of(), choosy, workers=workers))
    assert type(caught.value) is kind


@pytest.mark.parametrize("workers", [1, 2])
def test_a_torn_store_is_the_data_s_fault(sources: Sources, workers: int) -> None:
    (sources.root / "a.hdf5").write_bytes(b"HDF")
    with pytest.raises(DataError, match="whole HDF5 file"):
        list(scan(sources, refs_of(), told, workers=workers))


def test_what_the_function_prints_is_no_answer(sources: Sources) -> None:
    assert list(scan(sources, refs_of(4), printed, workers=2))[3] == b"image 3"


def test_a_worker_that_dies_is_named_with_where_it_was(sources: Sources) -> None:
    with pytest.raises(IsicError, match=r"code 7.*a\.hdf5#i"):
        list(scan(sources, refs_of(), fatal, workers=2))


def test_a_worker_that_hangs_ends_the_wait(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISIC_WORKER_TIMEOUT", "1")
    start = time.monotonic()
    with pytest.raises(IsicError, match=r"gave none for 1 s at a\.hdf5#i.*ISIC_WORKER_TIMEOUT"):
        list(scan(sources, refs_of(), stuck, workers=2))
    assert time.monotonic() - start < 20


def test_references_are_checked_and_functions_importable(sources: Sources) -> None:
    with pytest.raises(DataError, match="outside"):
        scan(sources, ["../a.jpg"], told)
    nameless: Any = type("Nameless", (), {"__module__": "__main__", "__call__": told})()
    with pytest.raises(ValueError, match="imported"):
        scan(sources, refs_of(), nameless)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(sources: Sources, number: int, tmp_path: Path) -> None:
    said = tmp_path / "stderr.txt"
    parent = subprocess.Popen(
        [sys.executable, "-c", SLOW_PARENT, str(sources.root)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=said.open("w"),
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert worker != parent.pid
    parent.send_signal(number)
    parent.wait(20)
    end = time.monotonic() + 10
    while alive(worker):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.02)
    assert "Fatal" not in said.read_text()
    assert number == signal.SIGINT or not said.read_text()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_abandoned_scan_stops_its_workers(sources: Sources) -> None:
    results = scan(sources, refs_of(), told, workers=2)
    first: Any = next(results)
    assert alive(first[1])
    results.close()  # type: ignore[attr-defined]
    assert not alive(first[1])
