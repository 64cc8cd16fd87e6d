"""Staged fine-tuning by hand: which weights move when and how fast, and what is still."""

import json
import logging
import math
from functools import partial

import pytest
import pytorch_lightning as pl
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from isic.errors import ConfigError
from isic.models.backbone import create_backbone
from isic.models.network import LesionNetwork
from isic.training.callbacks import EpochSeed, ExponentialAverage, checkpoint_callbacks
from isic.training.hardware import TrainerOptions
from isic.training.module import LesionClassifier
from isic.training.optim import WarmupCosine
from isic.training.unfreeze import Finetune, Stages, encoders, layers
from tests.archives import TINY

LAYOUT = {"groups": {"age": [0, 1], "sex": [2, 3, 4]}, "absent": [0.3, 1.0, 0.0, 0.0, 1.0]}
VIEWS = ("dermoscopic", "clinical")
SMALL_CLIP = "hf:" + json.dumps(
    {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 16,
    }
)
NETWORKS = {
    "cnn": {"backbone": TINY},
    "vit": {"backbone": "test_vit"},
    "hf": {"backbone": SMALL_CLIP},
    "cancernet": {"backbone": "cancernet_sca"},
    "dual, separate": {"backbone": TINY, "views": VIEWS},
    "dual, shared": {"backbone": TINY, "views": VIEWS, "fusion": {"shared": True}},
    "gated": {"backbone": TINY, "views": VIEWS, "metadata": LAYOUT, "fusion": "gated"},
    "metadata": {"backbone": TINY, "metadata": LAYOUT},
}
ADAMW = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.5)


def build(backbone=TINY, **options):
    torch.manual_seed(0)
    return LesionNetwork(backbone, n_logits=1, pretrained=False, image_size=32, **options)


def copies(network):
    return {k: v.clone() for k, v in network.state_dict().items()}


class Look(pl.Callback):
    """The state after each epoch, and the rate of each parameter at each step."""

    def __init__(self):
        self.states, self.averages, self.rates, self.grads = [], [], [], []

    def on_fit_start(self, trainer, pl_module):
        self.states.append(copies(pl_module.network))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        of = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        named = dict(pl_module.network.named_parameters())
        self.rates.append({k: of[id(p)] for k, p in named.items() if id(p) in of})
        self.grads.append({k for k, p in named.items() if p.grad is not None})

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append(copies(pl_module.network))
        average = [c for c in trainer.callbacks if isinstance(c, ExponentialAverage)]
        if average:
            self.averages.append(copies(average[0]._average_model.module.network))


