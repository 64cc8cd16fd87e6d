"""From a command line to one function of `isic.engine` or `isic.stages`: compose, run, exit code.

Hydra composes `conf/<command>.yaml`; its own blanket exit code 1, its `outputs/` folders and its
stack traces are replaced here and nowhere else. Only Hydra is imported before the job starts, so
that `--help` and a mistyped key answer at once. `HYDRA_FULL_ERROR=1` shows full stack traces.
"""

import difflib
import errno
import importlib
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from isic.config import SCHEMAS
from isic.config.paths import changed_paths, expand_variables, refuse_undecodable
from isic.config.words import checked_words, unread_word
from isic.errors import ConfigError, IsicError, unwrapped
from isic.outputs import keep_apart
from isic.streams import print_result

log = logging.getLogger(__name__)

_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)

CONF = Path(__file__).resolve().parents[1] / "conf"


@dataclass
class Outcome:
    """How one job of a multirun ended; `log` is the file of its output, where it has its own."""

    job: str
    exit_code: int
    message: str
    log: str = ""

    @property
    def state(self) -> str:
        """In one word, with the exit code of a failure."""
        return "done" if self.exit_code == 0 else f"failed ({self.exit_code})"


def command(name: str, task: str) -> None:
    """Run `task` ("module:function") on the config `conf/<name>.yaml`; exits the process.

    Exit codes: see `isic.errors`. A multirun goes on past a failing job, prints a table of all
    jobs and ends with 1 if any failed.
    """
    expand_variables()
    try:
        sys.argv[1:] = checked_words(sys.argv[1:])
    except ConfigError as error:
        _fail(str(error), error.exit_code)
    if not CONF.is_dir():
        _fail(f"no configs at {CONF}: the commands run from a clone (pip install -e .)", 2)
    full_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    finished = leave_on_sigterm(name)
    try:
        outcomes = run(name, task)
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_composition_message(error, name), 2, error if full_trace else None)
    except KeyboardInterrupt:
        _fail(f"interrupted; the same command goes on from {finished}", 130)
    except Exception as error:
        _fail(_message(error), exit_code(error))
    if len(outcomes) > 1:
        print_result(_table(outcomes))
        sys.exit(1 if any(o.exit_code for o in outcomes) else 0)
    sys.exit(outcomes[0].exit_code if outcomes else 0)


def run(name: str, task: str) -> list[Outcome]:
    """Compose what `sys.argv` says and run its jobs; what cannot be composed raises."""
    full_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises to us instead of exiting with 1
    # Spinning threads of torch and OpenCV slow each other down tenfold on a machine that is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for schema, node in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{schema}_schema", node=node)
    outcomes: list[Outcome] = []
    job = _job(task, outcomes, full_trace)
    # what a launcher needs that starts the same task elsewhere
    vars(job).update(command=(name, task), outcomes=outcomes, full_trace=full_trace)
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)()
    return outcomes


def outcome_of(name: str, task: str, overrides: Sequence[str]) -> Outcome:
    """Run one job of another process's multirun in this one; never raises what a job may raise."""
    sys.argv = [f"{name}.py", *overrides]
    try:
        return run(name, task)[0]
    except Exception as error:
        composition = isinstance(error, HydraException | OmegaConfBaseException)
        message = _composition_message(error, name) if composition else _message(error)
        _fail_job(message, None)
        return Outcome(" ".join(overrides), exit_code(error), message.strip().splitlines()[-1])


def exit_code(error: BaseException) -> int:
    """Map an exception to the exit code of the command."""
    error = unwrapped(error)
    if isinstance(error, OmegaConfBaseException | HydraException):
        return 2
    return error.exit_code if isinstance(error, IsicError) else 1


def leave_on_sigterm(name: str) -> str:
    """Exit with 143 on SIGTERM; returns what the same command goes on from."""
    finished = "the last epoch on disk" if name == "train" else "what is finished"
    signal.signal(signal.SIGTERM, partial(_terminate, finished))
    return finished


def _terminate(finished: str, signum: int, frame: object) -> None:
    """Leave through `finally` blocks; what is finished is already on disk."""
    os.write(2, f"terminated; the same command goes on from {finished}\n".encode())
    raise SystemExit(128 + signum)


def _job(task: str, outcomes: list[Outcome], full_trace: bool) -> Callable[[DictConfig], Any]:
    module, function = task.split(":")

    def job(cfg: DictConfig) -> Any:
        logging.captureWarnings(True)
        job_name = " ".join(HydraConfig.get().overrides.task) if HydraConfig.initialized() else ""
        try:
            _take_paths(cfg)
            result = getattr(importlib.import_module(module), function)(cfg)
        except Exception as error:
            message = _message(error)
            _fail_job(message, error if full_trace else None)
            outcomes.append(Outcome(job_name, exit_code(error), _in_one_line(error)))
            return None
        outcomes.append(Outcome(job_name, 0, "" if result is None else str(result)))
        return result

    job.__module__ = "__main__"  # Hydra derives the job's name from the script
    return job


