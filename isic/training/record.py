"""A checkpoint's record under the key `isic`, checked before any part of it is used.

| key | what | absent |
|---|---|---|
| `format` | `FORMAT` of the writer | before there was one |
| `network`, `network_class` | arguments and class of the network | never |
| `classes`, `activation` | of its outputs | never |
| `config`, `info`, hashes, `split_file` | run, archive and split of the training | made by hand |
| `metadata`, `auxiliary` | encoder of metadata, heads | the network has none |

Trap: a name in it is no instruction; `isic.config.stored` says which may become objects.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from isic.config.shapes import ARCHIVE, PLACES, Misshapen, check_plain, check_shape
from isic.index.metadata import MetadataEncoder
from isic.index.schema import DatasetInfo

FORMAT = 1  # raise it where an older version would read a new checkpoint wrongly
NEEDED = {"network", "network_class", "classes", "activation"}
OURS = "isic.models.network.LesionNetwork"
LARGEST_SIDE = 4096  # pixels; one black image of it is looked at while the network is built
MOST_VIEWS = 16  # an encoder may be made for each

SIDE = range(1, LARGEST_SIDE + 1)
COUNT = range(100_000)
NAMED = re.compile(r"\S.*")
INFO = {
    "name": NAMED,
    "classes": [NAMED],
    "task": str,
    "views": [NAMED],
    "row_unit": {"image", "lesion"},
    "id_column": NAMED,
    "submission_columns": [NAMED],
    "official_metric": str,
    "license": str,
    "citation": str,
    "download": str,
    "published_counts": {str: int},
    "train_only_columns": [str],
    "submission_classes?": [NAMED],
    "view_columns?": [str],
    "vocabularies?": {str: [object]},
}
METADATA = {
    "columns": [str],
    "numbers": {str: {"median": float, "mean": float, "std": float}},
    "categories": {str: [str]},
    "groups": {str: [str]},
}
NETWORK = {
    "backbone?": NAMED,
    "n_logits?": COUNT,
    "image_size?": SIDE,
    "dropout?": float,
    "dropout_samples?": COUNT,
    "drop_path?": float,
    "mean?": (type(None), [float]),
    "std?": (type(None), [float]),
    "views?": [NAMED],
    "metadata?": (type(None), {"groups": {str: [COUNT]}, "absent": [float]}),
    "fusion?": (str, {"kind?": str}),
    "n_auxiliary?": COUNT,
}
CONFIG = {
    "name": NAMED,
    "fold": (COUNT, {"all"}),
    "seed?": range(2**63),
    "data": ARCHIVE | {"_target_": NAMED},
    "paths?": PLACES,
    "metrics": {"functions": {str: {"_target_": str}}},
}
RECORD = {
    "format?": COUNT,
    "network": Mapping,
    "network_class": NAMED,
    "classes": [NAMED],
    "activation": {"sigmoid", "softmax"},
    "config?": CONFIG,
    "info?": INFO,
    "split_hash?": NAMED,
    "index_hash?": NAMED,
    "split_file?": NAMED,
    "metadata?": METADATA,
    "auxiliary?": [{"name": NAMED, "classes": [str], "mean": float, "std": float}],
}
RESUMED = {
    "epoch": COUNT,
    "global_step": int,
    "callbacks": {str: object},
    "loops": {"fit_loop": Mapping},
    "optimizer_states": [Mapping],
    "lr_schedulers": [Mapping],
    "pytorch-lightning_version": str,
}
"""What Lightning adds and a training goes on from."""


def check_record(record: Mapping[str, Any]) -> None:
    """Refuse a record of a newer format, without its parts, or with parts that are something else.

    Raises:
        Misshapen: Names the key, what was expected and what is there.
    """
    check_plain(record)
    if isinstance(newer := record.get("format"), int) and newer > FORMAT:
        raise Misshapen(
            f"it is of format {newer}, written by a newer version; this one reads up to {FORMAT}: "
            "update this package"
        )
    check_shape(record, RECORD)
    classes = list(record["classes"])
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise Misshapen(f"classes: expected two or more different ones, got {classes}")
    check_shape(record["network"], {"image_size?": SIDE}, "network")
    if record["network_class"] == OURS:
        _check_network(record, n_classes=len(classes))
    if "info" in record:
        _check_info(record["info"], classes)
    if "metadata" in record:
        _check_metadata(record)


def check_weights(state: Any) -> None:
    """Raise Misshapen where a state dict is no mapping of names to tensors."""
    check_shape(state, {str: Tensor}, "state_dict")


def _check_network(record: Mapping[str, Any], *, n_classes: int) -> None:
    network = record["network"]
    check_shape(network, NETWORK, "network")
    wanted = 1 if record["activation"] == "sigmoid" and n_classes == 2 else n_classes
    if len(network.get("views", ())) > MOST_VIEWS:
        raise Misshapen(f"network.views: expected up to {MOST_VIEWS}, got {len(network['views'])}")
    if network.get("n_logits", wanted) not in (wanted, n_classes):
        raise Misshapen(
            f"network.n_logits: expected {wanted} for {n_classes} classes and "
            f"{record['activation']}, got {network['n_logits']}"
        )
    if reason := _foreign_backbone(network.get("backbone", "")):
        raise Misshapen(f"network.backbone: {reason}")


def _foreign_backbone(name: str) -> str:
    """Why a backbone would be looked for outside this machine's libraries; empty where not.

    Transformers and timm know model types that take their parts from a hub, or from a folder.
    """
    if not name.startswith("hf:"):
        plain = re.fullmatch(r"[\w.-]*", name)
        return "" if plain else f"expected a name of timm, or hf: and a config, got {name[:80]!r}"
    try:
        config = json.loads(name.removeprefix("hf:"))
        check_shape(config, {"model_type": str})
    except ValueError:
        return f"expected hf: and a config as JSON, got {name[:80]!r}"
    waiting = [config]
    while waiting:
        for key, value in waiting.pop().items():
            waiting += [value] if isinstance(value, dict) else []
            fetched = key in ("backbone", "use_pretrained_backbone", "use_timm_backbone") and value
            if fetched or (key == "model_type" and str(value).startswith("timm")):
                return f"expected a model without parts from elsewhere, got {key}={value!r}"
    return ""


def _check_info(info: Mapping[str, Any], classes: list[str]) -> None:
    try:
        known = DatasetInfo.from_dict(info)
    except TypeError as error:  # a field that this version does not know
        raise Misshapen(f"info: {error}; the file may be of a newer version") from None
    if list(known.classes) != classes:
        raise Misshapen(f"info.classes: expected {', '.join(classes)}, got {known.classes}")
    if not known.views:
        raise Misshapen("info.views: expected one or more, got none")


def _check_metadata(record: Mapping[str, Any]) -> None:
    """The encoder's parts must fit each other, and the layout that the network was made for."""
    plain = record["metadata"]
    columns, both = list(plain["columns"]), [*plain["numbers"], *plain["categories"]]
    grouped = [name for group in plain["groups"].values() for name in group]
    for key, names in (("numbers, categories", both), ("groups", grouped)):
        if sorted(names) != sorted(columns):
            raise Misshapen(f"metadata.{key}: expected the columns {columns}, got {names}")
    for name, number in plain["numbers"].items():
        if unknown := sorted(set(number) - {"median", "mean", "std"}):
            raise Misshapen(
                f"metadata.numbers.{name}: expected median, mean and std, got {', '.join(unknown)} "
                "too; the file may be of a newer version"
            )
        if number["std"] <= 0:
            raise Misshapen(f"metadata.numbers.{name}.std: expected above 0, got {number['std']}")
    layout, width = record["network"].get("metadata"), len(MetadataEncoder.from_dict(plain).names)
    taken = len(layout["absent"]) if layout else 0
    if record["network_class"] == OURS and width != taken:
        raise Misshapen(
            f"metadata: its columns make {width} features, network.metadata has {taken}"
        )
