"""Weights that the user brought: a file or folder -> a state dict a timm model may take.

Read are safetensors, torch files (`weights_only=True`: a pickle runs nothing) and checkpoints of
this framework. Whatever wraps the tensors (`state_dict`, `ema`, `module.`, `net.backbone.`) is the
part before the names that a model has: the one that fits it best. Files of BEiT and CAE pretraining
(PanDerm's `.pth`) are turned into a plain ViT's: their `gamma` scales are multiplied into the layer
before, their query and value bias are joined.
Trap: such a file loaded by matching names alone gives features of the right shape and the wrong
values, since scales and biases are left out in silence.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isic.checksums import check_zip
from isic.errors import CheckpointError, ConfigError, first_five
from isic.models.layouts import layout_of, renamed

log = logging.getLogger(__name__)

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.pth", "model.pt")
OURS = "network.backbone."  # how a checkpoint of this framework names a backbone's weights
ENCODER = "encoder."  # how CAE's pretraining names what is kept afterwards

MARKS = ("_conv_stem.weight", "features.0.0.weight")  # where other layouts than timm's begin
AVERAGED = ("ema", "teacher")  # of two copies that fit alike, the one that is meant to be used

State = dict[str, Tensor]


def read_weights(path: Path) -> State:
    """A state dict from a file or folder: timm's, torch's, safetensors, or our own checkpoint's.

    Raises:
        CheckpointError: Not a file of plain tensors.
    """
    from timm.models import clean_state_dict

    stored = _read(weight_file(path))
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(stored.get(key), Mapping):
            stored = stored[key]
            break
    state: State = clean_state_dict({k: v for k, v in stored.items() if isinstance(v, Tensor)})
    return {k.removeprefix(OURS): v for k, v in state.items() if k.startswith(OURS)} or state


def read_tensors(path: Path) -> State:
    """Every tensor of a file, whatever it lies in, by its dotted place: `state_dict.module.x`.

    Raises:
        CheckpointError: Not a file of plain tensors.
    """
    return dict(_tensors(_read(weight_file(path))))


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]):  # of the pretraining's command
            stored = torch.load(file, map_location="cpu", weights_only=True)
        ours = isinstance(stored, Mapping) and "isic" in stored  # others may write no checksums
        if ours and (damage := check_zip(file)):
            raise ValueError(damage)
    except Exception as error:
        raise CheckpointError(
            f"model.pretrained: {file} cannot be read as a file of plain tensors "
            f"(weights_only=True): {first_line(error)}"
        ) from None
    if not isinstance(stored, Mapping):
        raise CheckpointError(
            f"model.pretrained: {file} cannot be read as a state dict: expected names and "
            f"tensors, got {type(stored).__name__}"
        )
    return stored


def _tensors(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in node.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{key}.")


def part_for(path: Path, model: nn.Module) -> State:
    """The tensors of a file that stand where a model's names do, without what is before the names.

    Where too few names are a model's, the file's state dict as it is: timm knows some of its
    models under the names of their authors.

    Raises:
        CheckpointError: Not a file of plain tensors, or two copies that fit alike.
    """
    tensors = read_tensors(path)
    prefix = _prefix(tensors, model.state_dict(), path)
    if prefix is None:
        return read_weights(path)
    if rest := [k for k in tensors if not k.startswith(prefix)]:
        log.info("weights %s: outside of %s are left out: %s", path, prefix, first_five(rest))
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def fitting(part: State, model: nn.Module, *, name: str, source: Path) -> State:
    """The tensors that are `model`'s, under its names; says what fits and leaves out other heads.

    Args:
        part: As `part_for` gives it, under names of timm, torchvision or `efficientnet_pytorch`.
        model: The backbone, without a head; only names, shapes and options are read.
        name, source: Of the model and of the file, for messages.

    Raises:
        CheckpointError: A network that pads in another way.
    """
    own, layout = model.state_dict(), layout_of(part)
    part = renamed(part, model, name=name)
    lacking = [k for k in own if k not in part and not k.endswith("num_batches_tracked")]
    others = [k for k in part if k not in own]
    if lacking or _no_heads(others, part, own):
        return part  # timm's own rules may know it; else it is refused
    log.info(
        "weights %s: %d of %d tensors fit %s%s%s; fresh: the head",
        *(source, len(part) - len(others), len(part), name),
        f", under {layout}'s names" if layout else "",
        f"; left out: {first_five(others)}" if others else "",
    )
    return {k: v for k, v in part.items() if k in own}


def _prefix(tensors: State, own: Mapping[str, Tensor], source: Path) -> str | None:
    """Return the prefix of most of a model's names in a file; None if few of them are in it."""
    if any(k.startswith(f"state_dict.{OURS}") for k in tensors):
        return f"state_dict.{OURS}"
    found = Counter(
        key.removesuffix(name) for key in tensors for name in _endings(key) if name in own
    )
    marks = [k.removesuffix(m) for k in tensors for m in MARKS if f".{k}".endswith(f".{m}")]
    found = Counter(marks) or found
    most = max(found.values(), default=0)
    if not marks and most < len(own) / 2:
        return None
    best = sorted(p for p, count in found.items() if count == most)
    for words in (AVERAGED, ("",)):
        chosen = [p for p in best if any(word in p.lower() for word in words)]
        if len(chosen) == 1:
            return chosen[0]
    raise CheckpointError(
        f"model.pretrained: {source} holds several networks that fit alike, at "
        f"{first_five(best)}; save the one that is meant as a state dict of its own"
    )


