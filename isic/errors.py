"""What can go wrong, by whose fault: each class carries the exit code that the commands end with.

| code | meaning |
|---|---|
| 0 | done |
| 1 | failure: `IsicError` and any other exception |
| 2 | command line or config, before data is touched: `ConfigError` |
| 3 | the data is at fault: `DataError` |
| 4 | a checkpoint is refused: `CheckpointError` |
| 130, 143 | Ctrl-C, SIGTERM |
"""

from collections.abc import Iterable


class IsicError(Exception):
    """A failure with a message for the user: expected, got, where, next step."""

    exit_code = 1


class ConfigError(IsicError):
    """The command line or a config is wrong; no data was touched."""

    exit_code = 2


class DataError(IsicError):
    """The archive, a split or a predictions file is wrong."""

    exit_code = 3


class CheckpointError(IsicError):
    """A checkpoint is refused: another architecture, other classes, or code inside."""

    exit_code = 4


UNREADABLE = (IsicError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading another run's files may raise, where they are not as they were written."""


def unwrapped(error: BaseException) -> BaseException:
    """Return our own error where Hydra wrapped one that a component's constructor raised."""
    cause = error.__cause__
    return cause if isinstance(cause, IsicError) and not isinstance(error, IsicError) else error


def one_line(error: BaseException) -> str:
    """Return what an error says in one line, for a list of several."""
    text = " ".join(str(error).split())
    return text if isinstance(error, IsicError | OSError) else f"{type(error).__name__}: {text}"


def first_five(ids: Iterable[object]) -> str:
    """Name the first five of `ids` and count the rest: `a, b, c, d, e and 7 more`."""
    # a name of bytes that are no UTF-8 could be written nowhere as it is
    listed = [str(i).encode("utf-8", "backslashreplace").decode() for i in ids]
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more
