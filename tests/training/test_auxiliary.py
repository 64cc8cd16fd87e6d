"""The loss of extra heads: by hand, mixed, and with gradients for heads and encoder alike."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional

from isic.data.auxiliary import Head
from isic.models.network import LesionNetwork
from isic.training import LesionClassifier
from isic.training.auxiliary import AuxiliaryLoss
from isic.training.checkpoint import load
from isic.training.mixing import Mixing
from tests.archives import TINY

HEADS = (Head("kind", ("a", "b", "c")), Head("size", mean=3.0, std=2.0))
LOSS = AuxiliaryLoss(HEADS, weight=0.3)


def batch(n=8):
    torch.manual_seed(0)
    kind, size = torch.arange(n) % 4 - 1, torch.randn(n)
    size[::3] = torch.nan
    image = torch.randint(0, 255, (n, 3, 32, 32), dtype=torch.uint8)
    return {"image": image, "target": torch.arange(n) % 2, "aux_kind": kind, "aux_size": size}


def by_hand(outputs, given, weight=None):
    """Mean over rows and heads; what is missing counts 0."""
    weight = torch.ones(len(outputs)) if weight is None else weight
    total = 0.0
    for i, (kind, size) in enumerate(zip(given["aux_kind"], given["aux_size"], strict=True)):
        if kind >= 0:
            total += weight[i] * functional.cross_entropy(outputs[i, :3], kind) / 2
        if size.isfinite():
            total += weight[i] * (outputs[i, 3] - size) ** 2 / 2
    return total / weight.sum()


def test_the_loss_by_hand():
    given, outputs = batch(), torch.randn(8, 4)
    assert LOSS.n_outputs == 4
    assert torch.allclose(LOSS(outputs, LOSS.spread(given)), by_hand(outputs, given))
    weight = torch.rand(8)
    weighted = LOSS(outputs, {**LOSS.spread(given), "weight": weight})
    assert torch.allclose(weighted, by_hand(outputs, given, weight))


def test_nothing_known_costs_nothing():
    given = {"aux_kind": torch.full((4,), -1), "aux_size": torch.full((4,), torch.nan)}
    outputs = torch.randn(4, 4, requires_grad=True)
    loss = LOSS(outputs, LOSS.spread(given))
    loss.backward()
    assert loss == 0
    assert (outputs.grad == 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_a_mix_is_the_mix_of_the_losses(weighted):
    mixing, given = Mixing(mixup=1.0), batch()
    weight = {"weight": torch.rand(8)} if weighted else {}
    mixed = mixing({**LOSS.spread(given), **weight}, n_classes=2, epoch=0, index=0)
    draw, outputs = mixing.draw(8, size=32, key=(0, 0, 0)), torch.randn(8, 4)
    total = 0.0
    for i, (j, share) in enumerate(zip(draw.partner, draw.share, strict=True)):
        for k, part in ((i, share), (int(j), 1 - share)):
            one = {name: given[name][k : k + 1] for name in ("aux_kind", "aux_size")}
            w = weight["weight"][k] if weighted else 1.0
            total += part * w * by_hand(outputs[i : i + 1], one)
    norm = mixed["weight"].sum() if weighted else 8
    assert torch.allclose(LOSS(outputs, mixed), total / norm, rtol=1e-4)


def build(heads=True, **options):
    torch.manual_seed(0)
    n = LOSS.n_outputs if heads else 0
    return LesionNetwork(
        TINY, n_logits=1, pretrained=False, image_size=32, n_auxiliary=n, **options
    )


def test_heads_and_encoder_get_gradients_and_the_main_head_none_of_theirs():
    network = build()
    given = LOSS.spread(batch())
    LOSS(network(given, auxiliary=True)[:, 1:], given).backward()
    assert (network.auxiliary.weight.grad.abs().sum(dim=1) > 0).all()  # of every output
    first = next(network.backbone.parameters())
    assert first.grad.abs().sum() > 0
    assert network.head.weight.grad is None or not network.head.weight.grad.any()


def test_the_same_seed_makes_the_same_network_without_them():
    with_heads, plain = build().eval(), build(heads=False).eval()
    assert torch.equal(with_heads(batch()), plain(batch()))
    both = with_heads(batch(), auxiliary=True)
    assert both.shape == (8, 5)
    assert torch.equal(both[:, :1], plain(batch()))


@pytest.mark.parametrize("options", [{}, {"views": ["image", "clinical"], "fusion": "gated"}])
def test_they_are_no_inputs(options):
    network, given = build(**options).eval(), batch()
    given["image_clinical"] = given["image"].flip(0)
    outputs = network(given, auxiliary=True)
    other = {**given, "aux_kind": given["aux_kind"].flip(0), "aux_size": torch.zeros(8)}
    assert torch.equal(network(other, auxiliary=True), outputs)


def test_the_main_loss_and_theirs_are_logged_apart(data32, tmp_path):
    data = data32(auxiliary=["iddx_1", "clin_size_long_diam_mm"])
    loss = AuxiliaryLoss(data.heads, weight=0.3)
    torch.manual_seed(0)
    network = LesionNetwork(
        TINY, n_logits=1, pretrained=False, image_size=32, n_auxiliary=loss.n_outputs
    )
    classifier = LesionClassifier(network, classes=("benign", "malignant"), auxiliary=loss)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier, data)
    logged = trainer.callback_metrics
    held_out = [(classifier.network.eval()(b), b) for b in data.val_dataloader()]
    logits = torch.cat([x for x, _ in held_out])[:, 0]
    target = torch.cat([b["target"] for _, b in held_out]).float()
    main = functional.binary_cross_entropy_with_logits(logits, target)
    assert logged["val/loss"].item() == pytest.approx(main.item(), rel=1e-5)
    assert {"train/auxiliary", "val/auxiliary"} <= set(logged)
    assert logged["train/loss"] > 0.3 * logged["train/auxiliary"] > 0
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = load(tmp_path / "last.ckpt").eval()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["isic"]["auxiliary"]
    assert saved == [head.to_dict() for head in data.heads]
    assert torch.equal(again.network(held_out[0][1]), held_out[0][0])
    assert np.isfinite(logged["val/auxiliary"].item())
