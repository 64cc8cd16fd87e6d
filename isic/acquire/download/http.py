"""HTTP with patience: what is asked again, how long is waited, when it is given up.

Asked again: no connection, one that breaks or stalls, 408, 425, 429, 500, 502, 503, 504, a body of
another length than expected. Waits double, with jitter (so that threads which failed together do
not come back together); a `Retry-After` holds every thread, not only the one that got it.

A file is fetched from its start after a break: the archive's images are of a few MB, where asking
for a range costs as much as it saves. `httpx` is imported when the first connection is made.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from isic.errors import ConfigError, IsicError
from isic.files import whole_file

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRIED = (408, 425, 429, 500, 502, 503, 504)
MAX_HOLD = 900.0  # seconds of Retry-After that are waited; more is said to the user instead
MAX_ANSWER = 64 << 20  # bytes of a JSON page; one of 100 images has about 0.3 MB
CHUNK = 256 << 10  # bytes
FIRST_ATTEMPTS = 3  # while nothing has ever answered: the fault is then at this end


@dataclass(frozen=True)
class Patience:
    """How often and how slowly a request is made again.

    attempts: In all, the first one included.
    base: Seconds before the second attempt; doubled after each, halved at most by the jitter.
    longest: Seconds, the cap of one wait.
    timeout: Seconds without a byte after which a connection counts as broken.
    """

    attempts: int = 6
    base: float = 1.0
    longest: float = 60.0
    timeout: float = 30.0

    def wait(self, attempt: int) -> float:
        """Seconds to wait after the given attempt failed (1 is the first)."""
        return random.uniform(0.5, 1.0) * min(self.longest, self.base * 2.0 ** (attempt - 1))


class Refused(IsicError):
    """The server answered, and asking again would not help: `status` and the text it gave."""

    def __init__(self, url: str, status: int, text: str) -> None:
        super().__init__(f"{url} answered {status}: {text.strip()[:300] or 'no text'}")
        self.status, self.text = status, text


class Unreachable(IsicError):
    """No usable answer: `reason` is what the last attempt ended with."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url.partition('?')[0]}: {reason}")  # what follows may be a signature
        self.reason = reason


class Damaged(Unreachable):
    """Answers came, each with another body than expected: the network is not at fault."""


class Stopped(Exception):
    """The command is being ended; a thread leaves what it was doing."""


class _Again(Exception):
    """An attempt failed in a way that may pass; `after` is what the server asks to wait."""

    def __init__(self, reason: str, *, after: float = 0.0, damaged: bool = False) -> None:
        super().__init__(reason)
        self.after, self.damaged = after, damaged


