"""Hugging Face encoders from a folder: same features as transformers', and what a folder lacks."""

import json
import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import safetensors.torch
import torch
import yaml

from isic.errors import CheckpointError, ConfigError
from isic.models.backbone import create_backbone, input_spec
from isic.models.network import LesionNetwork
from isic.models.summary import multiply_adds
from isic.training.checkpoint import load
from isic.training.module import LesionClassifier

YAML = Path(__file__).resolve().parents[2] / "conf" / "model" / "hf.yaml"
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 56,
    "patch_size": 14,
}
TEXT = {k: SMALL[k] for k in list(SMALL)[:4]} | {"vocab_size": 60, "bos_token_id": 0}
KINDS = ("dinov2", "clip", "vit", "convnext")
PROCESSOR = {"crop_size": {"height": 28, "width": 28}, "image_mean": [0.4] * 3}


def reference(kind):
    """A small model of transformers, with weights that are all its own."""
    t = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = {
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**SMALL)),
        "vit": lambda: t.ViTModel(t.ViTConfig(**SMALL)),
        "clip": lambda: t.CLIPModel(
            t.CLIPConfig(vision_config=SMALL, text_config={**TEXT, "eos_token_id": 1})
        ),
        "convnext": lambda: t.ConvNextModel(
            t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
        ),
    }[kind]()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture
def folder(tmp_path):
    """Writes what `hf download` would; returns (name, the model itself)."""

    def write(kind, *, weights="model.safetensors"):
        model, place = reference(kind), tmp_path / kind
        model.save_pretrained(place)
        (place / "preprocessor_config.json").write_text(
            json.dumps({**PROCESSOR, "image_std": [0.3] * 3})
        )
        if weights != "model.safetensors":
            (place / "model.safetensors").unlink()
            torch.save(model.state_dict(), place / weights)
        return f"hf:{place}", model

    return write


def features(model, kind, image):
    if kind == "clip":
        return model.vision_model(image, interpolate_pos_encoding=True).pooler_output
    if kind == "vit":
        return model(image, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    return model(image).pooler_output.flatten(1)


@pytest.mark.parametrize("side", [28, 56])
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_transformers(folder, kind, side):
    name, model = folder(kind)
    backbone = create_backbone(name, pretrained=True, image_size=side).eval()
    image = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.allclose(backbone(image), features(model, kind, image), atol=1e-6)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "encoder.pth"])
def test_weights_in_a_torch_file(folder, file):
    name, model = folder("dinov2", weights=file)
    backbone = create_backbone(name, pretrained=True, image_size=28).eval()
    image = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        assert torch.allclose(backbone(image), features(model, "dinov2", image), atol=1e-6)


def test_weights_in_several_files(folder):
    name, model = folder("dinov2")
    place, state = Path(name.removeprefix("hf:")), model.state_dict()
    (place / "model.safetensors").unlink()
    for i in (0, 1):
        part = {k: v for j, (k, v) in enumerate(state.items()) if j % 2 == i}
        safetensors.torch.save_file(part, place / f"model-0000{i + 1}-of-00002.safetensors")
    backbone = create_backbone(name, pretrained=True, image_size=28).eval()
    image = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        assert torch.allclose(backbone(image), features(model, "dinov2", image), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_learns_everywhere_and_its_checkpoint_needs_no_folder(folder, kind, tmp_path):
    name, _ = folder(kind)
    call = yaml.safe_load(YAML.read_text()) | {"backbone": name, "dropout": 0.0}
    call.pop("_target_")
    network = LesionNetwork(**call, n_logits=2)
    assert network.image_size == 28
    assert network.arguments["mean"] == [0.4] * 3
    assert network.arguments["std"] == [0.3] * 3
    batch = {"image": torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8)}
    (network(batch) * torch.randn(3, 2)).sum().backward()
    trained = [(k, p) for k, p in network.named_parameters() if p.requires_grad]
    assert not [k for k, p in trained if p.grad is None or not p.grad.any()]
    assert len(trained) > 10
    assert multiply_adds(network, 28) > 1e4
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_model_summary=False)
    trainer.strategy.connect(LesionClassifier(network, classes=("a", "b")))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    shutil.rmtree(name.removeprefix("hf:"))
    again = load(tmp_path / "last.ckpt").network.eval()
    with torch.no_grad():
        assert torch.equal(again(batch), network.eval()(batch))
    from_ours = create_backbone(
        again.arguments["backbone"], pretrained=str(tmp_path / "last.ckpt"), image_size=28
    )
    state = network.backbone.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in from_ours.state_dict().items())


