"""Colour jitter as one 3x4 matrix: brightness, contrast, saturation and hue are affine in RGB.

Order and meaning follow torchvision's and albumentations' ColorJitter, with three differences:
values are clipped once at the end and not after each step; hue turns about the grey axis, which
keeps R + G + B and not max(R, G, B) as HSV does; the order of the four is fixed, not drawn.

Trap: contrast needs the image's mean as its pivot, so that the matrix belongs to one image.
"""

import math

import numpy as np
import numpy.typing as npt

_LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # Rec. 601, as in OpenCV's RGB2GRAY
_LUMA = np.outer(np.ones(3), _LUMA_WEIGHTS)  # every colour to its grey
_CHROMA = np.eye(3) - _LUMA  # what is left
_ALONG = np.full((3, 3), 1 / 3)  # onto the grey axis, and across it: Rodrigues' rotation formula
_ACROSS = np.eye(3) - _ALONG
_QUARTER = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # red towards yellow
_NONE = np.zeros((3, 3))


def _flat(matrix: npt.NDArray[np.float64], offset: float = 0) -> npt.NDArray[np.float64]:
    return np.column_stack([matrix, np.full(3, offset)]).ravel()


# Each 3x4 term flattened, so that a draw is one product (5,) @ (5, 12).
_TERMS = np.array(
    [
        _flat(_LUMA),
        _flat(_ALONG @ _CHROMA),
        _flat(_ACROSS @ _CHROMA),
        _flat(_QUARTER @ _CHROMA),
        _flat(_NONE, offset=1),
    ],
    np.float32,
)


def color_matrix(
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    mean: tuple[float, float, float],
) -> npt.NDArray[np.float32]:
    """The 3x4 matrix, for RGB in 0..255, that applies the four factors in this order.

    hue: Part of a full turn, 0 leaves the hue.
    mean: Of R, G and B over the image, 0..255; contrast pivots on its luma.
    """
    turn = 2 * math.pi * hue
    red, green, blue = _LUMA_WEIGHTS
    grey = red * mean[0] + green * mean[1] + blue * mean[2]
    gain = brightness * contrast
    vivid = gain * saturation
    weights = np.array(
        (
            gain,
            vivid,
            vivid * math.cos(turn),
            vivid * math.sin(turn),
            (1 - contrast) * brightness * grey,
        ),
        np.float32,
    )
    matrix: npt.NDArray[np.float32] = weights.dot(_TERMS).reshape(3, 4)
    return matrix