class Connections:
    """Connections that all threads share; `stop` ends every wait.

    With: closes them at the end. Raises ConfigError for a proxy or certificates that cannot
    be used.
    """

    def __init__(self, patience: Patience, *, n_threads: int, stop: threading.Event) -> None:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request as INFO
        self.stop = stop
        self._patience = patience
        self._answered = False
        self._hold = 0.0  # monotonic time before which no request is made
        try:
            self._client = httpx.Client(
                timeout=patience.timeout,
                limits=httpx.Limits(max_connections=n_threads + 1),
                follow_redirects=True,
                headers={"User-Agent": "isic-experiments"},
            )
        except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
            names = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or SSL_CERT_FILE"
            raise ConfigError(f"a connection cannot be set up, see {names}: {error}") from None

    def __enter__(self) -> "Connections":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def text(self, url: str, params: Mapping[str, str] | None = None) -> str:
        """The body of an answer.

        Raises:
            Refused: A status that will not change.
            Unreachable: No whole answer in `attempts`.
        """

        def once() -> str:
            with self._answer(url, params) as response:
                self._judge(response)
                return _body(response, MAX_ANSWER).decode("utf-8", errors="replace")

        return self._patiently(url, once)

    def json(self, url: str, params: Mapping[str, str] | None = None) -> Any:
        """The body of an answer, decoded; raises as `text`, and Unreachable for what is no JSON."""
        text = self.text(url, params)
        try:
            return json.loads(text)
        except ValueError:
            raise Unreachable(url, f"expected JSON, got {text[:80]!r}") from None

    def save(self, url: str, path: Path, *, size: int | None, most: int) -> int:
        """Write a body to `path`, whole or not at all; its bytes.

        size: Bytes that are expected, where known; `most`: more than this is never written.
        Raises as `text`; OSError where the disk is at fault.
        """

        identity = {"Accept-Encoding": "identity"}  # sizes are those of the file

        def once() -> int:
            with self._answer(url, headers=identity) as response:
                self._judge(response)
                with whole_file(path) as file:
                    got = 0
                    for chunk in response.iter_bytes(CHUNK):
                        got += len(chunk)
                        if self.stop.is_set():
                            raise Stopped
                        if got > (most if size is None else size):
                            break
                        file.write(chunk)
                    if got > most or (size is not None and got != size) or not got:
                        more = " or more" if size is not None and got > size else ""
                        reason = f"expected {size or 'some'} bytes, got {got}{more}"
                        raise _Again(reason, damaged=True)
            return got

        return self._patiently(url, once)

    def _answer(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager["httpx.Response"]:
        return self._client.stream("GET", url, params=params, headers=headers)

    def _judge(self, response: "httpx.Response") -> None:
        """Raise for every status but 200."""
        self._answered = True
        status = response.status_code
        if self.stop.is_set():
            raise Stopped
        if status == 200:
            return
        if status in RETRIED:
            after = _retry_after(response.headers.get("Retry-After"))
            raise _Again(f"status {status}", after=after)
        text = _body(response, 4096).decode("utf-8", errors="replace")
        raise Refused(str(response.url), status, text)

    def _patiently(self, url: str, once: Callable[[], T]) -> T:
        import httpx

        attempt = 0
        while True:
            attempt += 1
            self._sleep(self._hold - time.monotonic())
            try:
                return once()
            except httpx.InvalidURL as error:
                raise Refused(url, 0, str(error)) from None
            except (_Again, httpx.HTTPError) as error:
                self._wait_or_give_up(url, attempt, error)

    def _wait_or_give_up(self, url: str, attempt: int, error: Exception) -> None:
        """Sleep before the next attempt, or raise Unreachable."""
        reason = f"{type(error).__name__.lstrip('_')}: {error}".removeprefix("Again: ")
        most = self._patience.attempts
        most = most if self._answered else min(FIRST_ATTEMPTS, most)
        after = error.after if isinstance(error, _Again) else 0.0
        if attempt >= most or after > MAX_HOLD:
            asked = f"; it asks to be left alone for {after:.0f} s" if after > MAX_HOLD else ""
            kind = Damaged if isinstance(error, _Again) and error.damaged else Unreachable
            raise kind(url, f"{reason} (attempt {attempt} of {most}{asked})") from None
        wait = self._patience.wait(attempt)
        if after:
            self._hold = max(self._hold, time.monotonic() + after)
        level = logging.INFO if after > 5 or not self._answered else logging.DEBUG
        log.log(level, "%s; asked again in %.1f s", Unreachable(url, reason), wait + after)
        self._sleep(wait)

    def _sleep(self, seconds: float) -> None:
        if self.stop.is_set() or (seconds > 0 and self.stop.wait(seconds)):
            raise Stopped


def _body(response: "httpx.Response", most: int) -> bytes:
    """At most `most` bytes of a body."""
    body = b""
    for chunk in response.iter_bytes(CHUNK):
        body += chunk
        if len(body) > most:
            return body[:most]
    return body


def _retry_after(value: str | None) -> float:
    """Seconds of a `Retry-After`: a number or a date (RFC 9110, 10.2.3); 0 for what is neither."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value)) if value.strip()[:1].isdigit() else _until(value)
    except (ValueError, TypeError):
        return 0.0


def _until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
