"""Files of BEiT and CAE pretraining become the same function in a plain ViT."""

import argparse
from functools import partial

import pytest
import timm
import torch
from timm.models.beit import Beit
from torch import nn

from isic.errors import CheckpointError
from isic.models import backbone
from isic.models.backbone import create_backbone
from isic.models.weights import as_plain_vit

PLAIN = "test_vit"


@pytest.fixture(scope="module")
def beit():
    """PanDerm's layout, as small as timm's test_vit: absolute positions, scales, no tables."""
    torch.manual_seed(0)
    vit = timm.create_model(PLAIN, img_size=32)
    model = Beit(
        *(32, 16, 3, 0, "token", vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads),
        mlp_ratio=vit.blocks[0].mlp.fc1.out_features / vit.embed_dim,
        init_values=0.1,
        use_abs_pos_emb=True,
        norm_layer=partial(nn.LayerNorm, eps=vit.norm.eps),
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def pretraining(model):
    """What such a pretraining saves: encoder, decoder, teacher, head, the command's arguments."""
    state = {f"encoder.{k}": v for k, v in model.state_dict().items()}
    state["encoder.head.weight"], state["encoder.head.bias"] = torch.ones(3, 64), torch.ones(3)
    state["mask_token"] = state["encoder.mask_token"] = torch.zeros(1, 1, 64)
    state |= {"decoder.blocks.0.gamma_1": torch.ones(3), "teacher.proj.weight": torch.ones(3)}
    return {"model": state, "epoch": 499, "args": argparse.Namespace(model="cae", lr=1e-3)}


def test_the_features_are_the_same(tmp_path, beit, caplog):
    caplog.set_level("INFO")
    torch.save(pretraining(beit), tmp_path / "panderm.pth")
    plain = create_backbone(PLAIN, pretrained=str(tmp_path / "panderm.pth"), image_size=32).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = beit.forward_features(image)[:, 0]
        assert torch.allclose(plain(image), expected, atol=1e-5)
    assert "decoder.blocks.0.gamma_1" in caplog.text
    assert "teacher.proj.weight" in caplog.text


def test_another_image_size_resizes_the_positions(tmp_path, beit):
    torch.save(pretraining(beit), tmp_path / "panderm.pth")
    plain = create_backbone(PLAIN, pretrained=str(tmp_path / "panderm.pth"), image_size=64)
    assert plain(torch.zeros(1, 3, 64, 64)).shape == (1, plain.num_features)


def test_keys_that_have_no_place_are_named(tmp_path, beit):
    saved = pretraining(beit)
    saved["model"]["encoder.blocks.0.attn.relative_position_bias_table"] = torch.ones(3, 3)
    saved["model"].pop("encoder.blocks.1.mlp.fc1.weight")
    torch.save(saved, tmp_path / "panderm.pth")
    with pytest.raises(CheckpointError) as caught:
        create_backbone(PLAIN, pretrained=str(tmp_path / "panderm.pth"), image_size=32)
    assert "relative_position_bias_table" in str(caught.value)
    assert "blocks.1.mlp.fc1.weight" in str(caught.value)


def test_other_weights_are_left_as_they_are():
    plain = {"blocks.0.attn.qkv.weight": torch.ones(3), "encoder.x": torch.ones(1)}
    assert as_plain_vit(plain) is plain


def test_a_beit_keeps_its_own_keys(tmp_path, monkeypatch):
    """Only what is loaded into a plain ViT is turned into one."""
    seen = []
    monkeypatch.setattr(backbone, "as_plain_vit", lambda state: seen.append(1) or state)
    torch.save({"blocks.0.gamma_1": torch.ones(3)}, tmp_path / "beit.pth")
    for name in ("test_resnet", PLAIN):
        with pytest.raises(CheckpointError):
            create_backbone(name, pretrained=str(tmp_path / "beit.pth"), image_size=32)
    assert seen == [1]
