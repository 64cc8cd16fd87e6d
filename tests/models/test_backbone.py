"""Backbones by name; weights from a file, a folder, our checkpoints, or a hub out of reach."""

import json
import os
import time

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants

from isic.errors import CheckpointError, ConfigError
from isic.models.backbone import IMAGENET, create_backbone, input_spec
from isic.models.weights import read_weights, weight_file
from isic.training.checkpoint import read
from tests.archives import TINY


def create(name=TINY, pretrained=False, **options):
    return create_backbone(name, pretrained=pretrained, image_size=32, **options)


@pytest.fixture(scope="module")
def classifier():
    """Ten-class weights, as someone else may have trained them."""
    torch.manual_seed(7)
    return timm.create_model(TINY, num_classes=10)


def same(backbone, state):
    mine = backbone.state_dict()
    return all(torch.equal(v, state[k]) for k, v in mine.items())


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet81", "resnet18"),
        ("tf_efficentnetv2_s", "tf_efficientnetv2_s"),
        ("resnet18.a1_in2k", "resnet18.a1_in1k"),
        ("vit_small_patch14_dinov2.lvd143m", "vit_small_patch14_dinov2.lvd142m"),
    ],
)
def test_a_mistyped_name_gives_the_nearest(name, near):
    for refuse in (input_spec, create):
        with pytest.raises(ConfigError, match=f"no model '{name}'. Did you mean .*{near}"):
            refuse(name)


def test_a_name_like_nothing_gets_no_suggestion():
    with pytest.raises(ConfigError, match=r"'zzzzzzzz'\.$"):
        input_spec("zzzzzzzz")


def test_spec_is_timms():
    spec = input_spec("tf_efficientnetv2_s.in21k_ft_in1k")
    assert (spec.size, spec.mean, spec.std) == (300, (0.5,) * 3, (0.5,) * 3)
    assert input_spec("resnet18").mean == IMAGENET.mean


def write_spec(folder, kind):
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    content = {
        "timm": ("config.json", {"pretrained_cfg": {"input_size": [3, 96, 96], "mean": mean}}),
        "crop": ("preprocessor_config.json", {"crop_size": {"height": 96, "width": 96}}),
        "edge": ("preprocessor_config.json", {"size": {"shortest_edge": 96}}),
        "int": ("preprocessor_config.json", {"size": 96}),
    }[kind]
    if kind == "timm":
        content[1]["pretrained_cfg"]["std"] = std
    else:
        content[1].update(image_mean=mean, image_std=std)
    (folder / content[0]).write_text(json.dumps(content[1]))


@pytest.mark.parametrize("kind", ["timm", "crop", "edge", "int"])
def test_spec_of_a_model_folder_comes_first(tmp_path, kind):
    write_spec(tmp_path, kind)
    spec = input_spec("resnet18", weights=str(tmp_path))
    assert (spec.size, spec.mean, spec.std) == (96, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_spec_of_a_folder_that_says_nothing_or_nonsense(tmp_path):
    assert input_spec("resnet18", weights=str(tmp_path)).size == 224
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="broken config file"):
        input_spec("resnet18", weights=str(tmp_path))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("place", ["file", "folder", "folder, other name"])
def test_weights_from_a_file_or_folder(tmp_path, classifier, suffix, place):
    file = tmp_path / f"{'mine' if 'other' in place else 'model'}.{suffix}"
    state = classifier.state_dict()
    if suffix == "pth":  # as a DDP training writes it
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, file)
    else:
        safetensors.torch.save_file(state, file)
    backbone = create(pretrained=str(file if place == "file" else tmp_path))
    assert same(backbone, classifier.state_dict())
    assert not backbone.pretrained_cfg.get("state_dict")  # no second copy of the weights is kept


def test_weights_without_a_head(tmp_path, classifier):
    classifier = timm.create_model(TINY, num_classes=0)
    safetensors.torch.save_file(classifier.state_dict(), tmp_path / "headless.safetensors")
    backbone = create(pretrained=str(tmp_path / "headless.safetensors"))
    assert same(backbone, classifier.state_dict())


def test_weights_of_a_checkpoint_of_ours(trained32):
    backbone = create(pretrained=str(trained32.last))
    state = read(trained32.last)["state_dict"]
    prefix = "network.backbone."
    assert same(
        backbone, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )


def test_position_embeddings_are_resized(tmp_path):
    large = timm.create_model("test_vit", img_size=64, num_classes=3)
    safetensors.torch.save_file(large.state_dict(), tmp_path / "model.safetensors")
    small = create("test_vit", pretrained=str(tmp_path))
    assert small.pos_embed.shape[1] < large.pos_embed.shape[1]
    assert torch.equal(small.patch_embed.proj.weight, large.patch_embed.proj.weight)


def test_weights_of_another_architecture_name_the_keys(tmp_path, classifier):
    other = timm.create_model("test_efficientnet", num_classes=10)
    safetensors.torch.save_file(other.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        create(pretrained=str(tmp_path))
    text = str(caught.value)
    assert f"is not {TINY}" in text
    assert "Missing key(s)" in text
    assert "layer1.0.conv1.weight" in text
    assert "Unexpected key(s)" in text
    assert "blocks.0.0" in text
    assert len(text) < 2000


@pytest.mark.parametrize("fault", ["lacks", "misshapes"])
def test_weights_that_lack_or_misshape_a_layer(tmp_path, classifier, fault):
    state = classifier.state_dict()
    weight = state.pop("layer1.0.conv1.weight")
    if fault == "misshapes":
        state["layer1.0.conv1.weight"] = weight[:1]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"layer1\.0\.conv1\.weight"):
        create(pretrained=str(tmp_path / "weights.pth"))


def test_a_pickle_as_weights_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'mark'}",)

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="cannot be read as a file of plain tensors"):
        create(pretrained=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04torn"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_damaged_weights_are_refused(tmp_path, content, suffix):
    file = tmp_path / f"model.{suffix}"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(file)


def test_no_weights_there(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        weight_file(tmp_path / "absent.pth")
    with pytest.raises(ConfigError, match=r"holds none of model\.safetensors"):
        weight_file(tmp_path)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty hub cache, and the network asked for as outside of tests; counts requests."""
    asked = []

    class Session:
        def head(self, url, **options):
            asked.append((url, options["timeout"]))
            raise OSError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setattr(
        time, "sleep", lambda s: pytest.fail(f"the hub client waits {s} s to retry")
    )
    return asked


def test_without_a_network_it_says_at_once_how_to_bring_weights(hub):
    with pytest.raises(ConfigError) as caught:
        create("resnet18", pretrained=True)
    text = str(caught.value)
    assert "hf download timm/resnet18.a1_in1k --local-dir DIR" in text
    assert "model.pretrained=DIR" in text
    assert "model.pretrained=false" in text
    assert len(hub) == 1
    assert hub[0][1] <= 5
    assert constants.HF_HUB_OFFLINE is False  # asked again the next time


def test_without_a_network_the_cache_serves(hub, tmp_path, classifier):
    repo = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    weights = timm.create_model(TINY, num_classes=1000)
    safetensors.torch.save_file(weights.state_dict(), snapshot / "model.safetensors")
    assert same(create(pretrained=True), weights.state_dict())


def test_no_network_is_touched_from_scratch(hub, monkeypatch):
    create(pretrained=False)
    assert hub == []


def test_a_model_without_weights_says_so():
    with pytest.raises(ConfigError, match="timm has no weights of coatnet_0_224"):
        create("coatnet_0_224", pretrained=True)
