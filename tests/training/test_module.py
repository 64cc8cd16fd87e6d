"""One classifier for every network: what it logs, predicts and writes into a checkpoint."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional

from isic.data.sampler import NegativeRatioBatches
from isic.metrics.classification import roc_auc
from isic.metrics.partial_auc import partial_auc
from isic.models.network import LesionNetwork
from isic.training import LesionClassifier, SingleImageClassifier
from isic.training.losses import BinaryCrossEntropy, Objective
from isic.training.tta import d4_views
from tests.archives import TINY


def held_out(trained):
    """Logits and targets of the held-out rows, batch by batch, with the final weights."""
    data, network = trained.data, trained.classifier.network.eval()
    loader = data.evaluation_loader(data.train_rows, data.positions["held_out"])
    with torch.no_grad():
        pairs = [(network(batch)[:, 0], batch["target"]) for batch in loader]
    return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])


def test_validation_scores_the_averaged_weights_on_every_held_out_row(trained32):
    logits, target = held_out(trained32)
    assert len(target) == len(trained32.data.positions["held_out"]) > 16
    score = logits.double().sigmoid().numpy()
    logged = trained32.trainer.callback_metrics
    assert logged["val/auc"].item() == roc_auc(target.numpy(), score)
    assert logged["val/pauc"].item() == partial_auc(target.numpy(), score)
    loss = functional.binary_cross_entropy_with_logits(logits, target.float())
    assert logged["val/loss"].item() == pytest.approx(
        loss.item(), rel=1e-5
    )  # batches differ in size


def test_logged_losses_are_means_over_the_epochs_rows(data32, tmp_path):
    from isic.training.loggers import MetricsTable

    seen = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append((outputs["loss"].item(), len(batch["row"])))

    data = data32(batch_size=30)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=MetricsTable(tmp_path / "metrics.csv"),
        log_every_n_steps=2,
        callbacks=[Look()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(SingleImageClassifier(TINY, pretrained=False, image_size=32), data)
    table = pd.read_csv(tmp_path / "metrics.csv")
    losses = table[table["name"] == "train/loss"]
    steps = len(seen) // 2
    assert losses["step"].tolist() == [steps - 1, 2 * steps - 1]
    for value, part in zip(losses["value"], (seen[:steps], seen[steps:]), strict=True):
        assert value == pytest.approx(sum(x * n for x, n in part) / sum(n for _, n in part))
    rates = table[table["name"] == "train/lr"]
    assert rates["step"].tolist() == list(range(1, 2 * steps, 2))
    assert (rates["value"] > 0).all()


def test_prediction_keeps_every_row_once_in_order(trained32):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    data, classifier = trained32.data, trained32.classifier
    loader = data.evaluation_loader(data.test_rows, np.arange(8))
    trainer.predict(classifier, dataloaders=loader, return_predictions=False)
    plain = classifier.last_epoch
    assert plain.row.tolist() == list(range(8))
    assert plain.target.tolist() == [-1] * 8
    assert plain.probs.sum(axis=1) == pytest.approx(np.ones(8))
    classifier.tta = d4_views
    try:
        trainer.predict(classifier, dataloaders=loader, return_predictions=False)
    finally:
        classifier.tta = None
    assert np.abs(classifier.last_epoch.probs - plain.probs).max() > 1e-6


def test_forward_gives_probabilities(trained32):
    batch = {"image": torch.zeros(3, 3, 32, 32, dtype=torch.uint8)}
    probs = trained32.classifier.eval()(batch)
    assert probs.shape == (3, 2)
    assert probs.dtype == torch.float64


def test_a_balanced_loss_learns_the_class_counts(data32, tmp_path):
    data = data32()
    objective = Objective(BinaryCrossEntropy(pos_weight="balanced"), activation="sigmoid")
    classifier = SingleImageClassifier(
        TINY, pretrained=False, image_size=32, objective=objective, metrics={"auc": roc_auc}
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        fast_dev_run=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier, data)
    negatives, positives = data.epoch_class_counts
    assert objective.loss.pos_weight == [negatives / positives]


def test_a_balanced_loss_does_not_correct_what_the_sampler_has_corrected(data32):
    data = data32(sampler=partial(NegativeRatioBatches, ratio=2))
    negatives, positives = data.epoch_class_counts
    assert 1.5 <= negatives / positives <= 2.5
    assert data.class_counts[0] > 3 * data.class_counts[1]


def test_any_network_that_gives_logits_will_do(data32):
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, batch):
            return self.linear(batch["image"].float().mean((2, 3)))

    objective = Objective(nn.CrossEntropyLoss(), activation="softmax")
    classifier = LesionClassifier(Means(), classes=("a", "b", "c"), objective=objective)
    batch = {"image": torch.ones(4, 3, 8, 8), "target": torch.tensor([0, 1, 2, 0])}
    assert classifier(batch).shape == (4, 3)
    saved = {}
    classifier.on_save_checkpoint(saved)
    assert saved["isic"]["network"] == {}
    assert saved["isic"]["classes"] == ["a", "b", "c"]


def test_checkpoint_says_what_it_is(trained32):
    saved = {}
    trained32.classifier.on_save_checkpoint(saved)
    record = saved["isic"]
    assert record["network_class"] == "isic.models.network.LesionNetwork"
    assert record["network"]["backbone"] == TINY
    assert record["activation"] == "sigmoid"
    LesionNetwork(**record["network"], pretrained=False)
