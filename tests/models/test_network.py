"""Every model that ships builds, runs on both kinds of batch and learns everywhere."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml

from isic.config.targets import locate
from isic.errors import ConfigError
from isic.models.backbone import IMAGENET, input_spec
from isic.models.network import LesionNetwork

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
# The one that names a folder is tested in test_hf.py.
YAMLS = sorted(path for path in CONF.glob("*.yaml") if path.stem != "hf")


def arguments(path, **options):
    """What a yaml says, from scratch and at the smallest side."""
    node = yaml.safe_load(path.read_text())
    target = locate(node.pop("_target_"))
    side = 28 if "patch14" in node["backbone"] else 32
    if path.stem == "panderm":  # 86 M parameters; what its file holds is tested in test_weights.py
        assert input_spec(node["backbone"]) == IMAGENET
        node["backbone"] = "test_vit"
    call = {**node, "n_logits": 1, "pretrained": False, "image_size": side, **options}
    inspect.signature(target).bind(**call)
    return target, call


def test_the_promised_models_ship():
    promised = "effnetv2 effnet_b0 mobilenetv3 resnet18 resnet50 densenet121 convnextv2 dinov2"
    promised += " swinv2 eva02 cancernet_sca hf panderm"
    assert set(promised.split()) <= {p.stem for p in CONF.glob("*.yaml")}


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_every_yaml_builds_runs_and_learns_everywhere(path):
    target, call = arguments(path, drop_path=0.0, dropout=0.0)
    if path.stem == "swinv2":  # at 32 px its last windows hold one token: attention to itself alone
        call["image_size"] = 64
    torch.manual_seed(0)
    network = target(**call)
    with torch.no_grad():  # zero-initialised norms and layer scales hide their block's gradient
        for parameter in network.parameters():
            if not parameter.any():
                parameter.uniform_(-0.1, 0.1)
    side = call["image_size"]
    image = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    logits = network({"image": image})
    assert logits.shape == (3, 1)
    assert torch.isfinite(logits).all()
    (logits * torch.tensor([[1.0], [-2.0], [3.0]])).sum().backward()
    dead = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead
    spec = input_spec(call["backbone"])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    network.eval()
    with torch.no_grad():
        as_float = network({"image": (image / 255 - mean) / std})
        assert torch.allclose(network({"image": image}), as_float, atol=1e-4)


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_every_yaml_builds_with_its_own_regularisation(path):
    target, call = arguments(path)
    network = target(**call)
    assert network.arguments["drop_path"] == call["drop_path"]
    assert network.dropout.p == call["dropout"]


def test_uint8_is_normalised_with_the_backbones_mean_and_std():
    seen = []

    class Look(torch.nn.Module):
        def forward(self, image):
            seen.append(image)
            return image.flatten(1)[:, :4]

    network = LesionNetwork("test_resnet", n_logits=1, pretrained=False, image_size=32)
    spec = input_spec("test_resnet")
    network.backbone, network.head = Look(), torch.nn.Linear(4, 1)
    image = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    image = image.contiguous(memory_format=torch.channels_last)
    network({"image": image})
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    assert torch.allclose(seen[0], (image / 255 - mean) / std, atol=1e-6)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    network({"image": seen[0]})
    assert seen[1] is seen[0]  # floats are taken as they are


def test_mean_and_std_can_be_given_and_rebuild_the_network():
    given = {"mean": [0.7, 0.5, 0.5], "std": [0.1, 0.2, 0.3]}
    network = LesionNetwork("test_resnet", n_logits=1, pretrained=False, image_size=32, **given)
    again = LesionNetwork(**network.arguments, pretrained=False)
    for name, value in given.items():
        assert getattr(again, name).flatten().tolist() == pytest.approx([255 * v for v in value])
    assert again.arguments == network.arguments
    assert not {"mean", "std"} & set(network.state_dict())


def test_the_size_defaults_to_what_the_model_was_made_for():
    network = LesionNetwork("test_resnet.r160_in1k", n_logits=2, pretrained=False)
    assert network.image_size == 160


def test_logits_of_half_precision_training_do_not_tie():
    torch.manual_seed(0)
    network = LesionNetwork("test_resnet", n_logits=1, pretrained=False, image_size=32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = network({"image": torch.randn(256, 3, 32, 32)})
    assert logits.dtype == torch.float32
    assert len(logits.unique()) == 256 > len(logits.bfloat16().unique())


@pytest.mark.parametrize("side", [33, 30, 8])
def test_a_side_that_patches_do_not_divide_is_refused_with_the_nearest(side):
    with pytest.raises(ConfigError) as caught:
        LesionNetwork(
            "vit_small_patch14_dinov2.lvd142m", n_logits=1, pretrained=False, image_size=side
        )
    near = {33: "28 or 42", 30: "28 or 42", 8: "nearest are 14"}[side]
    assert "data.image_size" in str(caught.value)
    assert near in str(caught.value)


def test_a_side_that_is_too_small_is_refused_before_the_data():
    with pytest.raises(ConfigError, match=r"data\.image_size: densenet121.* cannot take 16 px"):
        LesionNetwork("densenet121.ra_in1k", n_logits=1, pretrained=False, image_size=16)


def test_drop_path_where_there_is_none():
    with pytest.raises(ConfigError, match=r"model\.drop_path: densenet121.*set it to 0"):
        LesionNetwork("densenet121", n_logits=1, pretrained=False, image_size=32, drop_path=0.1)