def _take_paths(cfg: DictConfig) -> None:
    """Paths of a config as they were typed, and relative to where: before a command sees them."""
    if HydraConfig.initialized() and HydraConfig.get().job.chdir:
        os.chdir(HydraConfig.get().runtime.cwd)
    plain = OmegaConf.to_container(cfg, resolve=False)
    for key, value in changed_paths(plain, partial(OmegaConf.select, cfg)).items():  # type: ignore[arg-type]
        OmegaConf.update(cfg, key, value, merge=False)
    if "paths" in cfg:  # what relative paths of a stored config begin at
        OmegaConf.update(cfg, "paths.cwd", os.getcwd(), force_add=True)
    places = {k: OmegaConf.select(cfg, k) for k in ("data.root", "images", "output", "paths.runs")}
    refuse_undecodable(places)
    keep_apart(**{key.replace(".", "_"): value for key, value in places.items()})


def _message(error: BaseException) -> str:
    error = unwrapped(error)
    if isinstance(error, IsicError | HydraException):
        return str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: expected a value, got none: {error.full_key}=...; see --help"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error}. What was finished is whole: free some space, give the same command again."
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename:
        return (
            f"{error.filename}: {error.strerror}. Runs, packs and data lie where ISIC_RUNS_ROOT, "
            "ISIC_CACHE_ROOT and data.root=DIR say; the first two must be writable."
        )
    return "".join(traceback.format_exception(error))


def _in_one_line(error: BaseException) -> str:
    """For the table of a multirun: ours say first what is wrong, a stack trace says it last."""
    lines = _message(error).strip().splitlines()
    if not isinstance(unwrapped(error), IsicError):
        return lines[-1]
    if lines[0].endswith(":") and len(lines) > 1:  # a list of faults: the first one of them too
        return f"{lines[0]} {lines[1].strip().removeprefix('- ')}"
    return lines[0]


def _fail_job(message: str, error: BaseException | None) -> None:
    if error is not None:
        traceback.print_exception(error)
    with suppress(BrokenPipeError):  # the exit code still tells
        sys.stderr.write(f"error: {message.strip()}\n")


def _fail(message: str, code: int, error: BaseException | None = None) -> None:
    _fail_job(message, error)
    sys.exit(code)


def _composition_message(error: Exception, name: str) -> str:
    """Say which override is wrong and which key, group or option comes nearest."""
    text = f"{error}\n{error.__cause__ or ''}"
    if isinstance(error, HydraException) and (unread := unread_word(error)):
        return unread
    override = re.search(r"override '([^']+)'", text) or re.search(r"Key '([^']+)'", text)
    if missing := _missing_choice(text):
        group, wanted, options = missing
        near = difflib.get_close_matches(wanted, options, n=3, cutoff=0.4)
        return f"{group}={wanted}: no such choice; there are: {', '.join(options)}." + (
            _did_you_mean(near)
        )
    if override:
        key = override.group(1).split("=")[0].split("@")[0].lstrip("+~")
        known = known_keys(name)
        leaf = {k.split(".")[-1]: k for k in known}
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
        near = near or [
            leaf[m] for m in difflib.get_close_matches(key.split(".")[-1], list(leaf), 3, 0.6)
        ]
        if key not in known:
            return f"{key}: no such key in conf/{name}.yaml." + _did_you_mean(near)
    return text.strip()


def _missing_choice(text: str) -> tuple[str, str, list[str]] | None:
    """Group, choice and what there is instead, of Hydra's two messages: of one, and of a list."""
    one = r"Could not find '(?:[^']*/)?([^'/]+)'\s+Available options in '([^']+)':((?:\n\t\S+)+)"
    if found := re.search(one, text):
        return found[2], found[1], sorted(found[3].split())
    if found := re.search(r"Could not load '([^']+)/([^'/]+)'", text):
        return found[1], found[2], sorted(p.stem for p in (CONF / found[1]).glob("*.yaml"))
    return None


def _did_you_mean(near: list[str]) -> str:
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{hint} --cfg job prints every key, --help every choice."


def known_keys(name: str) -> list[str]:
    """Every key of a command's default config, dotted, groups included."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = hydra.compose(config_name=name, return_hydra_config=False)
    return sorted(_flatten(cfg))


def _flatten(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in map(str, node):
        keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            child = node[key]
            if isinstance(child, DictConfig):
                keys += _flatten(child, f"{prefix}{key}.")
    return keys


def _table(outcomes: Sequence[Outcome]) -> str:
    """Job, state, message and log; words that all jobs share are left out of their names.

    What a message holds beyond its first line, as the score of all folds, comes last, and once.
    """
    # paths stand in Hydra's quotes, which nobody typed
    words = [re.sub(r"='([^']*)'(?= |$)", r"=\1", o.job).split() for o in outcomes]
    shared = set.intersection(*map(set, words))
    names = [" ".join(w for w in job if w not in shared) or " ".join(job) for job in words]
    width = max(map(len, names))
    lines: list[str] = []
    last: dict[str, None] = {}
    for name, o in zip(names, outcomes, strict=True):
        message, *more = o.message.splitlines() or [""]
        lines.append(f"{name:<{width}}  {o.state:<10}  {message}  {o.log}".rstrip())
        last |= dict.fromkeys(more)
    return "\n".join([*lines, *filter(None, last)])


__all__ = [
    *("CONF", "Outcome", "command", "exit_code", "known_keys", "leave_on_sigterm", "outcome_of"),
    "run",
]