def test_position_embeddings_are_not_decayed(folder):
    backbone = create_backbone(folder("dinov2")[0], pretrained=True, image_size=28)
    listed = {n.rpartition(".")[2] for n in backbone.no_weight_decay()}
    assert listed == {"cls_token", "position_embeddings"}


def test_from_scratch_needs_no_weights(folder):
    name, model = folder("dinov2")
    Path(name.removeprefix("hf:"), "model.safetensors").unlink()
    backbone = create_backbone(name, pretrained=False, image_size=28)
    own = model.state_dict()["encoder.layer.0.mlp.fc1.weight"]
    assert not torch.equal(backbone.state_dict()["model.encoder.layer.0.mlp.fc1.weight"], own)


@pytest.mark.parametrize("fault", ["lacks", "misshapes"])
@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_weights_that_leave_something_out_are_refused(folder, kind, fault):
    name, model = folder(kind)
    file = Path(name.removeprefix("hf:"), "model.safetensors")
    state = safetensors.torch.load_file(file)
    key = next(k for k in state if "vision" in k and "fc1.weight" in k or "layer.1.mlp.fc1.w" in k)
    weight = state.pop(key)
    if fault == "misshapes":
        state[key] = weight[:3].clone()
    safetensors.torch.save_file(state, file)
    with pytest.raises(CheckpointError, match=r"mlp\.fc1\.weight"):
        create_backbone(name, pretrained=True, image_size=28)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_says_which(tmp_path, file):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", **SMALL}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    if file != "model.safetensors":
        (tmp_path / file).unlink()
    else:
        pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match=f"{file}"):
        LesionNetwork(f"hf:{tmp_path}", n_logits=1, image_size=28)


def test_what_is_no_folder_of_a_model(tmp_path):
    with pytest.raises(ConfigError, match=r"names no folder: .*absent.*hf download"):
        input_spec(f"hf:{tmp_path / 'absent'}")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(ConfigError, match=r"timm's: model\.backbone=resnet18"):
        input_spec(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"broken config\.json"):
        input_spec(f"hf:{tmp_path}")


def test_a_type_that_transformers_does_not_know(tmp_path):
    pytest.importorskip("transformers")
    for kind, message in (
        ("nothing", "knows no model_type 'nothing'"),
        ("bert", "takes no images"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(ConfigError, match=message):
            create_backbone(f"hf:{tmp_path}", pretrained=False, image_size=28)


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="knows no model_type"):
        create_backbone(f"hf:{tmp_path}", pretrained=False, image_size=28)


def test_kernels_that_a_config_asks_for_are_not_fetched(tmp_path):
    pytest.importorskip("transformers")
    asked = dict.fromkeys(("attn_implementation", "_attn_implementation"), "someone/kernels")
    asked["_attn_implementation_internal"] = "someone/kernels"
    for config in (
        {"model_type": "dinov2", **SMALL, **asked},
        {"model_type": "clip", "vision_config": {**SMALL, **asked}, "text_config": TEXT, **asked},
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        backbone = create_backbone(f"hf:{tmp_path}", pretrained=False, image_size=28)
        assert backbone.model.config._attn_implementation == "sdpa"


def test_without_transformers_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", **SMALL}))
    with pytest.raises(ConfigError, match=r"pip install 'isic\[hf\]'"):
        create_backbone(f"hf:{tmp_path}", pretrained=False, image_size=28)


def test_drop_path_where_there_is_none_and_where_there_is(folder):
    with pytest.raises(ConfigError, match=r"model\.drop_path: .* has no stochastic depth"):
        create_backbone(folder("clip")[0], pretrained=True, image_size=28, drop_path=0.1)
    backbone = create_backbone(folder("dinov2")[0], pretrained=True, image_size=28, drop_path=0.9)
    image = torch.randn(1, 3, 28, 28).expand(64, 3, 28, 28)
    assert len(backbone.train()(image).unique(dim=0)) > 1
    assert len(backbone.eval()(image).unique(dim=0)) == 1
