"""From an archive to batches: folds, parts, bad images, workers, a notebook's five lines."""

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from isic.data import ISIC2024DataModule, LesionDataModule, loader
from isic.data.sampler import NegativeRatioBatches
from isic.errors import ConfigError, DataError
from isic.index import isic2024
from isic.split import SplitOptions
from isic.training import SingleImageClassifier
from tests.archives import TINY
from tests.test_prepare import rewrite_images

CUDA = torch.device("cuda")


def batches(made):
    """A loader's batches, copied out of the buffers that they lie in."""
    return [{k: v.clone() for k, v in batch.items()} for batch in made]


def equal(one, two):
    return len(one) == len(two) and all(
        torch.equal(a[k], b[k]) for a, b in zip(one, two, strict=True) for k in a
    )


def test_five_lines_of_a_notebook(archive32, tmp_path):
    data = ISIC2024DataModule(
        archive32, image_size=32, runs_root=tmp_path, cache_root=tmp_path / "cache"
    )
    model = SingleImageClassifier(TINY, pretrained=False, image_size=32)
    trainer = pl.Trainer(
        fast_dev_run=True, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(model, data)
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.callback_metrics["val/loss"].isfinite()


def test_a_batch(data32):
    data = data32()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (16, 3, 32, 32)
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    rows = data.positions["train"][batch["row"]]
    assert torch.equal(batch["target"], torch.from_numpy(data.targets(rows)))


def test_folds_part_the_rows(data32):
    seen = []
    for fold in range(5):
        use = data32(fold=fold).positions
        assert not set(use["train"]) & set(use["held_out"])
        assert len(use["train"]) + len(use["held_out"]) == 120
        assert np.array_equal(use["val"], use["held_out"])
        seen += use["held_out"].tolist()
    assert sorted(seen) == list(range(120))


def test_fold_all_trains_on_every_row_and_validates_nothing(data32):
    data = data32(fold="all")
    assert len(data.positions["train"]) == 120
    assert data.val_dataloader() == []
    assert sum(data.class_counts) == 120


@pytest.mark.parametrize("fold", [5, -1, "one", 2.5])
def test_a_fold_out_of_range_says_where_folds_come_from(data32, fold):
    with pytest.raises(ConfigError) as caught:
        _ = data32(fold=fold).split
    text = str(caught.value)
    assert f"expected 0..4 or all, got {fold}" in text
    assert "splits" in text
    assert "isic2024-grouped-k5-seed0-" in text
    assert "(split.n_folds=5)" in text


def test_a_given_split_file(data32, tmp_path):
    folds = data32(split=SplitOptions(n_folds=3)).split.path
    data = data32(split=SplitOptions(file=str(folds)), fold=2)
    assert len(data.positions["held_out"]) > 20
    with pytest.raises(ConfigError, match=r"expected 0\.\.2 or all, got 3"):
        _ = data32(split=SplitOptions(file=str(folds)), fold=3).positions


def test_training_rows_follow_from_the_rows_alone(data32, archive32, tmp_path):
    """The folds do not depend on where the archive lies or who makes them."""
    other = data32(runs_root=tmp_path)
    assert other.split.hash == data32().split.hash


def test_partial_validation_keeps_all_positives(data32):
    data = data32(val_negatives=4)
    assert data.partial_validation
    target = data.targets(data.positions["val"])
    everything = data.targets(data.positions["held_out"])
    assert target.sum() == everything.sum() > 0
    assert (target == 0).sum() == 4
    assert np.isin(data.positions["val"], data.positions["held_out"]).all()
    assert np.array_equal(data.positions["val"], data32(val_negatives=4).positions["val"])
    assert not np.array_equal(
        data.positions["val"], data32(val_negatives=4, seed=1).positions["val"]
    )
    assert not data32(val_negatives=10_000).partial_validation
    assert len(batches(data.val_dataloader())[0]["row"]) == min(16, len(target))


def test_samples_per_epoch_cuts_epochs_and_walks_on(data32):
    data = data32(samples_per_epoch=32)
    loader = data.train_dataloader()
    seen = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        rows = torch.cat([batch["row"] for batch in batches(loader)])
        assert len(rows) == 32
        seen += rows.tolist()
    n = len(data.positions["train"])
    assert len(set(seen)) == min(96, n)


def test_negatives_are_redrawn(data32):
    def sampler(target, **options):
        return NegativeRatioBatches(target, ratio=1, **options)

    data = data32(sampler=sampler)
    loader = data.train_dataloader()
    drawn = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        drawn.append({r for batch in batches(loader) for r in batch["row"].tolist()})
    positive = set(np.flatnonzero(data.targets(data.positions["train"]) == 1).tolist())
    assert len(drawn[0] & drawn[1] - positive) < len(drawn[0] - positive)


def test_workers_change_no_bit(data32):
    def epoch(workers, split):
        data = data32(num_workers=workers)
        loader = data.train_dataloader() if split == "train" else data.val_dataloader()
        return batches(loader)

    for split in ("train", "val"):
        assert equal(epoch(0, split), epoch(2, split))


def test_epochs_and_seeds_differ(data32):
    loader = data32().train_dataloader()
    first = batches(loader)
    assert equal(first, batches(loader))
    loader.sampler.set_epoch(1)
    assert not equal(first, batches(loader))
    assert not equal(first, batches(data32(seed=1).train_dataloader()))


def test_a_new_iterator_draws_nothing_from_torchs_own_stream(data32):
    loader = data32().train_dataloader()
    before = torch.get_rng_state()
    batches(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_decoded_pixels_give_the_batches_of_decoded_bytes(data32):
    """At the tiles' own size nothing is resized, so that both are the same to the bit."""
    one, two = (batches(data32(cache=cache).val_dataloader()) for cache in ("bytes", "pixels"))
    assert equal(one, two)


def test_a_part_of_the_archive(data32):
    whole, part = data32(), data32(fraction=0.5)
    names = [set(d.train_rows.table["image_id"]) for d in (whole, part)]
    assert names[1] < names[0]
    joined = part.train_rows.table.merge(whole.train_rows.table, on="image_id")
    assert (joined["fold_x"] == joined["fold_y"]).all()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_a_part_that_is_none(data32, fraction):
    with pytest.raises(ConfigError, match=r"data\.fraction"):
        _ = data32(fraction=fraction).positions


def test_broken_images_train_nothing_and_stay_in_the_table(data32, archive_copy, tmp_path):
    victims = set(isic2024.build_index(archive_copy).table["image_id"][2:6])
    rewrite_images(archive_copy, lambda i, data: data[:99] if i in victims else data)
    places = {"runs_root": tmp_path / "runs", "cache_root": tmp_path / "cache"}
    with pytest.raises(DataError, match="4 of 120 images cannot be read"):
        _ = data32(archive_copy, **places).positions
    data = data32(archive_copy, on_bad_image="skip", **places)
    use = data.positions
    used = data.train_rows.table["image_id"].iloc[np.concatenate([use["train"], use["held_out"]])]
    assert len(data.train_rows.table) == 120
    assert len(used) == 116
    assert not victims & set(used)
    assert sum(data.class_counts) == len(use["train"])
    batches(data.train_dataloader())


def test_a_fold_without_a_readable_image(data32, archive_copy, tmp_path):
    folds = data32(archive_copy, runs_root=tmp_path).split.table
    victims = set(folds.loc[folds["fold"] == 0, "image_id"])
    rewrite_images(archive_copy, lambda i, data: b"x" if i in victims else data)
    options = {"runs_root": tmp_path, "cache_root": tmp_path, "on_bad_image": "skip"}
    assert len(data32(archive_copy, fold=1, **options).positions["held_out"])
    with pytest.raises(DataError, match="fold 0: expected rows with a readable image.* and 0 of"):
        _ = data32(archive_copy, fold=0, **options).positions


def test_test_rows(data32):
    rows = data32().test_rows
    assert len(rows.table) == 8
    assert rows.readable.all()
    assert rows.table["target"].isna().all()


def test_an_archive_without_test_images(data32, archive_copy, tmp_path):
    (archive_copy / "test-image.hdf5").unlink()
    data = data32(archive_copy, runs_root=tmp_path / "runs", cache_root=tmp_path / "cache")
    assert data.test_rows is None


def test_the_plain_class_needs_an_index(archive32, data32):
    with pytest.raises(ConfigError, match=r"data\.index"):
        LesionDataModule(archive32)
    data = LesionDataModule(archive32, index=isic2024.build_index)
    assert len(data.index.table) == len(data32().index.table)


@pytest.fixture
def cores(monkeypatch):
    """Pretend that this process may use so many cores."""

    def pretend(n):
        monkeypatch.setattr(loader.os, "sched_getaffinity", lambda _: set(range(n)))

    return pretend


def test_the_number_of_workers_follows_the_machine(data32, cores):
    for n, expected in ((2, 0), (4, 0), (6, 5), (64, 8)):
        cores(n)
        assert data32(num_workers="auto").train_dataloader().num_workers == expected
    assert data32(num_workers=1).train_dataloader().num_workers == 1


def on_gpus(data, n, environment):
    """The data module as one of `n` ranks with a GPU each."""
    strategy = SimpleNamespace(root_device=CUDA, cluster_environment=environment)
    ranks = {"global_rank": 0, "world_size": n, "num_devices": n}
    data.trainer = SimpleNamespace(strategy=strategy, **ranks)
    return data


def test_a_gpu_never_waits_for_batches_made_by_its_own_process(data32, cores):
    """Under torchrun all ranks share one affinity mask; srun gives each a mask of its own."""
    data = data32(num_workers="auto")
    for environment, by_cores in (
        (TorchElasticEnvironment(), {4: 1, 8: 1, 16: 3, 128: 8}),
        (SLURMEnvironment(auto_requeue=False), {1: 1, 4: 3, 8: 7, 16: 8}),
    ):
        for n, expected in by_cores.items():
            cores(n)
            made = on_gpus(data, 4, environment).train_dataloader()
            assert (made.num_workers, made.pin_memory) == (expected, True), (environment, n)


def test_rows_that_are_predicted_for_a_gpu_are_pinned_without_a_trainer(data32, cores):
    data, rows = data32(num_workers="auto"), np.arange(4)
    cores(4)
    made = data.evaluation_loader(data.train_rows, rows, device=CUDA)
    assert (made.num_workers, made.pin_memory) == (3, True)
    made = data.evaluation_loader(data.train_rows, rows)
    assert (made.num_workers, made.pin_memory) == (0, False)
