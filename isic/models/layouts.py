"""Weights under the names of torchvision and of `efficientnet_pytorch` -> the names of timm.

Sources: torchvision.models (ResNet and today's DenseNet have timm's names already), and
github.com/lukemelas/EfficientNet-PyTorch. Layers are found by their place in a block, never by the
order of the file: safetensors are sorted by name. All of it is the same function of the image; that
of `efficientnet_pytorch` at the size it was made for, as its padding is fixed when it is built.
Trap: an EfficientNet of torchvision pads evenly, those of `efficientnet_pytorch` and timm's `tf_`
as TensorFlow does; the tensors fit either way and the features are wrong. That is refused.
Trap: torchvision's B5 to B7 and V2 add 1e-3 to a variance where timm adds 1e-5; the difference is
put into the stored variances.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from isic.errors import CheckpointError

State = dict[str, Tensor]

TORCHVISION, LUKEMELAS = "torchvision", "efficientnet_pytorch"
CONVNEXT = {
    r"features\.0\.(\d)\.": r"stem.\1.",
    r"features\.(\d)\.(\d+)\.layer_scale$": r"stages.\1.blocks.\2.gamma",
    r"features\.(\d)\.(\d+)\.block\.0\.": r"stages.\1.blocks.\2.conv_dw.",
    r"features\.(\d)\.(\d+)\.block\.2\.": r"stages.\1.blocks.\2.norm.",
    r"features\.(\d)\.(\d+)\.block\.3\.": r"stages.\1.blocks.\2.mlp.fc1.",
    r"features\.(\d)\.(\d+)\.block\.5\.": r"stages.\1.blocks.\2.mlp.fc2.",
    r"features\.(\d)\.(\d)\.(weight|bias)$": r"stages.\1.downsample.\2.\3",
    r"classifier\.0\.": "head.norm.",
    r"classifier\.2\.": "head.fc.",
}
# A block's parts in the order of the image's way through it: (convolution, its norm), or "se".
BLOCKS: dict[str, list[Any]] = {
    "conv_pwl": [("conv_pw", "bn1"), ("conv_dw", "bn2"), "se", ("conv_pwl", "bn3")],
    "conv_exp": [("conv_exp", "bn1"), "se", ("conv_pwl", "bn2")],
    "conv_dw": [("conv_dw", "bn1"), "se", ("conv_pw", "bn2")],
    "conv": [("conv", "bn1")],
}
TF_EPS, TORCH_EPS = 1e-3, 1e-5


def layout_of(state: Mapping[str, Tensor]) -> str | None:
    """Return whose names a state dict without prefix has; None for timm's."""
    if "_conv_stem.weight" in state:
        return LUKEMELAS
    if "features.0.0.weight" in state and any(".block." in key for key in state):
        return TORCHVISION
    return None


def renamed(state: State, model: nn.Module, *, name: str) -> State:
    """A state dict under timm's names, for `model`; unchanged where no other layout is seen.

    Args:
        state: Without prefixes.
        model: The network that takes it, of which only names and options are read.
        name: Of the model, for messages.

    Raises:
        CheckpointError: An EfficientNet that pads in another way.
    """
    layout = layout_of(state)
    if layout is None:  # DenseNet: torchvision's first files say norm.1 for norm1
        old = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
        return {old.sub(r"\1\2", key): value for key, value in state.items()}
    own = set(model.state_dict())
    if any(key.startswith("stages.") for key in own):
        return {_convnext_name(key): _flat_scale(key, value) for key, value in state.items()}
    if not any(key.startswith("blocks.") for key in own):
        return state
    _refuse_other_padding(model, layout, name)
    blocks = _blocks(own)
    if layout == LUKEMELAS:
        return {_lukemelas_name(key, blocks): value for key, value in state.items()}
    named = {_torchvision_name(key, blocks, state): value for key, value in state.items()}
    return _with_eps(named, model)


def _convnext_name(key: str) -> str:
    """torchvision alternates stages and the downsamplings before them: 1, 3, 5, 7 and 2, 4, 6."""
    for pattern, name in CONVNEXT.items():
        new, found = re.subn(f"^{pattern}", name, key)
        if found:
            return re.sub(r"^stages\.(\d)", lambda m: f"stages.{int(m[1]) // 2}", new)
    return key


