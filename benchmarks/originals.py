"""Camera originals to the training size: JPEG bytes to (224, 224, 3), no cache, one thread.

Ours is `fit(decode(data, min_side=224), 224)`, what a pack of pixels and a batch from originals
cost an image. The baseline is what people write: Pillow, whole decode, `resize` with the bilinear
filter (which averages when it shrinks). Both start from bytes in memory and take turns in one
process; a bar's ratio is the median of the rounds' ratios. `once` is a pack's `resize=256`:
decode, resize and encode at quality 95, against Pillow doing the same. The limit is libjpeg-turbo's
reduced decode alone; at 1024 x 768 four fifths of that are Huffman decoding, which no scale saves.

Images are generated (texture of 1/f, a blob, sensor noise) and encoded to the byte sizes of the
archives' own: 186 KB at 1024 x 768, 3.06 MB at 6000 x 4000.
"""

import io
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from isic.images.convert import Options, convert
from isic.images.decode import decode, fit

SIZE, SHORT = 224, 256
QUALITY = 90
log = logging.getLogger(__name__)

Step = Callable[[bytes], Any]


class Original(NamedTuple):
    """A camera's image: size in pixels, bytes it is to have, images a turn, the bars' targets."""

    width: int
    height: int
    nbytes: int
    images: int
    target: float


ORIGINALS = (Original(1024, 768, 186_000, 24, 3.8), Original(6000, 4000, 3_060_000, 2, 7.0))


def ours(data: bytes) -> np.ndarray:
    """As a pack of pixels, and a batch from originals."""
    return fit(decode(data, min_side=SIZE), SIZE)


def pillow(data: bytes) -> np.ndarray:
    """As most training code."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def limit(data: bytes) -> np.ndarray:
    """Nothing but libjpeg-turbo, at the least of its fast scales that leaves SIZE."""
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    shrink = max(k for k in (1, 2, 4, 8) if min(height, width) >= k * SIZE)
    reduced: np.ndarray = simplejpeg.decode_jpeg(
        data, min_height=height // shrink, min_width=width // shrink
    )
    return reduced


def ours_once(data: bytes) -> bytes:
    """As a pack with resize."""
    return convert(data, Options(resize=SHORT)).data


def pillow_once(data: bytes) -> bytes:
    """The usual script that makes a smaller copy of an archive."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SHORT / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    out = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR).save(out, "JPEG", quality=95, subsampling=2)
    return out.getvalue()


def photo(rng: np.random.Generator, original: Original) -> bytes:
    """A JPEG whose noise is chosen so that it has about `original.nbytes`."""
    clean, grain = _scene(rng, original.height, original.width)
    low, high = 0.0, 40.0
    for _ in range(9):
        noise = (low + high) / 2
        pixels = (clean + noise * grain).clip(0, 255).astype(np.uint8)
        data: bytes = simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="420")
        low, high = (noise, high) if len(data) < original.nbytes else (low, noise)
    return data


def _scene(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Skin with a lesion, float32 (H, W, 3), and unit noise (H, W, 1) as demosaicing leaves it."""
    image = np.full((height, width, 3), rng.uniform((170, 120, 100), (225, 175, 155)), np.float32)
    cells = 4
    while cells < min(height, width):  # the amplitude halves with each octave
        coarse = rng.standard_normal((cells, cells)).astype(np.float32) * (48 / cells + 1)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
        cells *= 2
    y, x = np.mgrid[:height, :width].astype(np.float32)
    away = np.hypot(x / width - 0.5, y / height - 0.5)
    image -= (np.float32([70, 75, 65]) / (1 + np.exp((away[..., None] - 0.2) * 40))).astype("f4")
    grain = rng.standard_normal((height, width)).astype(np.float32)
    return image, cv2.GaussianBlur(grain, (0, 0), 0.7)[..., None]


def measure(steps: dict[str, Step], photos: list[bytes], rounds: int) -> dict[str, list[float]]:
    """Images a second of each step in each round; one round to warm up is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            for data in photos:
                step(data)
            rates[name].append(len(photos) / (time.perf_counter() - start))
    return {name: values[1:] for name, values in rates.items()}


def bar(
    name: str, rates: dict[str, list[float]], mine: str, theirs: str, target: float
) -> dict[str, Any]:
    """One line of the results, in images a second."""
    ratio = median(a / b for a, b in zip(rates[mine], rates[theirs], strict=True))
    return {
        "name": f"originals: {name}, img/s",
        "ours": round(median(rates[mine]), 1),
        "baseline": round(median(rates[theirs]), 1),
        "ratio": round(ratio, 3),
        "target": target,
        "ok": ratio >= target,
    }


def run(*, rounds: int = 9) -> list[dict[str, Any]]:
    """Measure every bar; each has name, ours, baseline, ratio, target, ok."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    bars = []
    steps: dict[str, Step] = {"ours": ours, "pillow": pillow, "limit": limit}
    steps |= {"ours once": ours_once, "pillow once": pillow_once}
    try:
        for original in ORIGINALS:
            rng = np.random.default_rng(0)
            photos = [photo(rng, original) for _ in range(original.images)]
            size = f"{original.width} x {original.height}"
            log.info("%s: %.0f bytes a JPEG", size, np.mean([len(data) for data in photos]))
            rates = measure(steps, photos, rounds)
            bars += [
                bar(f"{size} to {SIZE} vs Pillow", rates, "ours", "pillow", original.target),
                bar(f"{size} to {SIZE} vs reduced decode alone", rates, "ours", "limit", 0.9),
                bar(f"{size} to {SHORT}, JPEG", rates, "ours once", "pillow once", original.target),
            ]
    finally:
        cv2.setNumThreads(threads)
    return bars


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="# %(message)s")
    for line in run():
        print(line)
