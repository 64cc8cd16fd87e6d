"""Pairs that show the same: every planted copy is found, and nothing else."""

import importlib
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import simplejpeg

from isic.acquire import synthetic
from isic.images.decode import decode
from isic.images.fingerprint import PRINT, Prints, fingerprint
from isic.images.likeness import Likeness, distances, limits, same_images
from isic.images.sources import read_refs
from tests.images.test_fingerprint import png, scene

KINDS = ("exact", "encoded", "mirrored", "turned", "resized")


def prints_of(encoded: list[bytes]) -> Prints:
    return np.frombuffer(b"".join(map(fingerprint, encoded)), PRINT)


def copy_of(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """The same picture again: JPEG of quality 60 to 95, flipped, turned or 0.8 to 1.25 as large."""
    if kind == "exact":
        return data
    image = decode(data)
    if kind == "mirrored":
        image = image[:, ::-1] if rng.random() < 0.5 else image[::-1]
    elif kind == "turned":
        image = np.rot90(image, int(rng.integers(1, 4)))
    elif kind == "resized":
        scale = rng.uniform(0.8, 1.25)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)
    quality = int(rng.integers(60, 96))
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorsubsampling="420"
    )
    return encoded


Planted = set[tuple[int, int]]


def plant(encoded: list[bytes], *, seed: int, copies: int = 100) -> tuple[Planted, list[Likeness]]:
    """Which pairs were planted, and what was found."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(encoded), copies, replace=False).tolist()
    again = [copy_of(encoded[i], KINDS[k % 5], rng) for k, i in enumerate(chosen)]
    planted = {(i, len(encoded) + k) for k, i in enumerate(chosen)}
    return planted, same_images(prints_of(encoded + again))


@pytest.mark.parametrize("name", ["isic2019", "isic2020", "isic2024", "milk10k"])
def test_a_hundred_copies_among_small_generated_images(name: str, tmp_path: Path) -> None:
    encoded, declared = generated(name, tmp_path)
    assert {(p.first, p.second) for p in same_images(prints_of(encoded))} == declared
    planted, found = plant(encoded, seed=1)
    pairs = {(p.first, p.second): p.kind for p in found}
    exact = {pair for pair in planted if (pair[1] - len(encoded)) % 5 == 0}
    assert all(pairs[pair] == "bytes" for pair in exact)
    assert len((planted - exact) & set(pairs)) >= 79  # of 80
    # A copy of an image that has a duplicate is like both.
    duplicates = {i for pair in declared for i in pair}
    assert all(a in duplicates for a, _ in set(pairs) - planted - declared)


def generated(name: str, folder: Path) -> tuple[list[bytes], Planted]:
    """Images of a generated archive of 32 px, and the duplicates that its tables name."""
    root = getattr(synthetic, f"write_{name}")(folder / name, n_images=240, size_range=32)
    index = importlib.import_module(f"isic.index.{name}").build_index(root)
    encoded = list(read_refs(index.sources, index.table["image"].tolist()))
    assert all(isinstance(data, bytes) for data in encoded)
    at = pd.Index(index.table["image_id"])
    copies = index.table.get("duplicate_of", pd.Series(dtype=object)).dropna()
    pairs = zip(at.get_indexer(copies), copies.index, strict=True)
    return encoded, {(min(a, b), max(a, b)) for a, b in pairs}


def test_blank_images_are_alike_by_their_bytes_alone() -> None:
    blank = [png(np.full((40, 40, 3), grey, np.uint8)) for grey in (90, 90, 91)]
    assert [(p.first, p.second, p.kind) for p in same_images(prints_of(blank))] == [(0, 1, "bytes")]


def test_broken_and_missing_files_are_like_none() -> None:
    prints = prints_of([b"404", b"404", png(scene())])
    assert same_images(np.concatenate([prints, np.zeros(2, PRINT)])) == []
    assert same_images(np.zeros(0, PRINT)) == []


def test_equal_files_are_a_chain_whose_first_is_compared() -> None:
    image, jpeg = png(scene()), simplejpeg.encode_jpeg(scene(), quality=90)
    found = same_images(prints_of([image, image, jpeg, image, jpeg]))
    kinds = {(p.first, p.second): p.kind for p in found}
    assert kinds == {(0, 1): "bytes", (1, 3): "bytes", (2, 4): "bytes", (0, 2): "near"}


def test_the_search_finds_what_looking_at_every_pair_finds() -> None:
    rng = np.random.default_rng(3)
    base = [scene(i, (40, 40)) for i in range(12)]
    noisy = [
        (image + rng.normal(0, sigma, image.shape)).clip(0, 255).astype(np.uint8)
        for image in base
        for sigma in (3, 6, 9, 12, 24)
    ]
    prints = prints_of([png(image) for image in base + noisy])
    a, b = np.triu_indices(len(prints), 1)
    within = distances(prints[a], prints[b]) <= limits(prints["side"])[0]
    found = {(p.first, p.second) for p in same_images(prints)}
    assert found == set(zip(a[within].tolist(), b[within].tolist(), strict=True))
    assert 24 < len(found) < 12 * 15  # some beyond the limit


def test_limits_grow_where_jpeg_is_all_noise_and_where_there_is_much_to_see() -> None:
    side = np.array([16, 32, 64, 131, 255, 256, 4000], np.uint16)
    assert limits(side).round(2).tolist() == [5.74, 5.74, 2.33, 2, 2, 2.5, 2.5]


# ---- real images


def crops(root: Path) -> list[bytes]:
    with h5py.File(root / "isic2024" / "train-image.hdf5") as file:
        return [bytes(np.asarray(file[name][()]).tobytes()) for name in sorted(file)]


def photographs(root: Path) -> list[bytes]:
    return [p.read_bytes() for p in sorted((root / "milk10k").glob("*/*/*.jpg"))]


@pytest.mark.slow
@pytest.mark.parametrize(("read", "own"), [(crops, 0), (photographs, 2)])
def test_copies_among_real_images(
    read: Callable[[Path], list[bytes]], own: int, real_root: Path
) -> None:
    """MILK10k holds two files twice, each under two lesions; no two crops are the same."""
    encoded = read(real_root)
    planted, found = plant(encoded, seed=2)
    pairs = {(p.first, p.second) for p in found}
    assert planted <= pairs
    assert len(pairs - planted) == own
