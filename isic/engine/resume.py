"""Resuming a run: its state on disk, its batches, its network's input.

Out of memory, a user halves the batch and doubles how many a step takes. The epochs of the run then
keep their samples and their steps: what an epoch leaves out at its end still follows from the batch
that the run began with (`isic.data.sampler.TrainingBatches.unit`).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isic.code_hash import CODE, edited_since, targets_code
from isic.data import LesionDataModule
from isic.errors import CheckpointError
from isic.identity import batches_of, read_config, same_steps
from isic.models.backbone import current_name, input_spec
from isic.runs import RunFolder
from isic.training.callbacks import stopped_early
from isic.training.checkpoint import resumable

log = logging.getLogger(__name__)


def go_on(config: dict[str, Any], data: LesionDataModule, folder: RunFolder) -> None:
    """Keep what a run began with and a config does not say: its epochs, its network's input."""
    _keep_epochs(config, data, folder)
    _keep_input(config, data, folder)


def _keep_epochs(config: Mapping[str, Any], data: LesionDataModule, folder: RunFolder) -> None:
    """Keep the epochs of a run that goes on in batches of another size, and say what differs."""
    try:
        begun = read_config(folder.config_file)
    except FileNotFoundError:  # a rank of srun or torchrun that is ahead of the first one
        return
    (size, batches), given = batches_of(begun), batches_of(config)
    if (size, batches) == given or not isinstance(size, int) or not same_steps(begun, config):
        return
    data.begun_batch_size = size
    log.info(
        "batches of %d x %d in place of %d x %d: the same experiment, as many images a step and "
        "steps an epoch; bits differ: batch norm and mixing see %d images at once",
        *(*given, size, batches, given[0]),
    )


def _keep_input(config: dict[str, Any], data: LesionDataModule, folder: RunFolder) -> None:
    """Go on with the image size, mean and std that a run began with under a former name of timm's.

    Before such names were understood, they stood for 224 px and ImageNet's mean and deviation.
    """
    name = config["model"].get("backbone")
    if not name or current_name(name) == name or not folder.last.exists():
        return
    begun = readable(folder.last)["isic"]["network"]
    now = input_spec(name)
    if (begun["image_size"], begun["mean"]) == (data.image_size, list(now.mean)):
        return
    data.image_size = begun["image_size"]
    config["data"] = {**config["data"], "image_size": begun["image_size"]}
    config["model"] = {**config["model"], "mean": begun["mean"], "std": begun["std"]}
    log.warning(
        "this run began with %d px, mean %s, std %s under the name %s, and goes on with them; "
        "overwrite=true begins with what the model was made for",
        *(begun["image_size"], begun["mean"], begun["std"], name),
    )


def on_edited_code(config: Mapping[str, Any], folder: RunFolder) -> list[str]:
    """Return what the score of a run must say whose own code was edited since it began.

    A run that has learnt nothing yet takes the code as it is now.
    """
    try:
        begun = read_config(folder.config_file)
    except FileNotFoundError:  # a rank that is ahead of the first one
        return []
    edited = edited_since(begun)
    if edited and not folder.last.exists():
        folder.write_config({**begun, CODE: targets_code(config)})
        return []
    return [f"{name} was edited after this run had begun: it learnt by both" for name in edited]


def is_trained(config: Mapping[str, Any], fold: Path) -> bool:
    """Return whether a fold's last epoch is on disk, so that nothing is left but to predict."""
    folder = RunFolder(fold)
    if folder.finished or not folder.last.exists():
        return False
    done = readable(folder.last)
    return stopped_early(done) or done["epoch"] + 1 >= config["trainer"]["max_epochs"]


def readable(path: Path) -> dict[str, Any]:
    """Read a checkpoint to go on from.

    Raises:
        CheckpointError: See `isic.training.checkpoint.resumable`; says how to start over.
    """
    try:
        return resumable(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Delete it to train this fold from the start (or overwrite=true)."
        ) from None
