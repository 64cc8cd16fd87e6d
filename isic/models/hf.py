"""Vision encoders of Hugging Face transformers, from a folder on this disk: DINOv2, CLIP, ViT, ...

`hf:FOLDER` names one; the folder is what `hf download REPO --local-dir FOLDER` writes: config.json,
weights, preprocessor_config.json. Of a model of images and text (CLIP, MONET, SigLIP) the image
tower is taken. The hub is never asked, and code that comes with a model is never run. In a
checkpoint the name is `hf:` and the config itself as JSON, so that the folder may go.
Trap: transformers fills what a file lacks with random numbers and a warning; here that is an error.
Trap: parameters bear the names of the installed transformers, also in a run's checkpoints.
"""

import importlib
import inspect
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isic.errors import CheckpointError, ConfigError, first_five
from isic.models.weights import State, first_line, read_weights

log = logging.getLogger(__name__)

PREFIX = "hf:"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
TOWERS = ("vision_model.", "vision_tower.")  # the image part in a file of two
DENSE_POOLER = ("vit", "deit")  # a layer that classifiers leave out, and most files lack


class HubEncoder(nn.Module):
    """A transformers vision model: `(B, 3, H, W) -> (B, F)`, its pooled output or class token."""

    def __init__(self, config: Any, *, drop_path: float = 0.0) -> None:
        super().__init__()
        auto = _transformers().AutoModel
        if drop_path:
            if not hasattr(config, "drop_path_rate"):
                raise ConfigError(
                    f"model.drop_path: {config.model_type} has no stochastic depth; set it to 0"
                )
            config.drop_path_rate = drop_path
        if hasattr(config, "use_mask_token"):
            config.use_mask_token = False  # serves pretraining only, and would never get a gradient
        pooler = {"add_pooling_layer": False} if config.model_type in DENSE_POOLER else {}
        self.model: nn.Module = auto.from_config(config, **pooler)
        accepted = inspect.signature(self.model.forward).parameters
        if "pixel_values" not in accepted:
            raise ValueError("it takes no images")
        self.options = {k: True for k in ("interpolate_pos_encoding",) if k in accepted}

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, F) of normalised images; position embeddings are resized to the grid."""
        output = self.model(pixel_values=image, **self.options)
        pooled = getattr(output, "pooler_output", None)
        pooled = output.last_hidden_state[:, 0] if pooled is None else pooled
        return torch.as_tensor(pooled).flatten(1)

    def no_weight_decay(self) -> set[str]:
        """Class tokens and position embeddings, as timm's models list theirs."""
        ends = ("cls_token", "class_embedding", "position_embeddings", "position_embedding.weight")
        return {name for name, _ in self.named_parameters() if name.endswith(ends)}


def create_hf(
    name: str, *, pretrained: bool | str, image_size: int, drop_path: float = 0.0
) -> nn.Module:
    """The encoder of `hf:FOLDER` or `hf:{config}`, with the folder's weights where `pretrained`.

    pretrained: Or a path to other weights of the same architecture.

    Raises:
        ConfigError: A file is lacking, a model type that transformers does not know or build.
        CheckpointError: Weights that cannot be read or leave a parameter without a value.
    """
    plain = config_of(name)
    config = _parsed(plain, name)
    try:
        encoder = HubEncoder(config, drop_path=drop_path)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"model.backbone: transformers cannot build an image encoder of "
            f"{plain.get('model_type')!r}: {first_line(error)}"
        ) from None
    if pretrained:
        folder = pretrained if isinstance(pretrained, str) else name.removeprefix(PREFIX)
        if folder.startswith("{"):
            raise ConfigError("model.pretrained: a config has no weights; give a folder or false")
        _load(encoder, _tower(_all_weights(Path(folder))), folder)
    _freeze_unused(encoder, name, image_size)
    return encoder


def config_of(name: str) -> dict[str, Any]:
    """`config.json` of `hf:FOLDER`, or the JSON after `hf:` itself.

    Raises:
        ConfigError: Not a folder, no such file in it, or no JSON object.
    """
    given = name.removeprefix(PREFIX)
    if not given.startswith("{"):
        folder = Path(given)
        if not folder.is_dir():
            raise ConfigError(
                f"model.backbone: {name} names no folder: {folder.resolve()}. Fetch a model with "
                "hf download REPO --local-dir DIR, then model.backbone=hf:DIR"
            )
        given = needed(folder, CONFIG).read_text()
    try:
        plain: dict[str, Any] = json.loads(given)
        known = plain.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"model.backbone: {name} has a broken {CONFIG}: {error}") from None
    if not known:
        timms = plain.get("architecture")
        hint = f"; it is timm's: model.backbone={timms} model.pretrained=DIR" if timms else ""
        raise ConfigError(f"model.backbone: {CONFIG} of {name[:300]} names no model_type{hint}")
    return plain


