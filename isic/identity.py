"""Identity of a run: whether two configs are the same experiment, and the name that follows.

Source: the config of a command as it was resolved, and `config.yaml` of a run, which an earlier or
later version may have written. A key that one of them lacks has its default value: today's, in the
choices that the stored run was composed of, where the run lacks it; its former one where today's
version does, as `config.yaml` names the keys that were given another value (`composition.given`).
Batches of another size with as many images a step are the same experiment in other bits.
Trap: `transforms=turned` is `light` with two keys more. A key is therefore at its default only if
the choice of the stored run has it, never because the choice of today has.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from glob import escape
from pathlib import Path
from typing import Any

from isic.checksums import Damaged, read_yaml
from isic.code_hash import CODE
from isic.errors import UNREADABLE
from isic.flat_config import Flat, flatten, lacks, unflatten
from isic.names import given_name
from isic.plain import check_plain

Defaults = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""A stored config -> today's flat defaults for the choices it was composed of, or None."""

COMPOSITION = "composition"  # in a stored config: its choices of groups, the keys given
PREDICTED_WITH = "prediction_batch_size"  # in a stored config, where the prediction took another
BATCH, ACCUMULATE = "data.batch_size", "trainer.accumulate_grad_batches"

NEUTRAL = (
    "name fold overwrite trust paths logger callbacks.progress n_jobs on_leak "
    "data.root data.num_workers data.on_bad_image distill.teacher "
    "trainer.accelerator trainer.devices trainer.num_nodes trainer.precision trainer.compile "
    "trainer.channels_last trainer.deterministic"
).split() + [COMPOSITION, PREDICTED_WITH, CODE]
"""Keys that say where and on what a run is made, not what it learns.

A teacher's name is one of them: `teacher_hash` stands for its content. So is each of
`metrics.functions` but the one that is monitored, which can choose a checkpoint."""


def identity(config: Mapping[str, Any]) -> Flat:
    """Return a config without the `NEUTRAL` keys and those that are null, flat.

    An optional group that is off is no difference from a config that does not know it.
    """
    metrics = config.get("metrics") or {}
    monitored = f"metrics.functions.{str(metrics.get('monitor')).removeprefix('val/')}"

    def neutral(key: str) -> bool:
        if _within(key, "metrics.functions"):
            return not _within(key, monitored)
        return any(_within(key, n) for n in NEUTRAL)

    flat = sorted(flatten(config).items())
    return {k: v for k, v in flat if v is not None and not neutral(k)}


def _within(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def run_name(config: Mapping[str, Any], *, data: str, model: str, content: str) -> str:
    """The given name, or `<data>-<model>-<hash6>`; `content` stands for archive and split."""
    if name := given_name(config):
        return name
    text = json.dumps([identity(config), content], sort_keys=True, default=str)
    return f"{data}-{model}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def settled_name(
    config: Mapping[str, Any],
    content: Mapping[str, Any],
    *,
    data: str,
    model: str,
    text: str,
    runs: Path,
    defaults: Defaults | None,
    at: str,
    trained: Callable[[Path], bool] = lambda fold: False,
) -> str:
    """The given name; else that of a run of the same experiment, or a new one.

    Args:
        config, content: As `RunFolder.claim` takes them.
        data, model, text: As `run_name` takes them; `text` stands for the content.
        runs: The folder of all runs.
        defaults, at, trained: As `same_experiment` takes them.
    """
    name = run_name(config, data=data, model=model, content=text)
    if config.get("name") or (runs / name).exists():
        return name
    prefix, entry = name.rpartition("-")[0], {**config, **content}
    return same_experiment(runs, prefix, entry, defaults, at=at, trained=trained) or name


def differing(
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    defaults: Defaults | None = None,
    predicts_only: bool = False,
) -> list[str]:
    """List `key: stored -> wanted` for each key that changes what is learnt.

    Args:
        stored: The config of a run.
        wanted: That of a command now.
        defaults: Values of the keys that `stored` lacks; without them such a key differs.
        predicts_only: Nothing is left to train, so that batches of any size give the same.
    """
    a, b = identity(stored), identity(wanted)
    keys = _unequal(a, b)
    if predicts_only or same_steps(stored, wanted):
        keys -= {BATCH, ACCUMULATE}
    keys -= _at_default(keys, stored, wanted, defaults)
    return _said(keys, a, b)


def differing_flat(stored: Flat, wanted: Flat, *, defaults: Defaults | None = None) -> list[str]:
    """Do the same for two results of `identity`, of which every key counts."""
    keys = _unequal(stored, wanted)
    return _said(keys - _at_default(keys, unflatten(stored), wanted, defaults), stored, wanted)


def _unequal(a: Flat, b: Flat) -> set[str]:
    return {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)}


def _said(keys: set[str], a: Flat, b: Flat) -> list[str]:
    return [f"{k}: {a.get(k)} -> {b.get(k)}" for k in sorted(keys)]


