"""Losses against hand computation, and probabilities that stay ordered where float32 ties."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from isic.errors import ConfigError
from isic.training.focal import AsymmetricLoss, FocalLoss
from isic.training.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Objective,
    one_hot,
    probabilities,
)

LOGITS = torch.tensor([[-3.0], [-0.5], [0.25], [2.0], [6.0]])
TARGET = torch.tensor([0, 1, 1, 0, 1])


def test_focal_without_focus_and_weights_is_cross_entropy():
    target = one_hot(TARGET, 1).float()
    expected = functional.binary_cross_entropy_with_logits(LOGITS, target)
    assert torch.allclose(FocalLoss(gamma=0, alpha=None)(LOGITS, target), expected)


def test_focal_by_hand():
    p = 1 / (1 + math.exp(-2.0))
    loss = FocalLoss(gamma=2, alpha=0.25)
    right = loss(torch.tensor([[2.0]]), torch.tensor([[1.0]]))
    wrong = loss(torch.tensor([[2.0]]), torch.tensor([[0.0]]))
    assert right.item() == pytest.approx(-0.25 * (1 - p) ** 2 * math.log(p), rel=1e-5)
    assert wrong.item() == pytest.approx(-0.75 * p**2 * math.log(1 - p), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_the_network_is_sure(gamma):
    logits = torch.tensor([[200.0], [-200.0], [40.0], [0.0]], requires_grad=True)
    FocalLoss(gamma=gamma)(logits, torch.tensor([[1.0], [0.0], [0.0], [1.0]])).backward()
    assert torch.isfinite(logits.grad).all()


def test_balanced_weight_is_negatives_per_positive():
    objective = Objective(BinaryCrossEntropy(pos_weight="balanced"), activation="sigmoid")
    objective.balance([90, 10])
    x = LOGITS.numpy()[:, 0].astype(float)
    entropy = np.where(TARGET.numpy() == 1, 9 * np.log1p(np.exp(-x)), np.log1p(np.exp(x)))
    assert objective(LOGITS, TARGET).item() == pytest.approx(entropy.mean(), rel=1e-6)


def test_balanced_weight_of_several_classes():
    loss = BinaryCrossEntropy(pos_weight="balanced")
    loss.balance([60, 30, 10])
    assert loss.pos_weight == pytest.approx([40 / 60, 70 / 30, 90 / 10])
    assert torch.isfinite(loss(torch.randn(4, 3), torch.eye(4, 3)))


def test_a_given_weight_is_kept():
    loss = BinaryCrossEntropy(pos_weight=5.0)
    loss.balance([90, 10])
    assert loss.pos_weight == [5.0]


@pytest.mark.parametrize(
    "loss", [BinaryCrossEntropy(pos_weight="balanced"), CrossEntropy(balance="inverse")]
)
def test_the_weight_is_no_buffer_that_ema_would_average(loss):
    loss.balance([90, 10])
    loss(torch.zeros(2, 2), torch.eye(2))
    assert not [*loss.buffers(), *loss.parameters()]
    assert not loss.state_dict()


def test_power_and_clip_of_the_balanced_weight():
    loss = BinaryCrossEntropy(pos_weight="balanced", power=0.5, clip=20)
    loss.balance([9000, 990, 10])
    assert loss.pos_weight == pytest.approx([(1 / 9) ** 0.5, (9010 / 990) ** 0.5, 20])


def test_weighted_positives_are_torchs():
    logits, target = torch.randn(8, 3), torch.rand(8, 3)
    loss = BinaryCrossEntropy(pos_weight="balanced")
    loss.balance([60, 30, 10])
    expected = functional.binary_cross_entropy_with_logits(
        logits, target, pos_weight=torch.tensor(loss.pos_weight)
    )
    assert torch.allclose(loss(logits, target), expected)


def test_a_class_without_a_training_row_is_not_learnt_as_frequent():
    """With torch's order, weight after smoothing, the ninth class of ISIC 2019 ends at 0.999."""
    loss = BinaryCrossEntropy(pos_weight="balanced", label_smoothing=0.1)
    loss.balance([20_000, 5_000, 0])
    assert loss.pos_weight == pytest.approx([0.25, 4, 4])
    target = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    logits = torch.zeros(2, 3, requires_grad=True)
    for _ in range(500):
        (grad,) = torch.autograd.grad(loss(logits, target), logits)
        logits = (logits - 20 * grad).detach().requires_grad_()
    assert logits.sigmoid()[:, 2].tolist() == pytest.approx([0.05, 0.05], abs=1e-3)
    naive = functional.binary_cross_entropy_with_logits
    weights = torch.tensor([0.25, 4.0, 25_000.0])
    best = torch.tensor([0.999]).logit()
    assert naive(best, torch.tensor([0.05]), pos_weight=weights[2:]) < naive(
        torch.tensor([0.05]).logit(), torch.tensor([0.05]), pos_weight=weights[2:]
    )


