"""timm backbones by name, and what they were made for: input side, mean, std.

Weights come from the hub (`pretrained=True`), from a file or folder that the user brought, or from
nowhere. Only state dicts are read; a pickle runs nothing (`weights_only=True` inside timm).
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isic.errors import ConfigError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.pth", "model.pt")


@dataclass(frozen=True)
class InputSpec:
    """What a backbone expects: side in pixels, mean and std of RGB in 0..1."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def input_spec(name: str) -> InputSpec:
    """The spec in timm's `pretrained_cfg`; reads no weights and no network.

    Raises:
        ConfigError: No such backbone; names the nearest ones.
    """
    import timm

    check_name(name)
    cfg: Any = timm.get_pretrained_cfg(name)
    if cfg is None:
        return InputSpec(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return InputSpec(int(cfg.input_size[-1]), tuple(cfg.mean), tuple(cfg.std))


def check_name(name: str) -> None:
    """Refuse a name that timm does not know."""
    import timm

    if timm.is_model(name):
        return
    known = timm.list_models() + timm.list_pretrained()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(f"model.backbone: timm has no model {name!r}.{hint}")


def create_backbone(
    name: str, *, pretrained: bool | str, image_size: int, drop_path: float = 0.0
) -> nn.Module:
    """A timm model without head: `forward(image (B, 3, H, W)) -> (B, num_features)`.

    Raises:
        ConfigError: Unknown name, weights that cannot be had or do not fit, or a side that the
            model cannot take.
    """
    import timm

    check_name(name)
    arguments: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path}
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        arguments["img_size"] = image_size
    if isinstance(pretrained, str):
        arguments["pretrained_cfg_overlay"] = {"file": str(weight_file(Path(pretrained)))}
    try:
        return timm.create_model(name, pretrained=bool(pretrained), **arguments)
    except Exception as error:
        if not pretrained:
            raise
        raise ConfigError(_weights_message(name, pretrained, error)) from error


def n_features(backbone: nn.Module, *, name: str, image_size: int) -> int:
    """Width of the pooled features, seen on one black image of the size that will be used.

    timm's `num_features` is wrong for a few models, and a ViT refuses a side only when it runs.
    """
    training = backbone.training
    try:
        with torch.no_grad():
            return int(backbone.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1])
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(f"data.image_size: {name} cannot take {image_size} px: {error}") from None
    finally:
        backbone.train(training)


def weight_file(path: Path) -> Path:
    """The file itself, or the first known weight file in a folder."""
    if path.is_dir():
        found = [path / name for name in WEIGHT_FILES if (path / name).exists()]
        if found:
            return found[0]
        raise ConfigError(f"model.pretrained: {path} holds none of {', '.join(WEIGHT_FILES)}")
    if not path.exists():
        raise ConfigError(f"model.pretrained: no such file: {path.resolve()}")
    return path


def _weights_message(name: str, pretrained: bool | str, error: Exception) -> str:
    if isinstance(pretrained, str):
        return f"model.pretrained: {pretrained} does not fit {name}: {error}"
    return (
        f"model.pretrained=true: the weights of {name} could not be fetched "
        f"({type(error).__name__}). Without a network, download the model on another machine "
        f"(huggingface-cli download timm/{name}), then model.pretrained=PATH; "
        "or model.pretrained=false to train from scratch."
    )
