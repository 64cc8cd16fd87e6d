"""Checkpoints: written whole or not at all, read without running code.

A checkpoint carries the network's arguments, classes, archive, split hash and resolved config, so
`load(path)` needs nothing else. Only `weights_only=True` reads happen here, and what was read is
checked as a whole (`isic.training.record`) before any of it is used.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import nn

from isic.checksums import check_zip
from isic.config.shapes import Misshapen, check_shape
from isic.config.stored import Stored
from isic.config.targets import locate
from isic.errors import CheckpointError, ConfigError, IsicError
from isic.files import PREFIX, whole_file
from isic.training.losses import Objective
from isic.training.module import LesionClassifier
from isic.training.record import NEEDED, RESUMED, check_record, check_weights

log = logging.getLogger(__name__)

RECORD = ("config", "info", "split_hash", "index_hash", "metadata", "auxiliary")


def _interruption(error: BaseException) -> BaseException | None:
    """The Ctrl-C or SIGTERM that an error was raised over."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt | SystemExit):
        seen = seen.__context__
    return seen


class AtomicCheckpointIO(TorchCheckpointIO):
    """Temporary name in the same folder, fsync, rename; a full disk leaves the old file whole.

    Lightning writes to `$TMPDIR` and moves, which across file systems is a copy that can tear.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` to `path`."""
        target = Path(path)
        try:
            with whole_file(target) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch reports a full disk as RuntimeError from its zip writer, and Ctrl-C as well
            if stop := _interruption(error):
                raise stop from None
            kept = " The checkpoint before it is whole." if target.exists() else ""
            raise IsicError(
                f"{target} could not be written: {error}.{kept} Free some space, or set "
                "ISIC_RUNS_ROOT, and type the same command again."
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to go on from; never runs code from it."""
        return resumable(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete one file: Lightning would delete whatever folder or address a resume names."""
        Path(path).unlink(missing_ok=True)


def remove_litter(folder: Path) -> None:
    """Delete what a killed writer left in a run; call it only while holding the run's lock."""
    for path in folder.rglob(f"{PREFIX}*"):
        log.info("removed %s, which an interrupted process left half written", path)
        path.unlink(missing_ok=True)


def read(path: Path | str) -> dict[str, Any]:
    """The checkpoint's dictionary, on the CPU.

    Raises:
        CheckpointError: See `unchecked`; of a newer format, or with a part that is absent or
            something else.
    """
    plain = unchecked(path)
    try:
        check_record(plain["isic"])
        check_weights(plain.get("state_dict"))
    except Misshapen as fault:
        raise CheckpointError(f"{path} is refused: {fault}") from None
    return plain


def unchecked(path: Path | str) -> dict[str, Any]:
    """The checkpoint's dictionary, whatever it says; for who compares it and uses no part of it.

    Raises:
        CheckpointError: No such file, not a checkpoint, torn or damaged, or with code inside.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint: no such file: {path.resolve()}")
    if _is_zip(path) and (damage := check_zip(path)):  # torch does not compare checksums
        raise CheckpointError(
            f"{path} is no checkpoint: torn or changed, {path.stat().st_size} bytes: {damage}. "
            "Restore it from a copy, or train that fold again"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} is no checkpoint: {_reason(path, error)}") from None
    plain: dict[str, Any] = checkpoint if isinstance(checkpoint, dict) else {}
    record = plain.get("isic")
    if not isinstance(record, dict) or not NEEDED.issubset(record):
        raise CheckpointError(
            f"{path} is not a checkpoint of this framework: expected a key 'isic' with "
            f"{', '.join(sorted(NEEDED))}. To start from its weights use model.pretrained=PATH."
        )
    return plain


def require(path: Path, record: Mapping[str, Any], *keys: str) -> None:
    """Raise CheckpointError where a record lacks what says how and on what was trained."""
    if absent := [key for key in keys if key not in record]:
        raise CheckpointError(
            f"{path}: {', '.join(absent)} is absent: the file holds a network and not what it was "
            "trained on; isic.training.load(path) opens it in Python"
        )


def resumable(path: Path) -> dict[str, Any]:
    """A checkpoint to go on from.

    Raises:
        CheckpointError: See `read`; or without what a training goes on from.
    """
    checkpoint = read(path)
    try:
        check_shape(checkpoint, RESUMED)
    except Misshapen as fault:
        raise CheckpointError(f"{path} cannot be resumed from: {fault}") from None
    return checkpoint


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _reason(path: Path, error: Exception) -> str:
    """Why torch could not read a file; torch's own words advise to run the code in it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
    if not size:
        return "the file is empty"
    if not head.startswith(b"PK"):
        return f"expected a zip archive of tensors, got {size} bytes that start with {head!r}"
    try:
        code = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a torn archive, or a pickle that even the scanner does not know
        return f"torn or changed, {size} bytes: {str(error).partition('. ')[0]}"
    return f"it holds code, which was not run: {', '.join(sorted(code))}"


def load(
    path: Path | str,
    *,
    classes: tuple[str, ...] | None = None,
    trust: bool = False,
    named: frozenset[str] = frozenset(),
) -> LesionClassifier:
    """Rebuild the classifier that wrote `path`; its weights are the averaged ones where EMA was on.

    classes: That it must have.
    trust, named: As `isic.config.stored.Stored` takes them: whose network class may be built.

    Raises:
        CheckpointError: See `read`; other classes than asked for; weights that do not fit.
    """
    path, checkpoint = Path(path), read(path)
    record = checkpoint["isic"]
    if classes is not None and tuple(record["classes"]) != tuple(classes):
        raise CheckpointError(
            f"{path} predicts {len(record['classes'])} classes ({', '.join(record['classes'])}), "
            f"the archive has {len(classes)} ({', '.join(classes)})"
        )
    build = _network_class(record["network_class"], str(path), trust=trust, named=named)
    try:
        network = build(**{**record["network"], "pretrained": False})
    except Exception as error:  # whatever its libraries make of arguments that they cannot take
        raise CheckpointError(f"{path}: its network cannot be built here: {error}") from error
    classifier = LesionClassifier(
        network,
        classes=record["classes"],
        objective=Objective(nn.Identity(), activation=record["activation"]),
        record={k: record[k] for k in RECORD if k in record},
    )
    load_weights(classifier, checkpoint, path)
    return classifier


def load_weights(classifier: LesionClassifier, checkpoint: dict[str, Any], path: Path) -> None:
    """Strict load of the network's part of a checkpoint, naming the keys that differ."""
    state = {
        k.removeprefix("network."): v
        for k, v in checkpoint["state_dict"].items()
        if k.startswith("network.")
    }
    try:
        classifier.network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its own architecture: {error}") from None


def _network_class(
    name: str, source: str, *, trust: bool, named: frozenset[str]
) -> type[nn.Module]:
    """Import the network's class; only this package's own, unless the user answers for it."""
    node = {"network_class": {"_target_": name}}
    Stored(node, source, trust, named).check()
    try:
        found = locate(name)
    except ConfigError as error:
        raise CheckpointError(f"{source}: network_class: {error}") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise CheckpointError(f"{source}: network_class: {name} is no network")
    return found
