"""Fingerprints: of bytes and of what they show; kept, made again where sources change."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg

from isic.errors import DataError, IsicError
from isic.images.fingerprint import PRINT, Prints, fingerprint, read_fingerprints
from isic.images.likeness import distances
from isic.images.sources import Sources


def prints_of(*encoded: bytes) -> Prints:
    return np.frombuffer(b"".join(map(fingerprint, encoded)), PRINT)


def png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image[..., ::-1])[1])


def scene(seed: int = 0, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Blurred noise: as smooth as skin, with something of every frequency."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 400, (*shape, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4) + rng.uniform(90, 170, 3)
    return smooth.clip(0, 255).astype(np.uint8)


def test_the_distance_is_the_difference_in_grey_levels() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    image[:, :32] += 40
    brighter = image + np.uint8(7)
    wave = np.cos(np.pi * 3 * (np.arange(64) + 0.5) / 64)[:, None, None]
    waved = (image + 10.0 * wave).round().clip(0, 255).astype(np.uint8)
    a, b, c = (prints_of(png(x)) for x in (image, brighter, waved))
    assert distances(a, a) == pytest.approx(0, abs=1e-4)
    assert distances(a, b) == pytest.approx(7, abs=0.05)
    # A wave of amplitude 10 has a root mean square of 7.07; rounding adds a little.
    assert distances(a, c) == pytest.approx(7.07, abs=0.1)


@pytest.mark.parametrize("shape", [(64, 64), (96, 64)])
def test_flips_and_turns_change_nothing(shape: tuple[int, int]) -> None:
    image = scene(shape=shape)
    views = [np.rot90(x, k) for x in (image, image[:, ::-1]) for k in range(4)]
    still = prints_of(png(image))
    for view in views:
        assert distances(still, prints_of(png(np.ascontiguousarray(view)))) < 0.1
    assert distances(still, prints_of(png(scene(1, shape)))) > 5


def test_a_large_image_decoded_in_part_is_as_the_whole() -> None:
    image = cv2.resize(scene(), (1403, 1051), interpolation=cv2.INTER_CUBIC)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95)
    assert distances(prints_of(jpeg), prints_of(png(image))) < 0.6


def test_what_does_not_decode_has_the_hash_of_its_bytes() -> None:
    broken, same, other, whole = prints_of(b"x", b"x", b"y", png(scene()))
    assert broken["side"] == 0
    assert (broken["luminance"] == 0).all()
    assert (broken["digest"] == same["digest"]).all()
    assert (broken["digest"] != other["digest"]).any()
    assert whole["side"] == 64


# ---- kept


@pytest.fixture
def folder(tmp_path: Path) -> Sources:
    (tmp_path / "archive").mkdir()
    for i in range(3):
        (tmp_path / "archive" / f"{i}.png").write_bytes(png(scene(i)))
    return Sources(tmp_path / "archive")


REFS = ["0.png", None, "1.png", "absent.png", "2.png"]


def kept(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*") if p.suffix != ".lock")


def test_they_are_kept_and_row_for_row(
    folder: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = read_fingerprints(folder, REFS, cache_root=tmp_path / "cache")
    assert (made["side"] > 0).tolist() == [True, False, True, False, True]
    assert (made["digest"] != 0).any(axis=1).tolist() == [True, False, True, False, True]
    assert made[2:3].tobytes() == fingerprint((folder.root / "1.png").read_bytes())

    def no_reading(*_: Any, **__: Any) -> None:
        raise AssertionError("images are read again")

    monkeypatch.setattr("isic.images.fingerprint.scan", no_reading)
    again = read_fingerprints(folder, REFS, cache_root=tmp_path / "cache")
    assert again.tobytes() == made.tobytes()
    assert len(kept(tmp_path / "cache")) == 1


@pytest.mark.parametrize("change", ["bytes", "mtime", "refs"])
def test_other_sources_are_read_again(folder: Sources, tmp_path: Path, change: str) -> None:
    first = read_fingerprints(folder, REFS, cache_root=tmp_path / "cache")
    refs = REFS[::-1] if change == "refs" else REFS
    if change == "bytes":
        (folder.root / "1.png").write_bytes(png(scene(7)))
    elif change == "mtime":
        os.utime(folder.root / "1.png", ns=(1, 1))
    second = read_fingerprints(folder, refs, cache_root=tmp_path / "cache")
    assert len(kept(tmp_path / "cache")) == 2
    assert (first[2] == second[2]) == (change != "bytes")


def test_a_torn_file_is_made_again(
    folder: Sources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = read_fingerprints(folder, REFS, cache_root=tmp_path / "cache").tobytes()
    (file,) = (tmp_path / "cache").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-100])
    assert read_fingerprints(folder, REFS, cache_root=tmp_path / "cache").tobytes() == made
    assert "made again" in caplog.text


def test_a_failed_reading_leaves_nothing(
    folder: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(IsicError, match="ISIC_CACHE_ROOT, or split.overlap=false"):
        read_fingerprints(folder, REFS, cache_root=tmp_path / "cache")
    assert kept(tmp_path / "cache") == []


def test_a_reference_that_leaves_the_root_is_refused(folder: Sources, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside"):
        read_fingerprints(folder, ["../cache/x.png"], cache_root=tmp_path / "cache")


def test_several_processes_say_the_same(folder: Sources, tmp_path: Path) -> None:
    refs = [f"{i % 3}.png" for i in range(40)]
    one, two = (
        read_fingerprints(folder, refs, cache_root=tmp_path / str(n), workers=n).tobytes()
        for n in (1, 2)
    )
    assert one == two
