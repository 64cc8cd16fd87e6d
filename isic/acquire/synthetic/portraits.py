"""Generated lesions -> photographs of any frame, through a dermatoscope or from a hand's breadth.

A photograph is the bank's skin texture and one of its blobs (`isic.acquire.synthetic.tiles`),
combined by one 3x4 matrix, with the camera's light in it. Large frames stretch the texture, small
ones crop it.
Shape: uint8 (height, width, 3) RGB, then JPEG bytes; `frame` holds one row an image.
Trap: two images of a lesion share its colour, blob and skin, not its place, angle and light.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
import simplejpeg
from numpy.typing import NDArray

from isic.acquire.synthetic.generated import Size
from isic.acquire.synthetic.lesions import to_rgb
from isic.acquire.synthetic.tiles import BLOB, SKIN, Bank, draw_sides

Bytes = NDArray[np.uint8]
QUALITY = 88
PEN = (92, 62, 150)  # the purple of a surgical marker, RGB
GLARE = (250, 247, 243)


@dataclass(frozen=True)
class Camera:
    """How a kind of picture sees a lesion.

    zoom: Of the lesion's size. blur: Share of the short side. light: Mean gain of R, G, B.
    jitter: Spread of the light between pictures.
    """

    zoom: float = 1.0
    blur: float = 0.0
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    jitter: float = 0.05


DERMATOSCOPE = Camera(light=(1.0, 0.97, 1.0))
CLOSE_UP = Camera(zoom=0.5, blur=0.008, light=(1.04, 0.95, 0.86), jitter=0.09)


def frame_sizes(
    rng: np.random.Generator, native: NDArray[np.int64], size_range: Size
) -> NDArray[np.int64]:
    """Width and height of each image in px, (N, 2): the native ones, or squares of `size_range`."""
    seed = int(rng.integers(2**32))  # drawn in either case: the size moves nothing else
    if size_range is None:
        return native
    sides = draw_sides(seed, len(native), size_range=size_range)
    return np.stack([sides, sides], axis=1)


def photograph(
    rng: np.random.Generator, lesions: pd.DataFrame, sizes: NDArray[np.int64], camera: Camera
) -> pd.DataFrame:
    """Add to one row an image what differs between images: frame, place, angle, light.

    lesions: Rows of `draw_lesions`, repeated for every image of a lesion. sizes: (N, 2), px.
    """
    frame, n = lesions.reset_index(drop=True).copy(), len(lesions)
    frame["width"], frame["height"] = sizes[:, 0], sizes[:, 1]
    frame["zoom"] = camera.zoom * rng.lognormal(0.0, 0.08, n)
    frame["blur"] = camera.blur
    frame["angle"] = rng.uniform(0, 2 * np.pi, n)
    for axis in "xy":
        frame[f"shift_{axis}"] = rng.normal(0, 0.03, n)
        frame[f"crop_{axis}"] = rng.random(n)
    brightness = 1 + camera.jitter * rng.normal(size=n)
    for channel, gain in zip("RGB", camera.light, strict=True):
        frame[f"light_{channel}"] = gain * brightness * (1 + 0.02 * rng.normal(size=n))
    frame["glare"], frame["pen"] = 0, 0
    frame["marks"] = rng.integers(0, 2**32, n)
    frame["quality"] = QUALITY
    return frame


def draw_photographs(frame: pd.DataFrame, bank: Bank) -> Iterator[Bytes]:
    """Yield each row's picture, uint8 (height, width, 3) RGB."""
    mixing = _mixing(frame)
    columns = {str(name): values.tolist() for name, values in frame.items()}
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        yield _draw(bank, dict(zip(columns, values, strict=True)), mixing[i])


def jpegs(frame: pd.DataFrame, bank: Bank, *, subsampling: str = "420") -> Iterator[bytes]:
    """Yield each row's JPEG in row order; subsampling: of colour, as simplejpeg names it."""
    for quality, image in zip(
        frame["quality"].tolist(), draw_photographs(frame, bank), strict=True
    ):
        yield simplejpeg.encode_jpeg(
            image, quality=quality, colorspace="RGB", colorsubsampling=subsampling
        )


