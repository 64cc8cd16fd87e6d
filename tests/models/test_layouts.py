"""Weights under others' names give the same numbers under timm's; former names of timm's."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from timm.models._registry import get_deprecated_models
from torch import Tensor, nn

from isic.errors import CheckpointError, ConfigError
from isic.models.backbone import create_backbone, current_name, input_spec
from tests.archives import TINY

REAL = Path(os.environ.get("ISIC_REAL", "absent"))


def varied(model: nn.Module) -> nn.Module:
    """Other values in every tensor, so that two of one shape cannot stand for each other."""
    generator = torch.Generator().manual_seed(3)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point():
            value.add_(torch.randn(value.shape, generator=generator) * 0.02)
    return model.eval()


def theirs(name: str, head: str) -> nn.Module:
    """A model of torchvision's that gives features."""
    model = varied(torchvision.models.get_model(name, weights=None))
    *path, last = head.split(".")
    setattr(model.get_submodule(".".join(path)), last, nn.Identity())
    return model


def features(model: nn.Module, size: int = 64) -> Tensor:
    with torch.no_grad():
        image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        found: Tensor = model.eval()(image)
        return found


@pytest.mark.parametrize(
    ("name", "head", "ours"),
    [
        ("resnet18", "fc", "resnet18"),
        ("densenet121", "classifier", "densenet121"),
        ("efficientnet_b0", "classifier.1", "efficientnet_b0"),
        ("convnext_tiny", "classifier.2", "convnext_tiny"),
        pytest.param(
            *("efficientnet_v2_s", "classifier.1", "efficientnetv2_s"), marks=pytest.mark.slow
        ),
        pytest.param(
            *("efficientnet_b5", "classifier.1", "efficientnet_b5"), marks=pytest.mark.slow
        ),
    ],
)
def test_torchvisions_weights_give_the_same_features(tmp_path, name, head, ours) -> None:
    model = theirs(name, head)
    # by name, as safetensors sorts them; wrapped, as a training saves it
    state = {f"module.{k}": v for k, v in sorted(model.state_dict().items())}
    torch.save({"model_state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    mine = create_backbone(ours, pretrained=str(tmp_path / "w.pth"), image_size=64)
    expected = features(model)
    torch.testing.assert_close(
        features(mine), expected, rtol=1e-4, atol=1e-4 * expected.abs().max()
    )


def test_densenet_of_torchvisions_first_files(tmp_path) -> None:
    model = theirs("densenet121", "classifier")
    state = {
        k.replace("norm1", "norm.1").replace("norm2", "norm.2") if "denselayer" in k else k: v
        for k, v in model.state_dict().items()
    }
    torch.save(state, tmp_path / "w.pth")
    mine = create_backbone("densenet121", pretrained=str(tmp_path / "w.pth"), image_size=64)
    torch.testing.assert_close(features(mine), features(model), rtol=1e-4, atol=1e-4)


def lukemelas_names(expands: list[bool]) -> list[str]:
    """Tensors of an `efficientnet_pytorch` model, in the order that it computes with them."""

    def norm(place: str) -> list[str]:
        kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{place}.{kind}" for kind in kinds]

    names = ["_conv_stem.weight", *norm("_bn0")]
    for i, expand in enumerate(expands):
        block = f"_blocks.{i}"
        names += [f"{block}._expand_conv.weight", *norm(f"{block}._bn0")] if expand else []
        names += [f"{block}._depthwise_conv.weight", *norm(f"{block}._bn1")]
        for part in ("reduce", "expand"):
            names += [f"{block}._se_{part}.weight", f"{block}._se_{part}.bias"]
        names += [f"{block}._project_conv.weight", *norm(f"{block}._bn2")]
    return [*names, "_conv_head.weight", *norm("_bn1"), "_fc.weight", "_fc.bias"]


def lukemelas(name: str, expands: list[bool]) -> tuple[dict[str, Tensor], nn.Module]:
    """A state dict of that package for a timm model of the same layers in the same order."""
    model = varied(timm.create_model(name))
    names, values = lukemelas_names(expands), list(model.state_dict().values())
    state = dict(sorted(zip(names, values, strict=True)))
    model.reset_classifier(0)  # type: ignore[operator]
    return state, model


def test_weights_of_efficientnet_pytorch(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    state, model = lukemelas("tf_efficientnet_b0", [False] + [True] * 15)
    # the winners of 2020: the network is one part of theirs
    wrapped = {f"enet.{k}": v for k, v in state.items()} | {"myfc.weight": torch.ones(9, 5)}
    file = tmp_path / "w.pth"
    torch.save(wrapped, file)
    mine = create_backbone("tf_efficientnet_b0_ns", pretrained=str(file), image_size=64)
    torch.testing.assert_close(features(mine), features(model), rtol=1e-4, atol=1e-4)
    for said in (
        f"weights {file}: 358 of 360 tensors fit tf_efficientnet_b0.ns_jft_in1k",
        "under efficientnet_pytorch's names; left out: classifier.bias, classifier.weight",
        f"weights {file}: outside of enet. are left out: myfc.weight",
    ):
        assert said in caplog.text
    with pytest.raises(CheckpointError, match="its tensors fit and its features would be wrong"):
        create_backbone("efficientnet_b0", pretrained=str(file), image_size=64)


def test_an_efficientnet_that_pads_in_another_way_is_refused(tmp_path) -> None:
    torch.save(torchvision.models.efficientnet_b0(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="take model.backbone=efficientnet_b0"):
        create_backbone("tf_efficientnet_b0", pretrained=str(tmp_path / "w.pth"), image_size=64)


def wrapped(kind: str, state: dict[str, Tensor]) -> dict[str, Any]:
    others = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    made = {
        "plain": state,
        "state_dict": {"state_dict": state, "optimizer": {"state": {0: {"step": torch.ones(2)}}}},
        "model_state_dict": {"model_state_dict": state, "epoch": 2},
        "ema": {"model": others, "ema": state},
        "state_dict_ema": {"state_dict": others, "state_dict_ema": state},
        "ema_model": {"state_dict": {f"ema_model.{k}": v for k, v in state.items()}
                      | {f"model.{k}": v for k, v in others.items()}},
    }  # fmt: skip
    if kind in made:
        return made[kind]
    return {"state_dict": {f"{kind}.{k}": v for k, v in state.items()}}


@pytest.mark.parametrize(
    "kind",
    "plain state_dict model_state_dict ema state_dict_ema ema_model module model net backbone "
    "encoder module.model.backbone model._orig_mod".split(),
)
def test_whatever_weights_are_wrapped_in(tmp_path, caplog, kind) -> None:
    caplog.set_level(logging.INFO)
    state = varied(timm.create_model(TINY, num_classes=7)).state_dict()
    torch.save(wrapped(kind, state), tmp_path / "w.pth")
    mine = create_backbone(TINY, pretrained=str(tmp_path / "w.pth"), image_size=32)
    assert all(torch.equal(v, state[k]) for k, v in mine.state_dict().items())
    n = len(mine.state_dict())
    assert f"{n} of {n + 2} tensors fit {TINY}; left out: fc.weight, fc.bias" in caplog.text


def test_wrapped_safetensors(tmp_path) -> None:
    state = timm.create_model(TINY, num_classes=7).state_dict()
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file({f"net.encoder.{k}": v for k, v in state.items()}, file)
    mine = create_backbone(TINY, pretrained=str(file), image_size=32)
    assert all(torch.equal(v, state[k]) for k, v in mine.state_dict().items())


def test_two_networks_that_fit_alike_are_not_chosen_between(tmp_path) -> None:
    state = timm.create_model(TINY, num_classes=0).state_dict()
    both = {f"{part}.{k}": v for part in ("encoder_k", "encoder_q") for k, v in state.items()}
    torch.save({"state_dict": both}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"fit alike, at state_dict.encoder_k., state_dict"):
        create_backbone(TINY, pretrained=str(tmp_path / "w.pth"), image_size=32)


def test_what_fits_too_little_says_how_much(tmp_path) -> None:
    state = timm.create_model(TINY, num_classes=7).state_dict()
    state.pop("layer2.0.conv1.weight")
    state["layer1.0.scale"] = torch.ones(3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as caught:
        create_backbone(TINY, pretrained=str(tmp_path / "w.pth"), image_size=32)
    n = len(timm.create_model(TINY, num_classes=0).state_dict())
    for said in (f"{n - 1} of its {n} tensors fit", "layer2.0.conv1.weight", "layer1.0.scale"):
        assert said in str(caught.value)
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="cannot be read as a state dict: .* got list"):
        create_backbone(TINY, pretrained=str(tmp_path / "w.pth"), image_size=32)


def test_every_former_name_is_the_model_of_today(caplog) -> None:
    """Those whose tag timm itself no longer has are refused with what is nearest."""
    caplog.set_level(logging.INFO)
    current_name.cache_clear()
    refused = set()
    for former, now in get_deprecated_models().items():
        try:
            assert input_spec(former) == input_spec(now)
            assert f"model.backbone={former} is {now} today: made for" in caplog.text
        except ConfigError as error:
            assert "Did you mean" in str(error)
            refused.add(former)
    assert len(refused) < 5
    spec = input_spec("tf_efficientnet_b5_ns")
    assert spec.size == 456
    assert current_name("resnet18") == "resnet18"


def test_former_names_know_their_weights(tmp_path) -> None:
    with pytest.raises(ConfigError, match="hf download timm/tf_efficientnet_b0.ns_jft_in1k"):
        create_backbone("tf_efficientnet_b0_ns", pretrained=True, image_size=64)
    config = {"pretrained_cfg": {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert input_spec("tf_efficientnet_b0_ns", weights=str(tmp_path)).size == 96


@pytest.mark.skipif(not REAL.exists(), reason="no real samples here")
def test_real_weights(caplog) -> None:
    caplog.set_level(logging.INFO)
    file = REAL.parent / "weights" / "tf_efficientnet_lite0.in1k.pth"
    if not file.exists():
        pytest.skip("no real weights here")
    create_backbone("tf_efficientnet_lite0", pretrained=str(file), image_size=64)
    assert "tensors fit tf_efficientnet_lite0" in caplog.text
