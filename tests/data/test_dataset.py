"""Batches are what decode and transform give, whatever the workers, batches, threads or buffers."""

import pickle
import sys
import threading

import albumentations
import numpy as np
import pytest
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

from isic.data.dataset import BufferRing, LesionDataset
from isic.data.sampler import SequentialBatches, ShuffledBatches
from isic.data.seeds import sample_seeds
from isic.data.transforms import AlbumentationsPipeline, FastAugment, Resize
from isic.errors import DataError
from isic.images.decode import decode, fit
from isic.images.pack import build_pack

N = 40


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    root = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(N)]
    for name in names:
        coarse = rng.integers(60, 200, (4, 4, 3))
        image = np.kron(coarse, np.ones((9, 9, 1))).astype(np.uint8)
        (root / name).write_bytes(simplejpeg.encode_jpeg(image))
    return build_pack(root, names, cache_root=root / "cache")


def dataset(pack, transform=None, rows=None, seed=0):
    rows = np.arange(N) if rows is None else np.asarray(rows)
    target = rows % 2
    return LesionDataset(pack, rows, target, transform=transform or FastAugment(32), seed=seed)


def epoch_pixels(data, epoch, *, batch_size=8, workers=0):
    """Images of one shuffled epoch by row, whatever came in which batch."""
    sampler = ShuffledBatches(data.target, batch_size=batch_size, seed=3, drop_last=False)
    sampler.set_epoch(epoch)
    loader = DataLoader(data, sampler=sampler, batch_size=None, num_workers=workers)
    return {
        int(row): image.numpy().copy()
        for batch in loader
        for row, image in zip(batch["row"], batch["image"], strict=True)
    }


def same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def test_a_batch_is_what_decode_and_resize_give(pack):
    data = dataset(pack, Resize(24), rows=[5, 9, 2])
    batch = data[0, [2, 0]]
    slow = np.stack([fit(decode(pack.encoded(row)), 24) for row in (2, 5)])
    assert np.array_equal(batch["image"].permute(0, 2, 3, 1).numpy(), slow)
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["target"].tolist() == [0, 1]
    assert batch["row"].tolist() == [2, 0]
    assert all(v.dtype == torch.int64 for k, v in batch.items() if k != "image")


def test_pixels_do_not_depend_on_workers_or_batches(pack):
    data = dataset(pack)
    first = epoch_pixels(data, 1)
    assert len(first) == N
    for options in ({"batch_size": 3}, {"batch_size": N}, {"workers": 1}, {"workers": 2}):
        assert same(first, epoch_pixels(data, 1, **options))


def test_every_epoch_seed_and_image_draws_anew(pack):
    data = dataset(pack)
    first = epoch_pixels(data, 0)
    for other in (epoch_pixels(data, 1), epoch_pixels(dataset(pack, seed=1), 0)):
        assert not any(np.array_equal(first[row], other[row]) for row in first)
    seeds = [sample_seeds(s, epoch=e, rows=np.arange(500)) for s in range(4) for e in range(4)]
    assert len(np.unique(seeds)) == 16 * 500


def test_both_ways_into_a_dataloader_agree(pack):
    data = dataset(pack)
    sampler = SequentialBatches(data.target, batch_size=7)
    plain = DataLoader(data, sampler=sampler, batch_size=None)
    batched = DataLoader(data, batch_sampler=sampler, collate_fn=lambda batch: batch)
    for one, two in zip(plain, batched, strict=True):
        assert all(torch.equal(one[k], two[k]) for k in ("image", "target", "row"))


class PlainAlbumentations(Dataset):
    """The way everybody writes it: a seeded Compose in the dataset."""

    def __init__(self, seed=None):
        jitter = albumentations.RandomBrightnessContrast(p=1)
        self.transform = albumentations.Compose([jitter], seed=seed)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.transform(image=np.full((8, 8, 3), 128, np.uint8))["image"]


def first_pixels(loader):
    return [[int(x[0, 0, 0]) for x in batch] for batch in loader]


def test_plain_albumentations_repeats_itself_between_workers_and_epochs():
    """The fault that ours does not have; if this fails, albumentations has mended it."""
    loader = DataLoader(PlainAlbumentations(seed=0), batch_size=1, num_workers=2)
    first, second = first_pixels(loader), first_pixels(loader)
    assert first == second  # epochs
    assert first[0] == first[1]  # workers
    assert first[2] == first[3]


def test_our_albumentations_pipeline_does_not_repeat_itself(pack):
    jitter = albumentations.RandomBrightnessContrast(p=1)
    transform = AlbumentationsPipeline(32, transforms=[albumentations.Resize(32, 32), jitter])
    data = dataset(pack, transform, rows=[0] * 4 + [1, 2, 3, 4])
    epochs = [epoch_pixels(data, e, batch_size=1, workers=2) for e in (0, 1)]
    assert not any(np.array_equal(epochs[0][r], epochs[1][r]) for r in range(8))
    assert same(epochs[0], epoch_pixels(data, 0, batch_size=5))
    flat = PlainFlat(transform)
    assert len({flat.value(seed) for seed in range(20)}) > 10