def self_contained(name: str) -> str:
    """`hf:FOLDER` as `hf:` and its config, which needs no folder; other names unchanged."""
    return PREFIX + json.dumps(config_of(name)) if name.startswith(PREFIX) else name


def needed(folder: Path, file: str) -> Path:
    """A file of the model's folder.

    Raises:
        ConfigError: It is not there; says what is.
    """
    if not (folder / file).is_file():
        there = first_five(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise ConfigError(
            f"model.backbone: {folder.resolve()} lacks {file}; it holds {there}. A folder of a "
            f"Hugging Face model holds {CONFIG}, {PROCESSOR} and model.safetensors"
        )
    return folder / file


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")  # an extra: no stubs where it is absent
    except ImportError:
        raise ConfigError(
            "model.backbone=hf:... needs transformers, which is not installed: "
            "pip install 'isic[hf]'"
        ) from None


def _parsed(plain: dict[str, Any], name: str) -> Any:
    """The config object of the image encoder."""
    transformers = _transformers()
    kind = plain["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        raise ConfigError(
            f"model.backbone: transformers {transformers.__version__} knows no model_type "
            f"{kind!r} ({name[:300]})"
        )
    with _silent():
        config = transformers.CONFIG_MAPPING[kind].from_dict(_harmless(plain))
    return getattr(config, "vision_config", config)


def _harmless(plain: dict[str, Any]) -> dict[str, Any]:
    """A config without the keys by which a file can ask for kernels or code of somebody's."""
    return {
        key: _harmless(value) if isinstance(value, dict) else value
        for key, value in plain.items()
        if "_implementation" not in key and key not in ("auto_map", "quantization_config")
    }


def _all_weights(path: Path) -> State:
    """The state dict of a file or folder, all shards of it."""
    shards = sorted(path.glob("model-*-of-*.safetensors")) if path.is_dir() else []
    if not shards:
        return read_weights(path)
    return {k: v for shard in shards for k, v in read_weights(shard).items()}


def _tower(state: State) -> State:
    """The image tower of a state dict of two; else all of it."""
    for prefix in TOWERS:
        found = {k: v for k, v in state.items() if k.startswith(prefix)}
        if found:
            return found
    return state


def _load(encoder: HubEncoder, state: State, source: str) -> None:
    """Load strictly; names of older versions of transformers are translated by its own rules."""
    own = encoder.model.state_dict()
    if {f"model.{key}" for key in own} <= set(state):  # a checkpoint of this framework
        state = {key.removeprefix("model."): value for key, value in state.items()}
    unexpected = [key for key in state if key not in own]
    if not set(own) <= set(state):
        state, unexpected = _translated(encoder.model, state, source)
    try:
        encoder.model.load_state_dict({key: state[key] for key in own})
    except RuntimeError as error:
        raise CheckpointError(f"model.pretrained: {source} does not fit: {error}") from None
    if unexpected:
        log.info("%s: %d keys are left out: %s", source, len(unexpected), first_five(unexpected))


def _translated(model: Any, state: State, source: str) -> tuple[State, list[str]]:
    """The state dict under this version's names, and the keys of no use."""
    with _silent():
        loaded, report = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=state,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    own, unexpected = model.state_dict(), sorted(report["unexpected_keys"])
    lacking = [key for key in report["missing_keys"] if key in own]
    lacking += [str(key[0]) for key in report["mismatched_keys"]]
    if lacking:
        raise CheckpointError(
            f"model.pretrained: the weights of {source} do not fit its config:\n"
            f"  Missing key(s) or other shapes: {first_five(sorted(lacking))}\n"
            f"  Unexpected key(s): {first_five(unexpected) or 'none'}"
        )
    return loaded.state_dict(), unexpected


def _freeze_unused(encoder: HubEncoder, name: str, image_size: int) -> None:
    """Freeze what no output depends on: several devices wait for the gradient of all the rest."""
    training = encoder.training
    try:
        encoder.eval()(torch.zeros(1, 3, image_size, image_size)).sum().backward()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"data.image_size: {name[:300]} cannot take {image_size} px: {first_line(error)}"
        ) from None
    finally:
        encoder.train(training)
    unused = [key for key, p in encoder.named_parameters() if p.grad is None]
    for key, parameter in encoder.named_parameters():
        parameter.requires_grad_(key not in unused)
        parameter.grad = None
    if unused:
        log.info("parameters that the features do not depend on are frozen: %s", first_five(unused))


@contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' tables and bars: what matters of them is raised or logged here."""
    chatter = _transformers().utils.logging
    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()
