"""Generated lesions -> square JPEG tiles as ISIC 2024 has them: 15 mm of skin, 61-239 px.

A tile is a skin texture, a blob with a soft irregular border and pigment inside it, combined by
one 3x4 matrix: `rgb = M @ (texture, mask, mask * pigment, 1)`. Textures and blobs come from a
bank made once, which keeps a tile at about a third of a millisecond.
Shape: uint8 (side, side, 3) RGB, then JPEG bytes.
Trap: a blob's irregularity is a level 0..LEVELS-1, not continuous; the pigment's strength is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import pandas as pd
import simplejpeg
from numpy.typing import NDArray

from isic.acquire.synthetic.lesions import to_rgb

FIELD_MM = 15.0
SIDES = (61, 239)  # px, the published range; median 131
LEVELS, VARIANTS, SKINS = 12, 16, 16
CONTRAST = 1.7
BLOB = 96  # px, side of a blob in the bank; its mean radius is a quarter of that
SKIN = 320
QUALITY = 80  # about 2.8 KB at 131 px, the archive's mean

Bytes = NDArray[np.uint8]


@dataclass
class Bank:
    """skins: uint8 (SKINS, SKIN, SKIN); blobs: uint8 (LEVELS, VARIANTS, BLOB, BLOB, 2)."""

    skins: Bytes
    blobs: Bytes


@lru_cache(maxsize=4)
def make_bank(seed: int) -> Bank:
    """Draw the textures and blobs that all tiles share."""
    rng = np.random.default_rng(seed)
    skins = np.stack([_skin(rng, hairs=k % 4) for k in range(SKINS)])
    blobs = [[_blob(rng, level) for _ in range(VARIANTS)] for level in range(LEVELS)]
    return Bank(skins, np.array(blobs))


def _noise(rng: np.random.Generator, side: int, grain: float) -> NDArray[np.float32]:
    """Smooth noise of standard deviation 1 with features `grain` px across."""
    field = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), grain)
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


def _skin(rng: np.random.Generator, *, hairs: int) -> Bytes:
    """Fine creases over slow shading around 128, and dark hairs on some; uint8 (SKIN, SKIN)."""
    field = 128 + 10 * _noise(rng, SKIN, 1.2) + 7 * _noise(rng, SKIN, 4.0)
    field += 10 * _noise(rng, SKIN, 40.0)
    skin: Bytes = np.clip(field, 0, 255).astype(np.uint8)
    for _ in range(hairs):
        points = np.cumsum(rng.normal(0, 12, (9, 2)) + rng.normal(0, 28, 2), axis=0)
        points = (points + rng.uniform(0, SKIN, 2)).astype(np.int32)
        cv2.polylines(skin, [points[:, None]], False, 45, 1, cv2.LINE_AA)
    return skin


def _blob(rng: np.random.Generator, level: int) -> Bytes:
    """A mask and its pigment, uint8 (BLOB, BLOB, 2); a higher level has a more ragged border.

    The border is a circle with eight random harmonics, which makes lobes and notches as well as
    plain ovals; pigment is smooth noise inside it.
    """
    rough = level / (LEVELS - 1)
    axis = np.arange(BLOB, dtype=np.float32) - (BLOB - 1) / 2
    x, y = np.meshgrid(axis, axis)
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    border = np.ones_like(angle)
    for k in range(2, 10):
        amplitude = (0.02 + 0.13 * rough) * rng.normal() / np.sqrt(k - 1)
        border += amplitude * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    edge = BLOB / 4 * np.clip(border, 0.4, 1.7)
    softness = 3.0 - 1.2 * rough
    mask = 1 / (1 + np.exp((radius - edge) / softness))
    pigment = np.clip(0.5 + 0.28 * _noise(rng, BLOB, 7.0), 0, 1)
    layers: Bytes = np.stack([255 * mask, 255 * mask * pigment], axis=-1).astype(np.uint8)
    return layers


def draw_sides(seed: int, n: int, *, size_range: int | tuple[int, int]) -> NDArray[np.int64]:
    """Draw n tile sides in px: one fixed value, or a bell over the range with thin tails.

    size_range: The side, or the lowest and the highest one.
    """
    if isinstance(size_range, int):
        return np.full(n, size_range, dtype=np.int64)
    low, high = size_range
    rng = np.random.default_rng(seed)
    bell = low + (high - low) * rng.normal(0.393, 0.1, n)  # puts the median of 61-239 at 131
    tails = rng.uniform(low, high, n)
    sides = np.where(rng.random(n) < 0.03, tails, bell)
    return np.asarray(np.clip(np.round(sides), low, high), dtype=np.int64)


def jpeg_tiles(
    frame: pd.DataFrame, *, bank: Bank, seed: int, sides: NDArray[np.int64]
) -> Iterator[bytes]:
    """Yield each lesion's JPEG in row order.

    frame: `Lesions.frame`; read are `by_image`, diameter, eccentricity and the two colours.
    sides: px, as `draw_sides` gives them; at most SKIN.
    """
    place = _placement(frame, seed=seed)
    mixing = _mixing(frame)
    for i, values in enumerate(zip(*place.values(), strict=True)):
        tile = _render(bank, dict(zip(place, values, strict=True)), mixing[i], int(sides[i]))
        yield simplejpeg.encode_jpeg(tile, quality=QUALITY, colorspace="RGB")


def _placement(frame: pd.DataFrame, *, seed: int) -> dict[str, list[float]]:
    """Which textures each tile takes, and how its blob lies on them; a list per name."""
    rng = np.random.default_rng(seed)
    n = len(frame)
    level = np.round(LEVELS * (0.28 + 0.13 * frame["by_image"].to_numpy()))
    drawn = {
        "skin": rng.integers(0, SKINS, n),
        "variant": rng.integers(0, VARIANTS, n),
        "level": np.clip(level, 0, LEVELS - 1).astype(np.int64),
        "angle": rng.uniform(0, 2 * np.pi, n),
        "size": frame["diameter"].to_numpy() / FIELD_MM,
        "aspect": np.sqrt(1 - frame["eccentricity"].to_numpy() ** 2),
        "shift_x": rng.normal(0, 0.02, n),
        "shift_y": rng.normal(0, 0.02, n),
        "crop_x": rng.random(n),
        "crop_y": rng.random(n),
    }
    return {name: values.tolist() for name, values in drawn.items()}


def _mixing(frame: pd.DataFrame) -> NDArray[np.float32]:
    """One matrix per tile, (N, 3, 4): colours of skin, lesion and pigment.

    Columns: texture, mask, mask * pigment, constant; rows: R, G, B.
    """
    skin = to_rgb(frame[["skin_L", "skin_A", "skin_B"]].to_numpy())
    lesion = to_rgb(frame[["lesion_L", "lesion_A", "lesion_B"]].to_numpy())
    # Dark blue-grey patches, from none to dominant along the image axis.
    strength = 150 / (1 + np.exp(1.6 - 0.9 * frame["by_image"].to_numpy()))
    pigment = -strength[:, None] * np.array([1.3, 0.9, 0.4])
    matrix = np.empty((len(frame), 3, 4), dtype=np.float32)
    matrix[:, :, 0] = (0.7, 0.6, 0.55)
    # The table's colour is a mean over the lesion; its centre stands out further.
    matrix[:, :, 1] = (CONTRAST * (lesion - skin) - 0.25 * pigment) / 255
    matrix[:, :, 2] = pigment / 255
    matrix[:, :, 3] = skin - 128 * matrix[:, :, 0]
    return matrix


def _render(bank: Bank, place: dict[str, float], mixing: NDArray[np.float32], side: int) -> Bytes:
    """Place one blob on one crop of skin, uint8 (side, side, 3)."""
    blob = bank.blobs[int(place["level"]), int(place["variant"])]
    # A blob of the bank spans half its square, a fifth of which fades into the skin.
    scale = 1.2 * place["size"] * side / (BLOB / 2)
    cos, sin = np.cos(place["angle"]), np.sin(place["angle"])
    major, minor = scale, scale * max(place["aspect"], 0.35)
    to_tile = np.array([[major * cos, -minor * sin, 0.0], [major * sin, minor * cos, 0.0]])
    centre = np.array([0.5 + place["shift_x"], 0.5 + place["shift_y"]]) * side
    to_tile[:, 2] = centre - to_tile[:, :2] @ np.array([BLOB / 2, BLOB / 2])
    # uint8 layers: cv2.transform then saturates by itself, with no clip over the tile.
    layers = np.empty((side, side, 3), dtype=np.uint8)
    layers[..., 1:] = cv2.warpAffine(blob, to_tile, (side, side))
    # Another crop of the texture for each tile, so that few textures look like many.
    room = SKIN - side
    x, y = int(place["crop_x"] * room), int(place["crop_y"] * room)
    layers[..., 0] = bank.skins[int(place["skin"]), y : y + side, x : x + side]
    return np.asarray(cv2.transform(layers, mixing), dtype=np.uint8)
