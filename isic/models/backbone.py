"""Backbones by name, and what they were made for: input side, mean, std.

A name is timm's, of today or of before (`tf_efficientnet_b5_ns`), `cancernet_sca`
(isic.models.cancernet, registered with timm), or `hf:FOLDER` (isic.models.hf). Weights come from
the hub (`pretrained=True`), from a file or folder that the user brought (isic.models.weights), or
from nowhere.
Trap: timm loads leniently where the head is left out, so that weights of another architecture are
dropped in silence; given weights are therefore loaded strictly, without their classifier.
"""

import difflib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isic.errors import CheckpointError, ConfigError
from isic.models.hf import CONFIG, PREFIX, PROCESSOR, config_of, create_hf, needed
from isic.models.weights import as_plain_vit, first_line, fitting, part_for

log = logging.getLogger(__name__)

HUB_TIMEOUT = 5  # seconds


@dataclass(frozen=True)
class InputSpec:
    """What a backbone expects: side in pixels, mean and std of RGB in 0..1."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = InputSpec(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def input_spec(name: str, *, weights: bool | str = False) -> InputSpec:
    """The spec in a given model folder, else in timm's `pretrained_cfg`; no network is used.

    Raises:
        ConfigError: No such backbone; names the nearest ones. Or a file that its folder lacks.
    """
    if name.startswith(PREFIX):
        return _spec_of_hf(name)
    cfg = timm_config(name)
    spec = InputSpec(int(cfg.input_size[-1]), tuple(cfg.mean), tuple(cfg.std)) if cfg else IMAGENET
    return _spec_in_folder(Path(weights), spec) if isinstance(weights, str) else spec


def _spec_of_hf(name: str) -> InputSpec:
    """What the folder's processor says; of a config alone its image size."""
    plain = config_of(name)
    size = plain.get("vision_config", plain).get("image_size", IMAGENET.size)
    default = InputSpec(
        int(size[0] if isinstance(size, list) else size), IMAGENET.mean, IMAGENET.std
    )
    folder = name.removeprefix(PREFIX)
    if folder.startswith("{"):
        return default
    return _spec_in_folder(needed(Path(folder), PROCESSOR).parent, default)


def _spec_in_folder(folder: Path, default: InputSpec) -> InputSpec:
    """What `preprocessor_config.json` (transformers) or `config.json` (timm) says, if anything."""
    processor, model = folder / PROCESSOR, folder / CONFIG
    try:
        if processor.is_file():
            found = json.loads(processor.read_text())
            side = found.get("crop_size") or found.get("size") or default.size
            size = next(iter(side.values())) if isinstance(side, dict) else side
            mean, std = found.get("image_mean"), found.get("image_std")
        else:
            found = (
                json.loads(model.read_text()).get("pretrained_cfg", {}) if model.exists() else {}
            )
            size = found.get("input_size", (default.size,))[-1]
            mean, std = found.get("mean"), found.get("std")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"model.pretrained: {folder} has a broken config file: {error}") from None
    return InputSpec(int(size), tuple(mean or default.mean), tuple(std or default.std))


@cache
def current_name(name: str) -> str:
    """timm's name of today for one that it had before 0.9; any other name unchanged.

    timm builds a model under its old name as well, but knows neither its weights nor what they
    were trained on. Said once a process.

    Raises:
        ConfigError: A name that timm has taken away.
    """
    _timm()
    from timm.models._registry import get_deprecated_models

    renamed = get_deprecated_models()
    if name not in renamed:
        return name
    if not (now := renamed[name]):
        raise ConfigError(f"model.backbone: timm has taken {name} away and names no successor")
    spec = input_spec(now)
    log.info(
        "model.backbone=%s is %s today: made for %d px, mean %s, std %s",
        *(name, now, spec.size, spec.mean, spec.std),
    )
    return now


def timm_config(name: str) -> Any:
    """timm's `pretrained_cfg` of a backbone, or None where it has none; refuses unknown names."""
    timm, name = _timm(), current_name(name)
    architecture = name.partition(".")[0]
    if timm.is_model(architecture):
        try:
            return timm.get_pretrained_cfg(name)
        except RuntimeError:  # the architecture is right, its tag is not
            known = [*timm.list_pretrained(f"{architecture}.*"), architecture]
    else:
        known = timm.list_models() + timm.list_pretrained()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(f"model.backbone: timm has no model {name!r}.{hint}")


def _timm() -> Any:
    """timm, with this package's own architectures among its names."""
    import timm

    import isic.models.cancernet  # noqa: F401  registers itself

    return timm


