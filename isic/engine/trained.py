"""The run behind a checkpoint, as it is stored: its config as data, its data module, its split.

Everything here was written by another command, and may come from anybody: it is checked as a whole
(`isic.config.stored`), and of how the run was trained nothing is made.
"""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from isic.config.inference import applied_index
from isic.config.paths import located_data
from isic.config.shapes import Misshapen, check_shape, read_stored
from isic.config.stored import Stored
from isic.config.targets import targets_of
from isic.data import LesionDataModule
from isic.engine.build import build_data
from isic.errors import CheckpointError, ConfigError
from isic.index import unlabelled
from isic.index.metadata import MetadataEncoder
from isic.index.unread_cells import refuse_unread
from isic.signatures import check_signatures
from isic.split.split_file import split_hash
from isic.training.checkpoint import require
from isic.training.record import SIDE
from isic.training.tta import loaded_size

# Of a teacher's own data: how its images are made, and what it is told beside them.
ITS_OWN = ("views", "metadata", "cache", "resize", "crop_border", "colour_constancy")
DATA = dict.fromkeys(("views?", "metadata?"), (type(None), [str])) | {
    "resize?": (type(None), SIDE),
    "num_workers?": ({"auto"}, range(129)),
}
"""What a file may say of its data that memory or processes of this machine are taken for."""
FOLD = {
    "fold": (range(10_000), {"all"}),
    "evaluate": {"last", "best"},
}
NUMBERED = FOLD | {"n_folds": range(1, 10_000)}
"""What is read of a fold's config to find its checkpoint."""


def fold_config(fold: Path, key: str, shape: Any = FOLD) -> dict[str, Any]:
    """Read the stored config of a fold. Raises CheckpointError, which names file and fault."""
    mend = f"{key}: give a checkpoint file itself, or train that fold again"
    return read_stored(fold / "config.yaml", shape, mend=mend, error=CheckpointError)


def stored_config(
    path: Path,
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    overridden: Collection[str] = (),
) -> Stored:
    """The config that a checkpoint was trained with, all of it checked.

    config: This command's own: the code that it names is trusted.
    overridden: Keys of `data` that the command gives, so that the stored ones are not used.

    Raises:
        CheckpointError: It names code, paths or addresses where none belong; or it is absent.
    """
    require(path, record, "config", "info")
    trained = dict(record["config"])
    trained["data"] = {k: v for k, v in trained["data"].items() if k not in overridden}
    stored = Stored(trained, str(path), bool(config.get("trust")), targets_of(config))
    stored.check()
    try:
        check_shape(trained["data"], DATA, "config.data")
    except Misshapen as fault:
        raise CheckpointError(f"{path}: {fault}") from None
    return stored


def overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `data` that `predict.py` was given."""
    given = {k: v for k, v in config["data"].items() if v is not None and k != "index"}
    return given | ({"root": config["images"]} if config["images"] else {})


def side_of(path: Path | str, record: Mapping[str, Any]) -> int:
    """Side in pixels of the images that a checkpoint was trained with."""
    stated = record["network"].get("image_size"), record["config"]["data"].get("image_size")
    if known := [side for side in stated if isinstance(side, int)]:
        return known[0]
    raise CheckpointError(f"{path}: network.image_size is absent: the side of its images")


def data_of(
    stored: Stored, record: Mapping[str, Any], config: Mapping[str, Any]
) -> LesionDataModule:
    """The data module that a checkpoint was trained with, with this command's overrides.

    Nothing is made of how it was trained: transforms, sampler and split have no part in this.
    """
    trained, taken, side = stored.config["data"], overrides(config), side_of(stored.source, record)
    here = located_data({**stored.config, "data": {"root": None, **trained}})
    if here.get("index"):
        here["index"] = applied_index(here["index"], config["data"].get("index"))
    # images that were only trained on stay out
    node = {**here, **taken, "extra": None, "image_size": loaded_size(config["tta"], side)}
    given: dict[str, Any] = {
        "fold": "all",
        "seed": stored.config.get("seed", 0),
        "runs_root": Path(config["paths"]["runs"]).resolve(),
        "cache_root": Path(config["paths"]["cache"]).resolve(),
    }
    if config["images"]:
        views = trained.get("views") or []
        given["index"] = partial(unlabelled.build_index, info=record["info"], views=views)
        node.pop("index", None)
    try:
        check_signatures(node, "data")
        data: LesionDataModule = stored.make("data", node, given=given)
    except ConfigError as error:
        if str(error).startswith(tuple(f"data.{key}" for key in taken)):
            raise  # the command line's own
        raise CheckpointError(f"{stored.source}: {error}") from None
    if data.metadata:  # what the checkpoint learned of its own training rows
        require(Path(stored.source), record, "metadata")
        data.encoder = encoder = MetadataEncoder.from_dict(record["metadata"])
        refuse_unread(data.index, encoder.columns, key="data.metadata of the checkpoint")
    return data


def kept_split(record: Mapping[str, Any], *, runs: Path) -> Path | None:
    """The split file of a checkpoint, where it was or among the runs, with the hash it had."""
    named = Path(record.get("split_file", "unknown"))
    for path in (named, runs / "splits" / named.name):
        if path.is_file() and split_hash(path) == record.get("split_hash"):
            return path
    return None


def seen_by(path: Path, record: Mapping[str, Any], config: Mapping[str, Any]) -> LesionDataModule:
    """The student's archive as a teacher's checkpoint sees images and metadata."""
    trained = stored_config(path, record, config).config["data"]
    seen = {k: trained[k] for k in ITS_OWN if k in trained}
    merged = {**config["data"], **seen, "image_size": side_of(path, record)}
    try:
        check_signatures(merged, "data")
        data = build_data({**config, "data": merged, "auxiliary": None})
    except ConfigError as error:  # the student's own `data` was taken already
        raise CheckpointError(f"distill.teacher: {path}: {error}") from None
    if data.metadata:
        require(path, record, "metadata")
        data.encoder = MetadataEncoder.from_dict(record["metadata"])
    return data