def _endings(key: str) -> Iterator[str]:
    """`a.b.c`, `b.c` and `c`."""
    parts = key.split(".")
    for i in range(len(parts)):
        yield ".".join(parts[i:])


def _no_heads(others: Collection[str], part: State, own: Mapping[str, Tensor]) -> list[str]:
    """Return the missing names that are more than the head of another task.

    A head is a module of its own that holds matrices; a table of positions or a scale inside a
    block changes the features, and to leave it out would give other ones in silence.
    """
    tops = {k.partition(".")[0] for k in own}
    groups: dict[str, list[str]] = {}
    for key in others:
        groups.setdefault(key.partition(".")[0], []).append(key)
    strange = []
    for top, keys in groups.items():
        shapes = [part[k].ndim for k in keys]
        head = 2 in shapes and max(shapes) == 2 and all("." in k for k in keys)
        if top in tops or not head:
            strange += keys
    return strange


def weight_file(path: Path) -> Path:
    """The file itself, or the weight file in a folder."""
    if not path.exists():
        raise ConfigError(f"model.pretrained: no such file or folder: {path.resolve()}")
    if path.is_file():
        return path
    found = [path / name for name in WEIGHT_FILES if (path / name).exists()]
    found = found or sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pth"))
    if found:
        return found[0]
    raise ConfigError(f"model.pretrained: {path.resolve()} holds none of {', '.join(WEIGHT_FILES)}")


def as_plain_vit(state: State) -> State:
    """BEiT's and CAE's names and parts -> those of timm's `VisionTransformer`; else unchanged.

    Same function of the image: `gamma * (W x + b)` becomes `(gamma W) x + gamma b`.
    """
    if not any(k.endswith((".gamma_1", ".attn.q_bias")) for k in state):
        return state
    if any(k.startswith(f"{ENCODER}blocks.") for k in state):
        state = _only(state, ENCODER)
    plain = {k: v for k, v in state.items() if k not in ("mask_token", "lm_head.weight")}
    for key in [k for k in plain if k.endswith(".attn.q_bias")]:
        block = key.removesuffix("q_bias")
        query, value = plain.pop(key), plain.pop(f"{block}v_bias")
        plain[f"{block}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    for scale, layer in ((".gamma_1", ".attn.proj"), (".gamma_2", ".mlp.fc2")):
        for key in [k for k in plain if k.endswith(scale)]:
            gamma, name = plain.pop(key), key.removesuffix(scale) + layer
            plain[f"{name}.weight"] = gamma[:, None] * plain[f"{name}.weight"]
            plain[f"{name}.bias"] = gamma * plain[f"{name}.bias"]
    log.info("weights of BEiT or CAE pretraining: layer scales folded into the layers before them")
    return plain


def _only(state: State, prefix: str) -> State:
    """The part below `prefix`, saying what is left out: a decoder, a teacher."""
    rest = [k for k in state if not k.startswith(prefix)]
    if rest:
        log.info("weights outside %s are left out: %s", prefix, first_five(rest))
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def first_line(error: BaseException) -> str:
    """The first line of an error, or its class where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