def _flat_scale(key: str, value: Tensor) -> Tensor:
    return value.flatten() if key.endswith("layer_scale") else value


def _blocks(own: set[str]) -> dict[tuple[int, int], list[Any]]:
    """(stage, block) -> its parts, in order."""
    parts: dict[tuple[int, int], set[str]] = {}
    for key in own:
        if found := re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)\.", key):
            parts.setdefault((int(found[1]), int(found[2])), set()).add(found[3])
    kinds = {}
    for place, there in sorted(parts.items()):
        # an expanding 3 x 3 convolution has conv_pwl too
        kind = next(k for k in ("conv_exp", "conv_pwl", "conv_dw", "conv") if k in there)
        kinds[place] = [part for part in BLOCKS[kind] if part != "se" or "se" in there]
    return kinds


def _torchvision_name(
    key: str, blocks: Mapping[tuple[int, int], list[Any]], state: Mapping[str, Tensor]
) -> str:
    top = max(int(k.split(".")[1]) for k in state if k.startswith("features."))
    ends = {"features.0.0": "conv_stem", "features.0.1": "bn1", "classifier.1": "classifier"}
    ends |= {f"features.{top}.0": "conv_head", f"features.{top}.1": "bn2"}
    module, _, leaf = key.rpartition(".")
    if module in ends:
        return f"{ends[module]}.{leaf}"
    found = re.match(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.(\w+)(.*)$", key)
    parts = blocks.get((int(found[1]) - 1, int(found[2]))) if found else None
    if not found or not parts or int(found[3]) >= len(parts):
        return key
    part = parts[int(found[3])]
    within = {"fc1": "conv_reduce", "fc2": "conv_expand"} if part == "se" else {}
    child = f"se.{within.get(found[4])}" if part == "se" else part[int(found[4])]
    return f"blocks.{int(found[1]) - 1}.{found[2]}.{child}{found[5]}"


def _lukemelas_name(key: str, blocks: Mapping[tuple[int, int], list[Any]]) -> str:
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    module, _, leaf = key.rpartition(".")
    if module in ends or module == "_fc":
        return f"{ends.get(module, 'classifier')}.{leaf}"
    found = re.match(r"_blocks\.(\d+)\._(\w+)\.(\w+)$", key)
    if not found or int(found[1]) >= len(blocks):
        return key
    (stage, block), parts = list(blocks.items())[int(found[1])]
    layers = [part for part in parts if part != "se"]
    # a block that does not expand lacks the first convolution and norm
    first = 0 if len(layers) == 3 else 1
    names = {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}
    for i, theirs in enumerate(("expand_conv", "depthwise_conv", "project_conv")[first:]):
        names |= {theirs: layers[i][0], f"bn{i + first}": layers[i][1]}
    return f"blocks.{stage}.{block}.{names.get(found[2], found[2])}.{found[3]}"


def _refuse_other_padding(model: nn.Module, layout: str, name: str) -> None:
    as_tensorflow = "Same" in type(getattr(model, "conv_stem", None)).__name__
    if as_tensorflow == (layout == LUKEMELAS):
        return
    plain = name.partition(".")[0]
    other = plain.removeprefix("tf_") if as_tensorflow else f"tf_{plain}"
    raise CheckpointError(
        f"model.pretrained: an EfficientNet of {layout} pads "
        f"{'evenly, and' if as_tensorflow else 'as TensorFlow does, and'} {name} does not: its "
        f"tensors fit and its features would be wrong; take model.backbone={other}"
    )


def _with_eps(state: State, model: nn.Module) -> State:
    """Put what torchvision's larger networks add to a variance beyond `model`'s into it."""
    wide = state["conv_head.weight"].shape[0] >= 2048  # B5 to B7
    fused = any(".conv_exp." in key for key in state)  # V2
    eps = TF_EPS if wide or fused else TORCH_EPS
    own = next(m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    if torch.isclose(torch.tensor(eps), torch.tensor(own)):
        return state
    return {k: v + (eps - own) if k.endswith(".running_var") else v for k, v in state.items()}
