"""Patience: what is asked again, how long is waited, and that a stop ends every wait."""

import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.acquire.download.http import (
    Connections,
    Patience,
    Refused,
    Stopped,
    Unreachable,
    _retry_after,
)
from isic.errors import ConfigError
from tests.acquire.download.server import Archive, served


class Waits(threading.Event):
    """Writes waits down instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def archive() -> Iterator[Archive]:
    with served(Archive(2)) as archive:
        yield archive


@pytest.fixture
def waits() -> Waits:
    return Waits()


def connected(waits: threading.Event, **patience: float) -> Connections:
    return Connections(Patience(**patience), n_threads=2, stop=waits)  # type: ignore[arg-type]


@given(st.integers(1, 40), st.floats(0.001, 10), st.floats(0.001, 100))
def test_waits_double_up_to_a_cap(attempt: int, base: float, longest: float) -> None:
    wait = Patience(base=base, longest=longest).wait(attempt)
    whole = min(longest, math.ldexp(base, attempt - 1))
    assert whole / 2 <= wait <= whole


def test_waits_differ_between_threads() -> None:
    assert len({Patience().wait(3) for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), ("", 0), ("7", 7), (" 7 ", 7), ("0", 0), ("-3", 0), ("soon", 0), ("1.5", 1.5)],
)
def test_retry_after(value: str | None, seconds: float) -> None:
    assert _retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    now = datetime.now(UTC)
    assert _retry_after(format_datetime(now + timedelta(seconds=90))) == pytest.approx(90, abs=2)
    later = (now + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert _retry_after(later) == pytest.approx(90, abs=2)
    assert _retry_after(format_datetime(now - timedelta(hours=1))) == 0


def test_retry_after_holds_every_request(archive: Archive, waits: Waits) -> None:
    archive.fault = lambda path, nth: "429 40" if "size" in path and nth == 1 else None
    with connected(waits) as web:
        web.json(f"{archive.url}/images/search/size/")
        assert max(waits.seconds) == pytest.approx(40, abs=2)
        waits.seconds.clear()
        web.json(f"{archive.url}/images/search/")  # another request, before the 40 s are over
        assert waits.seconds == [pytest.approx(40, abs=5)]


def test_a_retry_after_of_hours_is_said_instead(archive: Archive, waits: Waits) -> None:
    archive.fault = lambda path, nth: "429 7200"
    with connected(waits) as web, pytest.raises(Unreachable, match="left alone for 7200 s"):
        web.text(f"{archive.url}/x")
    assert sum(archive.asked.values()) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(archive: Archive, waits: Waits, status: int) -> None:
    archive.fault = lambda path, nth: str(status)
    with connected(waits, attempts=4, base=1.0) as web:
        with pytest.raises(Unreachable, match=rf"status {status} \(attempt 4 of 4\)"):
            web.text(f"{archive.url}/images/search/?Signature=secret")
        assert archive.asked["/images/search/"] == 4
        assert [round(math.log2(s) + 0.5) for s in waits.seconds] == [0, 1, 2]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 422])
def test_what_will_not_pass_is_asked_once(archive: Archive, waits: Waits, status: int) -> None:
    archive.fault = lambda path, nth: str(status)
    with connected(waits) as web, pytest.raises(Refused) as caught:
        web.text(f"{archive.url}/images/search/")
    assert caught.value.status == status
    assert "no</html>" in caught.value.text
    assert sum(archive.asked.values()) == 1


def test_a_signature_is_not_said(archive: Archive, waits: Waits) -> None:
    archive.fault = lambda path, nth: "500"
    with connected(waits) as web, pytest.raises(Unreachable) as caught:
        web.text(f"{archive.url}/images/search/?Signature=secret")
    assert "secret" not in str(caught.value)


def test_a_silent_server_is_a_broken_connection(archive: Archive, waits: Waits) -> None:
    archive.fault = lambda path, nth: "silent" if nth < 2 else None
    with connected(waits, timeout=0.2) as web:
        assert web.json(f"{archive.url}/images/search/size/")["size"] > 0
    assert archive.asked["/images/search/size/"] == 2


@pytest.mark.parametrize("address", ["http://[", "ftp://127.0.0.1/x", "nowhere"])
def test_addresses_that_are_none(waits: Waits, tmp_path: Path, address: str) -> None:
    with connected(waits) as web, pytest.raises((Refused, Unreachable)):
        web.save(address, tmp_path / "x", size=None, most=10)
    assert not list(tmp_path.iterdir())


def test_more_than_allowed_is_never_written(archive: Archive, waits: Waits, tmp_path: Path) -> None:
    name = archive.names[0]
    archive.files[name] = bytes(1 << 20)
    with connected(waits, attempts=2) as web:
        for size, most in ((None, 1000), (1000, 1 << 30), (1 << 21, 1 << 30)):
            with pytest.raises(Unreachable, match="expected"):
                web.save(f"{archive.url}/images/{name}.jpg", tmp_path / "x", size=size, most=most)
        archive.files[name] = b""
        with pytest.raises(Unreachable, match="expected some bytes, got 0"):
            web.save(f"{archive.url}/images/{name}.jpg", tmp_path / "x", size=None, most=1000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://x"])
def test_a_proxy_that_cannot_be_used(
    waits: Waits, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        connected(waits)


def test_a_stop_ends_a_wait(archive: Archive) -> None:
    stop = threading.Event()
    archive.fault = lambda path, nth: "429 600"
    with connected(stop) as web:
        threading.Timer(0.1, stop.set).start()
        start = time.monotonic()
        with pytest.raises(Stopped):
            web.text(f"{archive.url}/x")
    assert time.monotonic() - start < 5
