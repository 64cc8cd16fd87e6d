"""`loss=auto`: which of its two losses an archive is trained with.

Cross-entropy where an image has exactly one of three classes or more: sigmoids of their own give
such classes probabilities that do not sum to 1. Binary cross-entropy elsewhere, and where a weight
of positives is asked for, which only it has.
"""

from collections.abc import Mapping
from typing import Any, Protocol

Node = dict[str, Any]


class Classes(Protocol):
    """The part of an archive's `DatasetInfo` that the choice depends on."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def task(self) -> str: ...


def is_open(node: Mapping[str, Any]) -> bool:
    """Return whether a loss is still to be chosen."""
    return "exclusive" in node


def options(node: Mapping[str, Any]) -> dict[str, Node]:
    """Option of the group `loss` -> its node, as an explicit `loss=` composes it."""
    exclusive: Node = node["exclusive"]
    shared = {k: v for k, v in node["loss"].items() if k in exclusive["loss"] and k != "_target_"}
    return {
        "bce": {k: v for k, v in node.items() if k != "exclusive"}
        | {"_target_": exclusive["_target_"]},
        "ce": {**exclusive, "loss": {**exclusive["loss"], **shared}},
    }


def option_for(node: Mapping[str, Any], info: Classes) -> str:
    """`ce` or `bce`, for the classes of an archive."""
    one_of_many = info.task == "multiclass" and len(info.classes) > 2
    weighted = node["loss"].get("pos_weight") is not None
    return "ce" if one_of_many and not weighted else "bce"


def chosen_loss(node: Mapping[str, Any], info: Classes) -> Node:
    """The node of a loss for an archive; one that is no choice stays as it is."""
    return options(node)[option_for(node, info)] if is_open(node) else dict(node)
