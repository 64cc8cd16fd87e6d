"""Colour jitter as one 3x4 matrix: brightness, contrast, saturation and hue are affine in RGB.

Order and meaning follow torchvision's and albumentations' ColorJitter, with three differences:
values are clipped once at the end and not after each step; hue turns about the grey axis, which
keeps R + G + B and not max(R, G, B) as HSV does; the order of the four is fixed, not drawn.

Trap: contrast needs the image's mean as its pivot, so that the matrix belongs to one image.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Factors = npt.NDArray[np.float64]  # (N,), one a draw

# Rec. 601 as in OpenCV's RGB2GRAY: every colour to its grey.
_LUMA = np.outer(np.ones(3), (0.299, 0.587, 0.114))
_CHROMA = np.eye(3) - _LUMA  # what is left
_ALONG = np.full((3, 3), 1 / 3)  # onto the grey axis, and across it: Rodrigues' rotation formula
_ACROSS = np.eye(3) - _ALONG
_QUARTER = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # red towards yellow


# Each 3x3 term flattened, so that a batch's draws are one product (N, 4) @ (4, 9).
_TERMS = np.array(
    [_LUMA, _ALONG @ _CHROMA, _ACROSS @ _CHROMA, _QUARTER @ _CHROMA], np.float32
).reshape(4, 9)


def luma(rgb: Sequence[float]) -> float:
    """The grey that a colour turns into; a fourth value, as cv2.mean gives, is ignored."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def color_matrices(
    *, brightness: Factors, contrast: Factors, saturation: Factors, hue: Factors
) -> tuple[npt.NDArray[np.float32], Factors]:
    """One matrix (3, 4) for each of N draws, and the share of the mean's luma in its offset.

    Apply it after `matrix[:, 3] = share * luma(mean)`; mean and pixels are 0..255.

    hue: Part of a full turn, 0 leaves the hue.
    """
    turn, gain = 2 * np.pi * hue, brightness * contrast
    vivid = gain * saturation
    weights = np.stack([gain, vivid, vivid * np.cos(turn), vivid * np.sin(turn)], axis=1)
    matrices = np.zeros((len(gain), 3, 4), np.float32)
    matrices[:, :, :3] = (weights.astype(np.float32) @ _TERMS).reshape(-1, 3, 3)
    return matrices, (1 - contrast) * brightness


def color_matrix(
    *,
    mean: Sequence[float],
    brightness: float = 1,
    contrast: float = 1,
    saturation: float = 1,
    hue: float = 0,
) -> npt.NDArray[np.float32]:
    """The matrix (3, 4) of one draw for an image whose channels have this mean."""
    matrices, share = color_matrices(
        brightness=np.array([brightness]),
        contrast=np.array([contrast]),
        saturation=np.array([saturation]),
        hue=np.array([hue]),
    )
    matrix: npt.NDArray[np.float32] = matrices[0]
    matrix[:, 3] = share[0] * luma(mean)
    return matrix