@pytest.mark.parametrize("counts", [[5, 0], [0, 5], [0, 0], [0, 0, 7]])
def test_nothing_to_balance_leaves_every_weight_at_one(counts):
    loss = BinaryCrossEntropy(pos_weight="balanced")
    loss.balance(counts)
    assert set(loss.pos_weight) == {1.0}


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="expected above 0 or balanced, got 0"):
        BinaryCrossEntropy(pos_weight=0)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (FocalLoss, {"gamma": -1}),
        (FocalLoss, {"alpha": 1.5}),
        (AsymmetricLoss, {"gamma_neg": -1}),
        (AsymmetricLoss, {"margin": 1}),
    ],
)
def test_focus_without_a_meaning_is_refused(loss, options):
    with pytest.raises(ConfigError, match=f"expected gamma.*{next(iter(options))}="):
        loss(**options)


def asymmetric_by_hand(p, *, gamma_neg, gamma_pos, margin):
    """Loss of a positive and of a negative of probability p."""
    low = max(p - margin, 0)
    return -((1 - p) ** gamma_pos) * math.log(p), -(low**gamma_neg) * math.log(1 - low)


@pytest.mark.parametrize("p", [0.01, 0.049, 0.3, 0.99])
@pytest.mark.parametrize(
    "options",
    [
        {"gamma_neg": 4, "gamma_pos": 0, "margin": 0.05},
        {"gamma_neg": 2, "gamma_pos": 1, "margin": 0},
    ],
)
def test_asymmetric_by_hand(p, options):
    loss, logit = AsymmetricLoss(**options), torch.tensor([[math.log(p / (1 - p))]])
    values = [loss(logit, torch.tensor([[t]])).item() for t in (1.0, 0.0)]
    assert values == pytest.approx(asymmetric_by_hand(p, **options), rel=1e-4, abs=1e-9)


