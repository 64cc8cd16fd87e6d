"""Losses against hand computation, and probabilities that stay ordered where float32 ties."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from isic.errors import ConfigError
from isic.training.losses import BinaryCrossEntropy, FocalLoss, Objective, one_hot, probabilities

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


def test_the_weight_is_no_buffer_that_ema_would_average():
    assert not list(BinaryCrossEntropy(pos_weight="balanced").buffers())


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
}


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