def batches_of(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Images a batch over all devices, and batches a step of the optimizer."""
    flat = flatten(config)
    return flat.get(BATCH), flat.get(ACCUMULATE, 1)


def same_steps(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether two configs have as many images a step, and as many steps an epoch."""
    if flatten(wanted).get("trainer.limit_train_batches", 1.0) != 1.0:  # these are counted
        return False
    pairs = batches_of(stored), batches_of(wanted)
    if not all(isinstance(number, int) for pair in pairs for number in pair):
        return False
    return bool(pairs[0][0] * pairs[0][1] == pairs[1][0] * pairs[1][1])


def with_batches_of(file: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the batches that a run's own `config.yaml` was begun with."""
    try:
        size, batches = batches_of(read_config(file))
    except FileNotFoundError:
        return dict(entry)
    if not isinstance(size, int) or not isinstance(batches, int) or "data" not in entry:
        return dict(entry)
    given = {**entry, "data": {**entry["data"], "batch_size": size}}
    if "trainer" in entry:
        given["trainer"] = {**entry["trainer"], "accumulate_grad_batches": batches}
    return given


def _at_default(
    keys: set[str],
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    defaults: Defaults | None,
) -> set[str]:
    """Return those of `keys` that one config lacks and the other has at its default."""
    flat_stored, flat_wanted = flatten(stored), flatten(wanted)
    absent = {k for k in keys if lacks(flat_stored, k)}
    unknown = {k for k in keys - absent if lacks(flat_wanted, k)}
    # a content that was not hashed yet cannot be compared; the keys that point at it can
    alike = {k for k in absent if re.fullmatch(r"\w+_hash", k)}
    if not (absent - alike or unknown):
        return alike
    now = defaults(stored) if defaults else None
    if now is None:
        return alike
    given = (stored.get(COMPOSITION) or {}).get("given")
    deleted = set(given or ())  # what the stored config lacks of them
    alike |= {k for k in absent - deleted if k in now and now[k] == flat_wanted[k]}
    if given is not None:
        alike |= {k for k in unknown if k not in now and k not in given}
    return alike


def read_config(file: Path) -> dict[str, Any]:
    """Read a `config.yaml`. Raises Damaged where it is not as it was written, or is no config."""
    try:
        read = read_yaml(file)
        check_plain(read)
    except Damaged:
        raise
    # a date of month 13, brackets without end, or one value nested in another a thousandfold
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{file} cannot be read: {error}; restore it from a copy") from None
    if not isinstance(read, dict):
        got = "an empty file" if read is None else type(read).__name__
        raise Damaged(
            f"{file} cannot be read: expected a config, got {got}; restore it from a copy"
        )
    return read


def is_garbled(file: Path) -> bool:
    """Return whether a `config.yaml` exists and cannot be read."""
    try:
        read_config(file)
    except (Damaged, OSError) as error:
        return isinstance(error, Damaged)
    return False


def changed_from(file: Path, entry: Mapping[str, Any], defaults: Defaults | None) -> list[str]:
    """List what differs from a stored config; empty where the file does not exist (any more)."""
    try:
        stored = read_config(file)
    except FileNotFoundError:  # another process has just cleared it
        return []
    return changes(stored, entry, defaults)


def changes(
    stored: Mapping[str, Any], entry: Mapping[str, Any], defaults: Defaults | None
) -> list[str]:
    """List what differs from the stored config of a run, whatever its prediction was made with."""
    predicted = stored.get(PREDICTED_WITH, 0) == flatten(entry).get("data.batch_size")
    same_fold = stored.get("fold") == entry.get("fold")  # another one was trained with its own
    return differing(stored, entry, defaults=defaults, predicts_only=predicted and same_fold)


def same_experiment(
    runs: Path,
    prefix: str,
    entry: Mapping[str, Any],
    defaults: Defaults | None,
    *,
    at: str,
    trained: Callable[[Path], bool] = lambda fold: False,
) -> str | None:
    """The name `<prefix>-<hash6>` of a run or stack that is there and is of the same experiment.

    entry: The config with its content, as `claim` takes them.
    at: Where in its folder such a run keeps its configs: `fold*/config.yaml`.
    trained: Whether nothing is left for a fold's folder but to predict.
    """
    names = f"{escape(prefix)}-{'[0-9a-f]' * 6}/{at}"
    # what is finished first, then the oldest: the name that was made first is the one that stays
    files = sorted(
        (not (f.parent / "score.json").exists(), f.stat().st_mtime_ns, f) for f in runs.glob(names)
    )
    for _, _, file in files:
        try:
            stored = read_config(file)
            same = not changes(stored, entry, defaults)
            if not same and stored.get("fold") == entry.get("fold"):
                apart = differing(stored, entry, defaults=defaults, predicts_only=True)
                same = not apart and trained(file.parent)
            if same:
                return file.relative_to(runs).parts[0]
        except UNREADABLE:  # no config of ours
            continue
    return None