def train(data, finetune, *, epochs, network=None, callbacks=(), ckpt=None, batches=2, **options):
    torch.manual_seed(0)
    optim = WarmupCosine(ADAMW, warmup_epochs=1)
    network = network or build(drop_path=0.2)
    module = LesionClassifier(
        network, classes=("benign", "malignant"), optim=optim, finetune=finetune
    )
    look = Look()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[EpochSeed(3), look, *callbacks],
        logger=False,
        enable_checkpointing=any(isinstance(c, pl.callbacks.ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_train_batches=batches,
        limit_val_batches=1,
        **options,
    )
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    return look, module


# ---- by hand

PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")  # of timm's tiny residual network
BY_HAND = [  # head_epochs=1, group_epochs=2 in four groups: the stem goes with the first stage
    set(),
    *[{"layer4"}] * 2,
    *[{"layer3", "layer4"}] * 2,
    *[{"layer2", "layer3", "layer4"}] * 2,
    set(PARTS),
]


def part(name):
    return name.split(".")[1] if name.startswith("backbone.") else "head"


def test_what_moves_in_which_epoch_and_how_fast_by_hand(data32):
    look, _ = train(
        data32(),
        Finetune(head_epochs=1, group_epochs=2, layer_decay=0.5),
        epochs=8,
        callbacks=[ExponentialAverage(0.9)],
    )
    first = look.states[0]
    for epoch, learning in enumerate(BY_HAND):
        before, after = look.states[epoch : epoch + 2]
        moved = {part(k) for k in after if not torch.equal(before[k], after[k])}
        assert moved == {"head", *learning}, epoch
        still = [k for k in after if part(k) not in moved]
        assert all(torch.equal(look.averages[epoch][k], first[k]) for k in still)
        for step in (2 * epoch, 2 * epoch + 1):
            assert {part(k) for k in look.grads[step]} == moved
    depth = {"head": 0, "layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "conv1": 5, "bn1": 5}
    for step, rates in enumerate(look.rates):  # 16 steps, 2 of them warm-up
        half = 0.01 + 0.99 * (1 + math.cos(math.pi * (step - 2) / 14)) / 2
        scale = (step + 1) / 3 if step < 2 else half
        assert rates == pytest.approx({k: 1e-2 * scale * 0.5 ** depth[part(k)] for k in rates})
    assert len(look.rates) == 16
    assert set(look.rates[0]) == {k for k in first if not k.endswith(("_mean", "_var", "tracked"))}


@pytest.mark.parametrize(
    ("options", "learning"),
    [
        ({}, [4, 4, 4]),
        ({"head_epochs": 2}, [0, 0, 4, 4]),
        ({"group_epochs": 1}, [1, 2, 3, 4, 4]),
        ({"head_epochs": 1, "group_epochs": 2}, [0, 1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_the_number_of_groups_that_learn(options, learning):
    made = Finetune(**options)
    assert [made.n_learning(e, n_groups=4) for e in range(len(learning))] == learning
    assert made.freezes == bool(options)


# ---- depth


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet"])
def test_rates_are_those_of_timms_layer_decay(name):
    """Also of networks with one block a stage; see below for others."""
    whole = timm.create_model(name, num_classes=1)
    scale = {}
    for group in param_groups_layer_decay(whole, layer_decay=0.65):
        for k, p in whole.named_parameters():
            if any(p is q for q in group["params"]):
                scale[k] = group["lr_scale"]
    ours = Stages(build(name), Finetune(layer_decay=0.65)).scale
    classifier = {k for k in scale if f"backbone.{k}" not in ours}
    assert {scale[k] for k in classifier} == {1.0}
    assert ours == pytest.approx({f"backbone.{k}": scale[k] for k in scale if k not in classifier})


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("tf_efficientnetv2_s", 0.65**7),  # 41 blocks: by them its stem would stand still at 2e-8
        ("densenet121", 0.65**5),
        ("resnet18", 0.65**5),
        ("convnextv2_nano", 0.65**5),
        ("vit_tiny_patch16_224", 0.65**13),
        ("swinv2_tiny_window8_256", 0.65**13),
    ],
)
def test_a_layer_is_a_stage_of_what_is_convolutional_and_a_block_of_what_is_not(
    name, least, caplog
):
    caplog.set_level(logging.INFO)
    with torch.device("meta"):
        encoder = timm.create_model(name, num_classes=0)
    network = nn.ModuleDict({"backbone": encoder, "head": nn.Linear(2, 1)})
    scale = Stages(network, Finetune(layer_decay=0.65)).scale
    assert min(scale.values()) == pytest.approx(least)
    assert max(scale.values()) >= 0.65
    assert f"learn at {least:.1e} to 1 times the learning rate" in caplog.text


def test_an_encoder_without_timms_groups_is_cut_at_its_longest_list():
    encoder = create_backbone(SMALL_CLIP, pretrained=False, image_size=32)
    depth, head = layers(encoder)
    for name, at in depth.items():
        if ".layers." in name:
            assert at == 1 + int(name.split(".layers.")[1].split(".")[0])
        else:
            assert at == (3 if "post_layernorm" in name else 0), name
    assert head == 4
    plain = nn.ModuleDict({"one": nn.Linear(2, 2), "two": nn.Linear(2, 2)})
    assert layers(plain) == (dict.fromkeys(dict(plain.named_parameters()), 0), 1)
    row = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert set(layers(row)[0].values()) == {1, 3}


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_thaws_group_by_group_to_what_it_was(kind):
    network = build(**NETWORKS[kind])
    born = {k for k, p in network.named_parameters() if p.requires_grad}
    modes = {k: m.training for k, m in network.named_modules()}
    made = Stages(network, Finetune(head_epochs=1, group_epochs=1))
    seen = []
    for epoch in range(6):
        made.begin(network, epoch, epochs=6)
        seen.append({k for k, p in network.named_parameters() if p.requires_grad})
    inside = tuple(f"{prefix}." for prefix in encoders(network))
    assert seen[0] == {k for k in born if not k.startswith(inside)}
    assert {"head.weight", "head.bias"} <= seen[0]
    assert all(a < b for a, b in zip(seen[:4], seen[1:5], strict=True))
    assert seen[4] == seen[5] == born
    assert {k: m.training for k, m in network.named_modules()} == modes
    if kind == "dual, separate":
        for learning in seen:
            own = {k.removeprefix("backbone.") for k in learning if k.startswith("backbone.")}
            other = "others.clinical."
            assert own == {k.removeprefix(other) for k in learning if k.startswith(other)}


def test_what_the_network_itself_froze_stays_frozen():
    network = build(SMALL_CLIP)
    unused = "backbone.model.encoder.layers.1.mlp.fc1.bias"
    unused = next((k for k, p in network.named_parameters() if not p.requires_grad), unused)
    dict(network.named_parameters())[unused].requires_grad_(False)
    made = Stages(network, Finetune(head_epochs=1))
    for epoch in (0, 1):
        made.begin(network, epoch, epochs=2)
        assert not dict(network.named_parameters())[unused].requires_grad
    made.release(network)
    assert not dict(network.named_parameters())[unused].requires_grad


# ---- what is frozen is still, and costs nothing


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_frozen_encoder_draws_nothing_averages_nothing_and_has_no_backward(backbone):
    network = build(backbone, drop_path=0.5).train()
    with torch.no_grad():  # zero-initialised norms would hide what drop path drops
        for parameter in network.parameters():
            if not parameter.any():
                parameter.uniform_(-0.1, 0.1)
    made = Stages(network, Finetune(head_epochs=1, group_epochs=1, groups=2))
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    made.begin(network, 0, epochs=3)
    state = copies(network)
    features = [network.backbone(network._input(image)) for _ in range(2)]
    assert torch.equal(*features)
    assert not features[0].requires_grad
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    made.begin(network, 2, epochs=3)
    features = [network.backbone(network._input(image)) for _ in range(2)]
    assert not torch.equal(*features)
    assert features[0].requires_grad


def test_a_part_without_parameters_does_as_the_part_before_it():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop_first, self.stem = nn.Dropout(), nn.Linear(2, 2)
            self.drop = nn.Dropout()
            self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.norm = nn.BatchNorm1d(2, affine=False)

    network = nn.ModuleDict({"backbone": Encoder(), "head": nn.Linear(2, 1)})
    made = Stages(network, Finetune(group_epochs=1, groups=3))
    still = []
    for epoch in range(3):
        made.begin(network, epoch, epochs=3)
        still.append({k for k, m in network.named_modules() if not m.training})
    stem = {"backbone.drop_first", "backbone.stem", "backbone.drop"}
    assert still == [stem | {"backbone.blocks.0"}, stem, set()]


# ---- resume, devices, graphs


FILES = ("state_dict", "current_model_state", "averaging_state")


@pytest.mark.slow
def test_a_resume_within_a_stage_is_exact(data32, tmp_path):
    staged = Finetune(head_epochs=2, group_epochs=2, groups=2, layer_decay=0.7)

    def run(folder, epochs, ckpt=None):
        saving = checkpoint_callbacks(tmp_path / folder, monitor=None, mode="max")
        train(
            *(data32(), staged),
            epochs=epochs,
            callbacks=[ExponentialAverage(0.9), *saving],
            ckpt=ckpt,
            batches=1,
        )
        return tmp_path / folder / "last.ckpt"

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == self.at

    whole = torch.load(run("whole", 6), weights_only=True)
    for at in (0, 2):  # in the middle of the first stage and of the second
        stop = Stop()
        stop.at = at
        saving = checkpoint_callbacks(tmp_path / f"{at}", monitor=None, mode="max")
        average = ExponentialAverage(0.9)
        train(data32(), staged, epochs=6, callbacks=[average, stop, *saving], batches=1)
        cut = tmp_path / f"{at}" / "last.ckpt"
        assert torch.load(cut, weights_only=True)["epoch"] == at
        again = torch.load(run(f"{at}", 6, cut), weights_only=True)
        for name in FILES:
            assert whole[name].keys() == again[name].keys()
            assert all(torch.equal(whole[name][k], again[name][k]) for k in whole[name]), name
        assert str(whole["optimizer_states"]) == str(again["optimizer_states"])


def test_a_second_fit_begins_with_the_first_stage_again(data32):
    _, module = train(data32(), Finetune(head_epochs=5), epochs=1, batches=1)
    assert not any(p.requires_grad for p in module.network.backbone.parameters())
    module.setup("fit")
    assert all(p.requires_grad for p in module.network.parameters())


def test_several_devices_look_for_what_has_no_gradient():
    options = TrainerOptions(accelerator="cpu", devices=2, precision="32")
    for freezes in (False, True):
        strategy = options.trainer_arguments(freezes=freezes)["strategy"]
        assert strategy._ddp_kwargs["find_unused_parameters"] is freezes


@pytest.mark.slow
def test_a_compiled_network_takes_every_stage(data32):
    staged = Finetune(head_epochs=1, group_epochs=1, layer_decay=0.8)
    plain, _ = train(data32(), staged, epochs=6, network=build())
    network = build()
    network.compile(backend="aot_eager")
    compiled, _ = train(data32(), staged, epochs=6, network=network)
    for a, b in zip(plain.states, compiled.states, strict=True):
        for key, value in a.items():
            torch.testing.assert_close(b[key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32"])
def test_mixed_precision_and_channels_last_freeze_alike(data32, precision):
    network = build().to(memory_format=torch.channels_last)
    look, _ = train(
        *(data32(), Finetune(head_epochs=1)),
        epochs=2,
        network=network,
        batches=1,
        precision=precision,
    )
    first, second, third = look.states
    assert {part(k) for k in first if not torch.equal(first[k], second[k])} == {"head"}
    assert {part(k) for k in first if not torch.equal(second[k], third[k])} == {"head", *PARTS}
    assert network.backbone.layer4[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


# ---- words


def test_each_change_is_one_line(data32, caplog):
    caplog.set_level(logging.INFO, logger="isic.training.unfreeze")
    train(data32(), Finetune(head_epochs=2, group_epochs=1, groups=2), epochs=5, batches=1)
    said = [r.getMessage() for r in caplog.records if r.name == "isic.training.unfreeze"]
    assert [line.partition(" on the ")[0] for line in said] == [
        *("finetune: from epoch 1", "finetune: from epoch 3", "finetune: from epoch 4")
    ]
    assert "the head and nothing of the encoder learn, 0.00 of " in said[0]
    assert "the head and the last 1 of 2 groups of the encoder" in said[1]
    assert "the head and all of the encoder" in said[2]


def test_an_encoder_that_never_learns_is_said(caplog):
    made = Stages(build(), Finetune(head_epochs=3))
    made.begin(build(), 0, epochs=3)
    assert "in 3 epochs the encoder never learns" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head_epochs": -1}, "finetune.head_epochs: expected a whole number from 0 on, got -1"),
        ({"group_epochs": 0.5}, "finetune.group_epochs: .* got 0.5"),
        ({"groups": 0}, "finetune.groups: expected a whole number from 1 on, got 0"),
        ({"layer_decay": 0.0}, r"finetune.layer_decay: expected a number in \(0, 1\], got 0"),
        ({"layer_decay": 1.5}, "finetune.layer_decay: .* got 1.5"),
        ({"layer_decay": "slow"}, "finetune.layer_decay: .* got 'slow'"),
    ],
)
def test_values_without_a_meaning_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Finetune(**options)


def test_a_network_without_an_encoder_is_refused():
    with pytest.raises(ConfigError, match="an encoder named backbone, Linear has none"):
        Stages(nn.Linear(2, 1), Finetune())


def test_without_freezing_modes_are_left_alone():
    network = build().eval()
    Stages(network, Finetune(layer_decay=0.5)).begin(network, 0, epochs=2)
    assert not network.backbone.training