class PlainFlat:
    def __init__(self, transform):
        self.transform = transform

    def value(self, seed):
        out = np.empty((32, 32, 3), np.uint8)
        self.transform(np.full((32, 32, 3), 128, np.uint8), out, seed)
        return int(out[0, 0, 0])


def test_a_buffer_is_not_used_again_while_a_batch_lives(pack):
    data = dataset(pack)
    kept = [data[e, np.arange(8)] for e in range(6)]
    copies = [batch["image"].clone() for batch in kept]
    for epoch in range(6, 12):
        data[epoch, np.arange(8)]
    assert all(torch.equal(b["image"], c) for b, c in zip(kept, copies, strict=True))


VIEWS = {
    "image": lambda image: image,
    "slice": lambda image: image[3:4, 1],
    "numpy": lambda image: image[0].numpy(),
    "storage": lambda image: image.untyped_storage(),
}


@pytest.mark.parametrize("view", VIEWS)
def test_any_view_of_a_batch_keeps_its_buffer(pack, view):
    data = dataset(pack)
    batch = data[0, np.arange(8)]
    address, held = batch["image"].data_ptr(), VIEWS[view](batch["image"])
    del batch
    assert data[1, np.arange(8)]["image"].data_ptr() != address
    del held


def test_a_buffer_is_used_again_once_its_batch_is_gone(pack):
    data = dataset(pack)
    addresses = set()
    for epoch in range(20):
        addresses.add(data[epoch, np.arange(8)]["image"].data_ptr())
    assert len(addresses) <= 2
    short = data[0, np.arange(3)]["image"]
    assert short.shape[0] == 3
    assert short.data_ptr() in addresses


def test_threads_never_share_a_buffer():
    ring, clashes = BufferRing(), []
    sys.setswitchinterval(1e-5)

    def work(mark):
        for _ in range(2000):
            buffer = ring.take((4, 2), np.dtype(np.int64))
            buffer[:] = mark
            if (buffer != mark).any():
                clashes.append(mark)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(0.005)
    assert clashes == []


def test_workers_get_a_small_pickle(pack):
    data = dataset(pack)
    data[0, np.arange(8)]
    size = len(pickle.dumps(data))
    assert size < 3000 + data.rows.nbytes + data.target.nbytes
    assert torch.equal(pickle.loads(pickle.dumps(data))[2, [1]]["image"], data[2, [1]]["image"])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("pixels", [None, 32])
def test_a_broken_image_met_at_run_time_is_named(tmp_path, pack, workers, pixels):
    (tmp_path / "good.jpg").write_bytes(bytes(pack.encoded(0)))
    (tmp_path / "bad.jpg").write_bytes(bytes(pack.encoded(0))[:200])
    names = ["good.jpg", "bad.jpg"]
    broken = build_pack(tmp_path, names, cache_root=tmp_path / "cache", pixels=pixels)
    data = LesionDataset(broken, np.arange(2), np.zeros(2, int), transform=Resize(32))
    sampler = SequentialBatches(data.target, batch_size=2)
    loader = DataLoader(data, sampler=sampler, batch_size=None, num_workers=workers)
    batches = iter(loader)
    with pytest.raises(DataError, match=r"cannot decode bad\.jpg \(pack row 1\)"):
        next(batches)
    if workers:
        batches._shutdown_workers()  # left to the garbage collector it waits for five seconds


def test_rows_and_targets_must_match(pack):
    with pytest.raises(ValueError, match="2 rows, 3 targets"):
        LesionDataset(pack, np.arange(2), np.zeros(3, int), transform=Resize(8))


@pytest.mark.slow
def test_a_worker_needs_little_private_memory_at_full_size(tmp_path, pack):
    """401,059 rows: less than 150 MB private beyond the parent's pages, after an epoch's part."""
    root = tmp_path / "archive"
    root.mkdir()
    (root / "a.jpg").write_bytes(bytes(pack.encoded(0)))
    big = build_pack(root, ["a.jpg"] * 401_059, cache_root=tmp_path / "cache", progress=False)
    data = LesionDataset(big, np.arange(len(big)), np.zeros(len(big), int), transform=Resize(32))
    probe = MemoryProbe(data)
    sampler = ShuffledBatches(data.target, batch_size=64, seed=0, samples_per_epoch=6400)
    loader = DataLoader(probe, sampler=sampler, batch_size=None, num_workers=2)
    assert max(loader) < 150e6


class MemoryProbe(Dataset):
    """Private bytes of the process that loads, after each batch."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, batch):
        self.data[batch]
        with open("/proc/self/smaps_rollup") as file:
            lines = [line.split() for line in file if line.startswith("Private_")]
        return sum(int(line[1]) * 1024 for line in lines)
