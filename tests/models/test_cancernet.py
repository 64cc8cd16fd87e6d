"""CancerNet-SCa under its timm name: size, features, weights, and what a condenser does."""

import pytest
import safetensors.torch
import timm
import torch

from isic.errors import ConfigError
from isic.models.backbone import create_backbone, input_spec
from isic.models.cancernet import AttentionCondenser, CancerNet
from isic.models.summary import count


def test_it_is_as_large_as_the_papers():
    network = CancerNet(num_classes=2)
    assert 0.8e6 < sum(p.numel() for p in network.parameters()) < 1.19e6  # B: 0.80 M, C: 1.19 M
    image = torch.zeros(1, 3, 224, 224)
    assert 0.38e9 < count(network, image) < 0.46e9  # B: 0.43 G, C: 0.40 G


def test_the_table_of_the_module_states_its_size():
    from isic.models import cancernet

    network = CancerNet(num_classes=2)
    size = sum(p.numel() for p in network.parameters()) / 1e6
    work = count(network, torch.zeros(1, 3, 224, 224)) / 1e9
    assert f"two classes | {size:.2f} M | {work:.2f} G |" in cancernet.__doc__


def test_it_serves_wherever_a_timm_name_does():
    assert input_spec("cancernet_sca").size == 224
    assert timm.is_model("cancernet_sca")
    backbone = create_backbone("cancernet_sca", pretrained=False, image_size=32)
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, backbone.num_features)
    features = timm.create_model("cancernet_sca", features_only=True)
    found = features(torch.zeros(2, 3, 64, 64))
    assert [f.shape[1] for f in found] == features.feature_info.channels()
    assert [64 // f.shape[2] for f in found] == features.feature_info.reduction()
    network = timm.create_model("cancernet_sca", num_classes=5)
    network.reset_classifier(7)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert network.get_classifier().out_features == 7


@pytest.mark.parametrize("side", [1, 28, 33])
def test_it_takes_any_side(side):
    assert CancerNet(2).eval()(torch.zeros(1, 3, side, side)).shape == (1, 2)


def test_a_mistyped_name_finds_it():
    with pytest.raises(ConfigError, match="Did you mean cancernet_sca"):
        input_spec("cancernet_sac")


def test_weights_of_an_earlier_run(tmp_path):
    torch.manual_seed(0)
    network = CancerNet(num_classes=9)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "model.safetensors")
    backbone = create_backbone("cancernet_sca", pretrained=str(tmp_path), image_size=32)
    state = network.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())
    with pytest.raises(ConfigError, match="timm has no weights of cancernet_sca"):
        create_backbone("cancernet_sca", pretrained=True, image_size=32)


def test_drop_path_where_there_is_none():
    with pytest.raises(ConfigError, match=r"model\.drop_path: cancernet_sca has no stochastic"):
        create_backbone("cancernet_sca", pretrained=False, image_size=32, drop_path=0.1)


def test_a_condenser_attends_and_is_the_identity_at_scale_zero():
    torch.manual_seed(0)
    condenser, x = AttentionCondenser(16).eval(), torch.randn(2, 16, 5, 5)
    out = condenser(x)
    ratio = out / x
    assert out.shape == x.shape
    assert ((ratio > 1) & (ratio < 2)).all()
    assert ratio.std() > 1e-3
    with torch.no_grad():
        condenser.scale.zero_()
        assert torch.equal(condenser(x), x)