def _mixing(frame: pd.DataFrame) -> NDArray[np.float32]:
    """One matrix an image, (N, 3, 4): texture, mask, mask * pigment, constant -> R, G, B."""
    skin = to_rgb(frame[["skin_L", "skin_A", "skin_B"]].to_numpy())
    lesion = to_rgb(frame[["lesion_L", "lesion_A", "lesion_B"]].to_numpy())
    pigment = frame[["pigment_R", "pigment_G", "pigment_B"]].to_numpy()
    light = frame[["light_R", "light_G", "light_B"]].to_numpy()
    matrix = np.empty((len(frame), 3, 4), dtype=np.float32)
    matrix[:, :, 0] = (0.7, 0.6, 0.55)
    # The class's colour is a mean over the lesion: what the pigment adds is taken off the rest.
    matrix[:, :, 1] = (1.15 * (lesion - skin) - 0.4 * pigment) / 255
    matrix[:, :, 2] = pigment / 255
    matrix[:, :, 3] = skin - 128 * matrix[:, :, 0]
    return np.asarray(matrix * light[:, :, None], dtype=np.float32)


def _draw(bank: Bank, row: dict[str, Any], mixing: NDArray[np.float32]) -> Bytes:
    """Place the blob on a piece of skin, then what the camera and the doctor add."""
    width, height = int(row["width"]), int(row["height"])
    short = min(width, height)
    layers = np.empty((height, width, 3), dtype=np.uint8)
    layers[..., 0] = _texture(bank.skins[int(row["skin"])], width, height, row)
    blob = bank.blobs[int(row["level"]), int(row["variant"])]
    # A blob of the bank spans half its square, a fifth of which fades into the skin.
    scale = 1.2 * row["size"] * row["zoom"] * short / (BLOB / 2)
    cos, sin = np.cos(row["angle"]), np.sin(row["angle"])
    minor = scale * row["aspect"]
    place = np.array([[scale * cos, -minor * sin, 0.0], [scale * sin, minor * cos, 0.0]])
    centre = np.array([width / 2, height / 2]) + short * np.array([row["shift_x"], row["shift_y"]])
    place[:, 2] = centre - place[:, :2] @ np.array([BLOB / 2, BLOB / 2])
    layers[..., 1:] = cv2.warpAffine(blob, place, (width, height))
    image = np.asarray(cv2.transform(layers, mixing), dtype=np.uint8)
    if row["glare"] or row["pen"]:
        _mark(image, row, centre, short)
    if row["blur"] * short >= 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), row["blur"] * short), dtype=np.uint8)
    return image


def _texture(skin: Bytes, width: int, height: int, row: dict[str, Any]) -> Bytes:
    """A piece of skin of the frame's shape, stretched where the frame is larger than the bank's."""
    stretch = max(1.0, max(width, height) / SKIN)
    w, h = min(SKIN, round(width / stretch)), min(SKIN, round(height / stretch))
    x, y = int(row["crop_x"] * (SKIN - w)), int(row["crop_y"] * (SKIN - h))
    piece = skin[y : y + h, x : x + w]
    if (w, h) == (width, height):
        return piece
    return np.asarray(cv2.resize(piece, (width, height)), dtype=np.uint8)


def _mark(image: Bytes, row: dict[str, Any], centre: NDArray[np.float64], short: int) -> None:
    """Draw spots of glare and strokes of a pen around the lesion, in place."""
    rng = np.random.default_rng(int(row["marks"]))
    for _ in range(int(row["glare"])):
        x, y = (rng.random(2) * (image.shape[1], image.shape[0])).astype(int).tolist()
        cv2.circle(image, (x, y), max(1, round(0.015 * short)), GLARE, -1, cv2.LINE_AA)
    for _ in range(int(row["pen"])):
        turn = rng.uniform(0, 2 * np.pi)
        spot = centre + 0.4 * short * np.array([np.cos(turn), np.sin(turn)])
        end = spot + 0.12 * short * np.array([-np.sin(turn), np.cos(turn)])
        (x, y), (u, v) = spot.astype(int).tolist(), end.astype(int).tolist()
        cv2.line(image, (x, y), (u, v), PEN, max(1, round(0.02 * short)), cv2.LINE_AA)
