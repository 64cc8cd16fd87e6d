"""Output streams: results to standard output, logs and progress to standard error.

A result is what a command was given for: a score line, a table, the files of predictions. Modules
hand it to `show`; the commands' logging config sends it to standard output, and to nowhere else. In
a notebook or a test it is a log record like any other.
Trap: who reads a pipe may leave it (`isic runs | head -1`): a training must not end over that.
"""

import logging
import os
import sys
from functools import cache

RESULTS = logging.getLogger("isic.results")


def show(text: str) -> None:
    """Give a result, of one line or several."""
    RESULTS.info("%s", text)


@cache
def warn_once(log: logging.Logger, text: str) -> None:
    """Log a warning once a process: the folds of a run have the same to say."""
    log.warning("%s", text)


def print_result(text: str) -> None:
    """Write lines to standard output, at once; a reader that has gone is no fault."""
    if sys.stdout is None:  # closed by who started this
        return
    try:
        try:
            sys.stdout.write(f"{text}\n")
        except UnicodeEncodeError:  # LANG=C, and a folder of another alphabet
            encoding = sys.stdout.encoding
            sys.stdout.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # else Python says so once more when it flushes at its end, and ends with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ResultHandler(logging.Handler):
    """Writes results to standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one result."""
        print_result(self.format(record))


class OnlyLogs(logging.Filter):
    """Keeps results away from standard error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether standard error takes the record."""
        return record.name != RESULTS.name


def on_one_terminal() -> bool:
    """Return whether both streams are one terminal, so that nothing is written to both."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))
