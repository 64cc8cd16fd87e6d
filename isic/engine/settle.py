"""`loss=auto` settled for a run: by its archive's classes, or as a run of the same command began.

Before there was a choice, the default was `loss=bce` for every archive. A run that began so goes on
so, and says it.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isic.composition import Composition
from isic.config.loss import is_open, option_for, options
from isic.errors import UNREADABLE
from isic.identity import changes, read_config
from isic.index.schema import DatasetInfo

log = logging.getLogger(__name__)

FORMER = "bce"


def variants(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the configs that this one may become, whichever archive it meets."""
    if not is_open(config["loss"]):
        return [dict(config)]
    return [{**config, "loss": node} for node in options(config["loss"]).values()]


def settle(
    config: dict[str, Any],
    content: Mapping[str, Any],
    info: DatasetInfo,
    *,
    stored: Iterable[Path],
    today: Composition | None,
) -> None:
    """Put the loss that a run is trained with into its config, in place.

    stored: The `config.yaml` of runs that the command may mean.
    today: What the config was composed of; told which loss it is.
    """
    if not is_open(config["loss"]):
        return
    option, nodes = option_for(config["loss"], info), options(config["loss"])
    if option != FORMER:
        files = list(stored)
        for candidate in (option, FORMER):
            entry = {**config, **content, "loss": nodes[candidate]}
            if any(_is_of(file, entry, today) for file in files):
                option = candidate
                break
    config["loss"] = nodes[option]
    if today:
        today.choices["loss"] = option


def say_loss(loss: Mapping[str, Any], info: DatasetInfo) -> None:
    """Log the loss; warn where its probabilities do not sum to 1 over several classes."""
    name = str(loss["loss"]["_target_"]).rpartition(".")[2]
    n = len(info.classes)
    if loss["activation"] == "sigmoid" and n > 2:
        log.warning(
            "loss    %s, a sigmoid for each of %d classes: probabilities of an image do not sum "
            "to 1; loss=ce has them do so",
            *(name, n),
        )
    else:
        log.info("loss    %s, %s over %d classes", name, loss["activation"], n)


def _is_of(file: Path, entry: Mapping[str, Any], today: Composition | None) -> bool:
    try:
        return not changes(read_config(file), entry, today.defaults if today else None)
    except UNREADABLE:  # no config of ours
        return False