def create_backbone(
    name: str, *, pretrained: bool | str, image_size: int, drop_path: float = 0.0
) -> nn.Module:
    """A model without head: `forward(image (B, 3, H, W)) -> (B, num_features)`.

    Raises:
        ConfigError: Unknown name, weights that cannot be had, or a side that the model cannot take.
        CheckpointError: Weights that cannot be read or belong to another architecture.
    """
    if name.startswith(PREFIX):
        return create_hf(name, pretrained=pretrained, image_size=image_size, drop_path=drop_path)
    timm, cfg, name = _timm(), timm_config(name), current_name(name)
    if pretrained is True and not (cfg and (cfg.hf_hub_id or cfg.url)):
        raise ConfigError(f"model.pretrained: timm has no weights of {name}; set it to false")
    arguments: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path or None}
    if getattr(cfg, "fixed_input_size", False):
        arguments["img_size"] = image_size
    if isinstance(pretrained, str):
        state = _state(Path(pretrained), name, arguments)
        arguments["pretrained_cfg_overlay"] = _overlay(state, cfg)
    try:
        with _hub_or_its_cache(pretrained is True):
            backbone: Any = timm.create_model(name, pretrained=bool(pretrained), **arguments)
    except Exception as error:
        made_for = cfg.input_size[-1] if "img_size" in arguments else image_size
        if not pretrained and made_for != image_size and "drop_path" not in str(error):
            raise _too_odd(name, image_size, made_for, error) from error
        if isinstance(pretrained, str) and "drop_path_rate" not in str(error):
            raise _refused(error, name, pretrained, state, arguments) from error
        raise _explained(error, name, pretrained, cfg) from error
    if isinstance(pretrained, str):
        backbone.pretrained_cfg.pop("state_dict")  # else every copy of the model copies it too
    _check_patches(backbone, name, image_size)
    return backbone  # type: ignore[no-any-return]


def _state(path: Path, name: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """A file's tensors under the names of a backbone."""
    timm, empty = _timm(), _empty(name, arguments)
    state = part_for(path, empty)
    if timm.models.is_model_in_modules(name.partition(".")[0], ["vision_transformer"]):
        state = as_plain_vit(state)
    return fitting(state, empty, name=name, source=path)


def _empty(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A backbone with names and shapes, and no memory for its weights."""
    plain = {k: v for k, v in arguments.items() if k != "pretrained_cfg_overlay"}
    with torch.device("meta"):
        model: nn.Module = _timm().create_model(name, pretrained=False, **plain)
    return model


def n_features(backbone: nn.Module, *, name: str, image_size: int) -> int:
    """Width of the pooled features, seen on one black image of the size that will be used.

    timm's `num_features` is wrong for a few models, and some refuse a side only when they run.
    """
    training = backbone.training
    try:
        with torch.no_grad():
            return int(backbone.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1])
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        raise _too_odd(name, image_size, input_spec(name).size, error) from None
    finally:
        backbone.train(training)


def _too_odd(name: str, image_size: int, made_for: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"data.image_size: {name[:300]} cannot take {image_size} px ({first_line(error)}); it was "
        f"made for {made_for}, and most sides that are multiples of 32 will do"
    )


def _check_patches(backbone: nn.Module, name: str, image_size: int) -> None:
    """A patch embedding cuts off what is left over at the right and lower edge: refuse instead."""
    from timm.layers.patch_embed import PatchEmbed

    embedding = getattr(backbone, "patch_embed", None)
    if not isinstance(embedding, PatchEmbed) or embedding.dynamic_img_pad:
        return
    patch = int(embedding.patch_size[0])
    if image_size % patch:
        below, above = image_size // patch * patch, (image_size // patch + 1) * patch
        near = f"{below} or {above}" if below else str(above)
        raise ConfigError(
            f"data.image_size: {name} takes multiples of its {patch} px patches, got {image_size}; "
            f"the nearest are {near}"
        )


def _overlay(state: Mapping[str, Tensor], cfg: Any) -> dict[str, Any]:
    """timm's settings for weights in hand: without classifier, and then loaded strictly."""
    named = getattr(cfg, "classifier", None) or ()
    heads = (named,) if isinstance(named, str) else tuple(named)
    kept = {k: v for k, v in state.items() if not k.startswith(tuple(f"{h}." for h in heads))}
    return {"state_dict": kept, "num_classes": 0, "label_offset": 0}


@contextmanager
def _hub_or_its_cache(wanted: bool) -> Iterator[None]:
    """Ask the hub once; without an answer use its cache alone: its own retries take a minute."""
    from huggingface_hub import constants, get_session

    offline = constants.HF_HUB_OFFLINE
    if wanted and not offline:
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
        except Exception:  # whatever a proxy, a resolver or a firewall comes up with
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _refused(
    error: Exception,
    name: str,
    pretrained: str,
    state: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
) -> CheckpointError:
    """Weights that are not a backbone's: how many fit, and torch's names of those that do not."""
    own = _empty(name, arguments).state_dict()
    fit = sum(1 for k, v in own.items() if k in state and state[k].shape == v.shape)
    lines = [line[:300] for line in str(error).splitlines()[:4]]
    head = (
        f"model.pretrained: {pretrained} is not {name}: {fit} of its {len(own)} tensors fit, and "
        "all of them have to (the head aside):"
    )
    return CheckpointError("\n".join([head, *lines]))


def _explained(error: Exception, name: str, pretrained: bool | str, cfg: Any) -> Exception:
    """What a user can do about an error of timm's."""
    if "drop_path_rate" in str(error):
        return ConfigError(f"model.drop_path: {name} has no stochastic depth; set it to 0")
    if not pretrained:
        return ConfigError(f"model.backbone: timm cannot build {name}: {first_line(error)}")
    return ConfigError(
        f"model.pretrained=true: the weights of {name} could not be fetched from the hub and are "
        "not in its cache. Fetch them where there is a network "
        f"(hf download {cfg.hf_hub_id} --local-dir DIR), then model.pretrained=DIR; or "
        "model.pretrained=false to train from scratch."
    )
