"""Weights that the user brought: a file or folder -> a state dict a timm model may take.

Read are safetensors, torch files (`weights_only=True`: a pickle runs nothing) and checkpoints of
this framework. Files of BEiT and CAE pretraining (PanDerm's `.pth`) are turned into a plain ViT's:
their `gamma` scales are multiplied into the layer before, their query and value bias are joined.
Trap: such a file loaded by matching names alone gives features of the right shape and the wrong
values, since scales and biases are left out in silence.
"""

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor

from isic.errors import CheckpointError, ConfigError, first_five

log = logging.getLogger(__name__)

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.pth", "model.pt")
OURS = "network.backbone."  # how a checkpoint of this framework names a backbone's weights
ENCODER = "encoder."  # how CAE's pretraining names what is kept afterwards

State = dict[str, Tensor]


def read_weights(path: Path) -> State:
    """A state dict from a file or folder: timm's, torch's, safetensors, or our own checkpoint's.

    Raises:
        CheckpointError: Not a file of plain tensors.
    """
    from timm.models import load_state_dict

    file = weight_file(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # of the pretraining's command
            state: State = load_state_dict(str(file), weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"model.pretrained: {file} cannot be read as a file of plain tensors "
            f"(weights_only=True): {first_line(error)}"
        ) from None
    return {k.removeprefix(OURS): v for k, v in state.items() if k.startswith(OURS)} or state


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
