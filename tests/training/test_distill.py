"""The loss of a teacher's soft labels: Hinton's formula by hand, its limits, missing labels."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from isic.errors import ConfigError
from isic.training.distill import Distillation, teacher_logits
from isic.training.losses import BinaryCrossEntropy, CrossEntropy, Objective
from isic.training.mixing import Mixing

ACTIVATIONS = ("softmax", "sigmoid")


def objective(activation):
    return Objective(
        CrossEntropy() if activation == "softmax" else BinaryCrossEntropy(), activation=activation
    )


def probs(n=6, classes=3, seed=0):
    raw = np.random.default_rng(seed).random((n, classes)) + 0.05
    return raw / raw.sum(axis=1, keepdims=True)


def total(distill, logits, batch, activation):
    """The whole loss of a batch of hard labels and a teacher's logits."""
    ours, spread = objective(activation), distill.spread(batch, activation)
    hard = ours(logits, spread["target"], spread.get("weight"))
    return hard + distill(logits, spread, ours)[0]


def given(activation, classes=3, n=6):
    torch.manual_seed(1)
    ours = objective(activation)
    teacher = torch.from_numpy(teacher_logits(probs(n, classes), activation))
    batch = {"target": torch.arange(n) % classes, "teacher": teacher}
    return torch.randn(n, ours.n_logits(classes)), batch


def by_hand(logits, target, teacher_probs, activation, *, temperature, weight):
    """Row by row in float64 numpy."""
    z, t = logits.double().numpy(), temperature
    rows = []
    for i, p in enumerate(teacher_probs):
        if activation == "softmax":
            soft = p ** (1 / t) / (p ** (1 / t)).sum()
            q = np.exp(z[i] / t) / np.exp(z[i] / t).sum()
            kl = (soft * np.log(soft / q)).sum()
            hard = -np.log(np.exp(z[i]) / np.exp(z[i]).sum())[target[i]]
        else:
            p = p[1:] if len(p) == 2 else p
            odds = (p / (1 - p)) ** (1 / t)
            soft, q = odds / (1 + odds), 1 / (1 + np.exp(-z[i] / t))
            kl = (soft * np.log(soft / q) + (1 - soft) * np.log((1 - soft) / (1 - q))).mean()
            one = 1 / (1 + np.exp(-z[i]))
            hot = np.array([target[i]]) if len(p) == 1 else np.eye(len(p))[target[i]]
            hard = -(hot * np.log(one) + (1 - hot) * np.log(1 - one)).mean()
        rows.append((1 - weight) * hard + weight * t**2 * kl)
    return np.mean(rows)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (2.0, 1.0)])
def test_hintons_loss_by_hand(activation, classes, temperature, weight):
    logits, batch = given(activation, classes)
    distill = Distillation("run", temperature=temperature, weight=weight)
    expected = by_hand(
        *(logits, batch["target"].numpy(), probs(6, classes), activation),
        temperature=temperature,
        weight=weight,
    )
    assert total(distill, logits, batch, activation).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_weight_of_0_is_the_plain_loss_to_the_bit(activation):
    logits, batch = given(activation)
    plain = objective(activation)(logits, batch["target"])
    assert torch.equal(total(Distillation("run", weight=0.0), logits, batch, activation), plain)


def test_a_teacher_that_is_sure_at_t_1_is_cross_entropy():
    logits, batch = given("softmax")
    batch["teacher"] = torch.from_numpy(teacher_logits(np.eye(3)[[2, 0, 1, 1, 2, 0]], "softmax"))
    sure = Distillation("run", temperature=1.0, weight=1.0)
    hard = functional.cross_entropy(logits, torch.tensor([2, 0, 1, 1, 2, 0]))
    assert total(sure, logits, batch, "softmax").item() == pytest.approx(hard.item(), abs=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_student_that_says_the_same_has_no_divergence(activation):
    _, batch = given(activation)
    distill = Distillation("run", temperature=3.0)
    label = distill.spread(batch, activation)["teacher"]
    assert distill.divergence(batch["teacher"], label, activation).abs().max() < 1e-5


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_row_without_a_soft_label_learns_its_hard_one(activation, weighted):
    logits, batch = given(activation)
    logits.requires_grad_()
    weight = torch.rand(6) if weighted else torch.ones(6)
    batch["teacher"][[1, 4]] = torch.nan
    distill = Distillation("run", weight=0.7)
    loss = total(distill, logits, {**batch, "weight": weight} if weighted else batch, activation)
    each = []
    for i in range(6):
        one = {k: v[i : i + 1] for k, v in batch.items()}
        row = logits[i : i + 1].detach()
        ours = objective(activation)(row, one["target"])
        each.append(ours if i in (1, 4) else total(distill, row, one, activation))
    expected = (weight * torch.stack(each)).sum() / weight.sum()
    assert torch.allclose(loss, expected)
    loss.backward()
    assert logits.grad.isfinite().all()


def test_the_divergence_of_a_mix_is_the_mix_of_the_divergences():
    for activation in ACTIVATIONS:
        logits, batch = given(activation)
        batch["teacher"][2] = torch.nan
        distill, mixing = Distillation("run"), Mixing(mixup=1.0)
        spread = distill.spread(batch, activation)
        image = torch.zeros(6, 3, 8, 8)
        mixed = mixing({**spread, "image": image}, n_classes=3, epoch=0, index=0)
        draw = mixing.draw(6, size=8, key=(0, 0, 0))
        own = distill.divergence(logits, spread["teacher"], activation)
        other = distill.divergence(logits, spread["teacher"][draw.partner], activation)
        expected = draw.share * own + (1 - draw.share) * other
        found = distill.divergence(logits, mixed["teacher"], activation)
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_probabilities_survive_as_logits(activation):
    for classes in (2, 4):
        p = probs(20, classes)
        p[3] = np.nan
        logits = torch.from_numpy(teacher_logits(p, activation)).double()
        back = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
        wanted = p[:, 1:] if back.shape[1] == 1 else p
        assert back.numpy() == pytest.approx(wanted, abs=1e-6, nan_ok=True)
    assert np.isfinite(teacher_logits(np.eye(3), activation)).all()


@pytest.mark.parametrize("options", [{"temperature": 0}, {"weight": 1.5}, {"weight": "half"}])
def test_values_without_a_meaning_are_refused(options):
    with pytest.raises(ConfigError, match=rf"distill\.{next(iter(options))}: expected"):
        Distillation("run", **options)


def test_a_batch_without_a_teacher_and_a_loss_without_rows():
    logits, batch = given("softmax")
    with pytest.raises(ConfigError, match="expected `teacher` in training batches, got target"):
        Distillation("run").spread({"target": batch["target"]}, "softmax")

    class Plain(torch.nn.Module):
        def forward(self, logits, target):
            return functional.cross_entropy(logits, target)

    distill = Distillation("run")
    spread = distill.spread(batch, "softmax")
    with pytest.raises(ConfigError, match="Plain has no `reduction`"):
        distill(logits, spread, Objective(Plain(), activation="softmax"))
