"""The real ISIC 2024 samples through the chain; skipped where `ISIC_REAL` is not set."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl

from isic.data import ISIC2024DataModule
from isic.engine.inference import predict_rows
from isic.predictions import validate_submission, write_submission
from isic.training import SingleImageClassifier


def test_official_test_images_give_a_submission_like_the_sample(
    real_root: Path, tmp_path: Path
) -> None:
    root = real_root / "isic2024"
    data = ISIC2024DataModule(
        root, image_size=32, runs_root=tmp_path / "runs", cache_root=tmp_path / "cache"
    )
    rows = data.test_rows
    assert rows is not None
    assert rows.readable.all()
    classifier = SingleImageClassifier(
        "test_resnet.r160_in1k", classes=data.index.info.classes, pretrained=False, image_size=32
    )
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    frame = predict_rows(trainer, classifier, data, rows, np.arange(3), fold=-2)
    sample = root / "sample_submission.csv"
    path = write_submission(tmp_path / "submission.csv", frame, data.index.info, sample=sample)
    validate_submission(path, data.index.info, sample=sample)
    written, expected = pd.read_csv(path), pd.read_csv(sample)
    assert list(written.columns) == list(expected.columns)
    assert written["isic_id"].tolist() == expected["isic_id"].tolist()


def test_every_real_crop_is_indexed_split_and_packed(real_root: Path, tmp_path: Path) -> None:
    data = ISIC2024DataModule(
        real_root / "isic2024", runs_root=tmp_path / "runs", cache_root=tmp_path / "cache"
    )
    rows = data.train_rows
    assert len(rows.table) == 8281
    assert rows.table["target"].sum() == 230
    assert rows.readable.all()
    positives = rows.table.groupby("fold")["target"].sum()
    assert positives.tolist() == [46] * 5
    assert rows.table["fold"].value_counts().between(1656, 1657).all()
