"""A progress bar on a terminal, log lines elsewhere; neither before two seconds have passed."""

import logging
import sys
import time
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds of work that need no sign of life
LINE_EVERY = 10.0  # seconds between log lines where there is no terminal


class Progress:
    """Counts `total` things called `what`; `advance(n)` after each piece of work.

    done: How many were there before this work; they count, but not towards the rate.
    """

    def __init__(self, what: str, *, total: int, done: int = 0, enabled: bool = True) -> None:
        self._what, self._total, self._enabled = what, total, enabled
        self._done = self._before = done
        self._start = time.monotonic()
        self._next = self._start + PATIENCE
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Count `count` more as done and show it if it is time."""
        self._done += count
        now = time.monotonic()
        if not self._enabled or now < self._next:
            return
        if sys.stderr.isatty():
            self._show_bar()
            return
        self._next = now + LINE_EVERY
        rate = (self._done - self._before) / (now - self._start)
        log.info("%s: %s of %s, %.0f/s", self._what, f"{self._done:,}", f"{self._total:,}", rate)

    def _show_bar(self) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=self._done)