def test_asymmetric_without_asymmetry_is_focal_and_without_focus_cross_entropy():
    target = one_hot(TARGET, 1).float()
    same = AsymmetricLoss(gamma_neg=2, gamma_pos=2, margin=0)
    assert torch.allclose(same(LOGITS, target), FocalLoss(gamma=2, alpha=None)(LOGITS, target))
    plain = AsymmetricLoss(gamma_neg=0, gamma_pos=0, margin=0)
    expected = functional.binary_cross_entropy_with_logits(LOGITS, target)
    assert torch.allclose(plain(LOGITS, target), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
def test_asymmetric_has_a_gradient_where_the_network_is_sure(gamma):
    logits = torch.tensor([[200.0], [-200.0], [40.0], [-2.9444]], requires_grad=True)
    loss = AsymmetricLoss(gamma_neg=gamma, gamma_pos=gamma)
    loss(logits, torch.tensor([[1.0], [0.0], [0.0], [0.0]])).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_without_balance_is_torchs(smoothing):
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    loss = CrossEntropy(label_smoothing=smoothing)
    loss.balance([1, 2, 3, 4])
    expected = functional.cross_entropy(logits, target, label_smoothing=smoothing)
    assert torch.equal(loss(logits, target), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_balanced_cross_entropy_by_hand(smoothing):
    logits, target = torch.randn(10, 3), torch.tensor([0] * 6 + [1] * 3 + [2])
    loss = CrossEntropy(balance="inverse", label_smoothing=smoothing)
    loss.balance([6, 3, 1])
    each = functional.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
    per_class = torch.stack([each[target == c].mean() for c in range(3)])
    assert torch.allclose(loss(logits, target), per_class.mean())  # every class counts the same
    halves = (loss(logits[:5], target[:5]) + loss(logits[5:], target[5:])) / 2
    assert torch.allclose(halves, loss(logits, target))  # ranks add up, torch's do not


def test_label_smoothing_follows_the_counts_of_an_absent_class():
    loss = CrossEntropy(balance="inverse", label_smoothing=0.1)
    loss.balance([90, 10, 0])
    target = torch.tensor([0, 1])
    expected = torch.tensor(loss.class_weight)[target] * functional.cross_entropy(
        LOGITS.expand(5, 3)[:2], target, label_smoothing=0.1, reduction="none"
    )
    assert torch.allclose(loss(LOGITS.expand(5, 3)[:2], target), expected.mean())


MIXABLE = {
    "bce": BinaryCrossEntropy(pos_weight=3.0, label_smoothing=0.1),
    "focal": FocalLoss(),
    "asymmetric": AsymmetricLoss(gamma_pos=1),
    "ce": CrossEntropy(label_smoothing=0.1),
    "balanced ce": CrossEntropy(balance="inverse"),
}


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", MIXABLE)
def test_the_loss_of_a_mix_of_labels_is_the_mix_of_their_losses(name, n_classes):
    activation = "softmax" if "ce" in name.split() else "sigmoid"
    objective = Objective(MIXABLE[name], activation=activation)
    objective.balance([40, 30, 20, 10][:n_classes])
    logits = torch.randn(8, objective.n_logits(n_classes))
    one, other = torch.randint(n_classes, (2, 8), generator=torch.Generator().manual_seed(1))
    eye = torch.eye(n_classes)
    expected = 0.3 * objective(logits, one) + 0.7 * objective(logits, other)
    mixed = 0.3 * eye[one] + 0.7 * eye[other]
    assert torch.allclose(objective(logits, mixed), expected, rtol=1e-4)
    weighted = objective(logits, mixed, torch.ones(8))
    assert torch.allclose(weighted, expected, rtol=1e-4)


def test_label_smoothing_by_hand():
    smooth = BinaryCrossEntropy(label_smoothing=0.2)(LOGITS, one_hot(TARGET, 1).float())
    soft = torch.where(TARGET == 1, 0.9, 0.1)[:, None]
    assert torch.allclose(smooth, functional.binary_cross_entropy_with_logits(LOGITS, soft))


def test_softmax_objective_takes_any_torch_loss():
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    objective = Objective(nn.CrossEntropyLoss(), activation="softmax")
    assert torch.equal(objective(logits, target), functional.cross_entropy(logits, target))
    objective.balance([1, 2, 3, 4])  # asks for nothing


@pytest.mark.parametrize(
    ("activation", "n_classes", "n_logits"),
    [("sigmoid", 2, 1), ("sigmoid", 8, 8), ("softmax", 2, 2), ("softmax", 11, 11)],
)
def test_outputs_that_the_network_needs(activation, n_classes, n_logits):
    assert Objective(nn.Identity(), activation=activation).n_logits(n_classes) == n_logits


def test_one_hot_of_one_logit_is_the_target():
    assert one_hot(torch.tensor([0, 1]), 1).tolist() == [[0], [1]]
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_large_logits_stay_ordered():
    logits = torch.tensor([[20.0], [30.0], [36.0]])
    assert len(set(logits.sigmoid().flatten().tolist())) == 1  # the naive float32 way ties
    probs = probabilities(logits, "sigmoid")
    assert probs.dtype == torch.float64
    assert (probs[:, 1].diff() > 0).all()
    # beyond 36 the complement still tells them apart
    both = probabilities(torch.tensor([[20.0], [30.0], [40.0]]), "sigmoid")
    assert (both[:, 0].diff() < 0).all()


def test_probabilities_are_those_of_the_activation():
    one = probabilities(torch.tensor([[0.3]]), "sigmoid")[0].tolist()
    assert one == pytest.approx([1 - 1 / (1 + math.exp(-0.3)), 1 / (1 + math.exp(-0.3))], rel=1e-6)
    many = probabilities(torch.tensor([[1.0, 2.0, 3.0]]), "softmax")
    assert many.sum().item() == pytest.approx(1, abs=1e-15)
    assert many[0, 2].item() == pytest.approx(math.exp(3) / sum(map(math.exp, (1, 2, 3))))
    several = probabilities(torch.tensor([[0.0, 1.0, -1.0]]), "sigmoid")  # one sigmoid each
    assert several[0].tolist() == pytest.approx([0.5, 0.7310586, 0.2689414])


WEIGHTED = {
    "bce": Objective(BinaryCrossEntropy(pos_weight=2.0), activation="sigmoid"),
    "focal": Objective(FocalLoss(), activation="sigmoid"),
    "ce": Objective(nn.CrossEntropyLoss(label_smoothing=0.1), activation="softmax"),
    "weighted ce": Objective(
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0, 0.5])), activation="softmax"
    ),
    "asymmetric": Objective(AsymmetricLoss(), activation="sigmoid"),
    "balanced ce": Objective(CrossEntropy(balance="inverse"), activation="softmax"),
}
WEIGHTED["balanced ce"].balance([6, 3, 1])


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_sample_of_weight_two_counts_like_two_samples(name):
    objective = WEIGHTED[name]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    target = torch.tensor([0, 1, 2, 2, 1, 0])
    weight = torch.tensor([2.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    twice = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])
    expected = objective(logits[twice], target[twice])
    assert torch.allclose(objective(logits, target, weight), expected)
    assert torch.allclose(objective(logits, target, torch.ones(6)), objective(logits, target))


def test_a_loss_that_cannot_be_taken_apart_refuses_weights():
    class Closed(nn.Module):
        def forward(self, logits, target):
            return logits.mean()

    with pytest.raises(ConfigError, match="Closed has no `reduction`"):
        Objective(Closed(), activation="softmax")(LOGITS, TARGET, torch.ones(5))
