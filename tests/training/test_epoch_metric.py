"""An epoch's outputs: each row once, in order, scored in float64."""

import logging

import numpy as np
import pytest
import torch

from isic.metrics.classification import roc_auc
from isic.metrics.partial_auc import partial_auc
from isic.training.epoch_metric import Epoch, EpochLoss, EpochOutputs


def collected(batches, activation="sigmoid"):
    outputs = EpochOutputs()
    for row, target, logits in batches:
        batch = {"row": torch.tensor(row), "target": torch.tensor(target)}
        outputs.add(batch, torch.tensor(logits)[:, None])
    return outputs, outputs.gather(activation)


def test_rows_are_sorted_and_duplicates_dropped():
    batches = [([4, 1], [1, 0], [0.4, 0.1]), ([3, 1], [1, 0], [0.3, 0.1]), ([0], [0], [0.0])]
    outputs, epoch = collected(batches)
    assert epoch.row.tolist() == [0, 1, 3, 4]
    assert epoch.target.tolist() == [0, 0, 1, 1]
    expected = torch.tensor([0.0, 0.1, 0.3, 0.4]).double().sigmoid()
    assert epoch.probs[:, 1] == pytest.approx(expected.numpy())
    assert outputs.row == outputs.target == outputs.logits == []


def test_a_second_epoch_starts_empty():
    outputs, _ = collected([([0], [0], [1.0])])
    outputs.add({"row": torch.tensor([7]), "target": torch.tensor([1])}, torch.tensor([[2.0]]))
    assert outputs.gather("sigmoid").row.tolist() == [7]


def test_saturated_logits_rank_as_in_float64():
    logits = [20.0, 30.0, 36.0, -5.0]
    _, epoch = collected([([0, 1, 2, 3], [0, 1, 1, 0], logits)])
    assert roc_auc(epoch.target, epoch.probs) == 1
    naive = torch.tensor(logits).sigmoid().numpy()
    assert roc_auc(epoch.target, naive) == 0.75  # what a float32 sigmoid makes of it


def test_scores_are_over_labelled_rows():
    target = np.array([0, -1, 1, 0, 1])
    probs = np.array([0.2, 0.9, 0.8, 0.9, 0.7])
    epoch = Epoch(np.arange(5), target, np.stack([1 - probs, probs], axis=1))
    labelled = target >= 0
    assert epoch.score({"auc": roc_auc})["auc"] == roc_auc(target[labelled], probs[labelled])


def test_one_class_gives_nan_and_its_reason(caplog):
    epoch = Epoch(np.arange(3), np.zeros(3, np.int64), np.full((3, 2), 0.5))
    with caplog.at_level(logging.WARNING):
        scores = epoch.score({"pauc": partial_auc, "auc": roc_auc})
    assert np.isnan(scores["pauc"])
    assert np.isnan(scores["auc"])
    assert "pauc is undefined" in caplog.text


def test_a_diverged_network_gives_nan_and_its_reason(caplog):
    epoch = Epoch(np.arange(2), np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, np.nan]]))
    assert np.isnan(epoch.score({"auc": roc_auc})["auc"])
    assert "not finite" in caplog.text


def test_loss_is_the_mean_over_rows_not_batches():
    loss = EpochLoss()
    for _ in range(2):  # it begins anew
        loss.add(torch.tensor(1.0, requires_grad=True), 30)
        loss.add(torch.tensor(4.0), 10)
        assert loss.mean().item() == 1.75


def test_the_energy_is_of_the_logits_themselves():
    logits = torch.tensor([[2.0, 1.0, 0.0], [12.0, 11.0, 10.0]])
    found = {}
    for activation in ("softmax", "sigmoid"):
        outputs = EpochOutputs()
        outputs.add({"row": torch.tensor([1, 0]), "target": torch.tensor([0, 0])}, logits)
        found[activation] = outputs.gather(activation)
    plain = logits.double().numpy()[::-1]
    softmax = found["softmax"]
    assert softmax.energy == pytest.approx(-np.log(np.exp(plain).sum(axis=1)))
    assert softmax.probs[0] == pytest.approx(softmax.probs[1])  # which probabilities do not show
    assert found["sigmoid"].energy == pytest.approx(-np.log1p(np.exp(plain)).sum(axis=1))
