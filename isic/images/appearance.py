"""The ISIC 2019 winner's two corrections: black border cut off, colours as under white light.

Source: Gessert et al., arXiv 1910.03910, and the settings of their published preprocessing: dark
is below a fifth of Otsu's threshold; the box leaves out a tenth of the round view's radius;
Minkowski norm 6. Their circle from moments is replaced by counts of rows and columns, which a
dark lesion does not move, and by a look at the corners.

Trap: a wrong crop costs the lesion, a missed one a few black pixels. In doubt nothing is cut.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from isic.images.decode import Pixels

MIN_KEPT = 0.4  # of each side; a smaller view is no dermoscope's, or no view
_MIN_CUT = 0.02  # of a side; less is the soft edge of an image, not a border
_DARK = 0.2  # of Otsu's threshold
_CHORD = 0.436  # 2 sqrt(1 - 0.9^2) / 2: a circle's width at 0.9 of its radius, over its diameter
_CORNER = 0.04  # of each side: the patch that a round view leaves dark in every corner
_LOOK = 160  # pixels of the shorter side at which the border is looked for


def crop_border(image: Pixels) -> Pixels:
    """The rectangle of a dermoscope's round view, a tenth of its radius off; a view, no copy.

    The image itself where not all of its four corners are black, or where too much (MIN_KEPT) or
    next to nothing would go.
    """
    height, width = image.shape[:2]
    bright = _bright(image)
    if not _corners_are_dark(bright):
        return image
    top, bottom = _span(bright.sum(axis=1))
    left, right = _span(bright.sum(axis=0))
    if not MIN_KEPT <= min(bottom - top, right - left) <= 1 - _MIN_CUT:
        return image
    return image[
        round(top * height) : round(bottom * height), round(left * width) : round(right * width)
    ]


def shades_of_gray(image: Pixels, *, norm: int = 6) -> Pixels:
    """Divide each channel by its share of the light (Finlayson & Trezzi, CIC 2004).

    e_c = (mean over pixels of I_c^norm)^(1/norm); e is scaled to length 1;
    I_c' = I_c / (sqrt(3) e_c), so that grey light (e_c = 1/sqrt(3)) changes nothing.
    """
    levels = np.arange(256.0)
    light = np.empty(3)
    for c in range(3):
        count = cv2.calcHist([image], [c], None, [256], [0, 256]).ravel()
        light[c] = ((levels / 255) ** norm @ count / count.sum()) ** (1 / norm)
    if not light.all():  # a channel is black all over: its share of the light is unknown
        return image
    gain = np.linalg.norm(light) / (np.sqrt(3) * light)
    table = np.rint(levels[:, None] * gain).clip(0, 255).astype(np.uint8)
    return cv2.LUT(image, table[:, None, :])  # type: ignore[return-value]


def _bright(image: Pixels) -> npt.NDArray[np.bool_]:
    """Which pixels of a small copy belong to the view."""
    scale = min(1.0, _LOOK / min(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    lower, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    upper = grey > lower
    # Any value between two classes far apart is Otsu's, and OpenCV gives the lowest: black itself.
    threshold = (grey[upper].mean() + grey[~upper].mean()) / 2 if 0 < upper.mean() < 1 else lower
    bright: npt.NDArray[np.bool_] = grey > _DARK * threshold
    return bright


def _corners_are_dark(bright: npt.NDArray[np.bool_]) -> bool:
    h, w = (max(1, round(_CORNER * side)) for side in bright.shape)
    corners = (bright[:h, :w], bright[:h, -w:], bright[-h:, :w], bright[-h:, -w:])
    return all(corner.mean() < 0.5 for corner in corners)


def _span(count: npt.NDArray[Any]) -> tuple[float, float]:
    """First and last line, as shares of the side, whose bright pixels make a wide chord."""
    lines = np.flatnonzero(count >= _CHORD * count.max())
    return float(lines[0]) / len(count), float(lines[-1] + 1) / len(count)
