"""Transforms: one decoded image (uint8, RGB) into one slot of the batch's buffer.

`FastAugment` does flips and a colour jitter as one 3x4 matrix in OpenCV on uint8, ten times
faster than albumentations; `AlbumentationsPipeline` runs any albumentations list in its place;
`Resize` is for evaluation. What is drawn depends on the seed of the call and on nothing else.

Trap: albumentations 2.0.8 repeats the same draws in every worker and every epoch (its own seed
is copied by fork, and again at each epoch). Hence the seed is an argument of every call.
"""

import math
import os
import random
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

from isic.data.colour import color_matrices, luma
from isic.data.seeds import Bits, mix, uniform
from isic.images.decode import Pixels, fit

Buffer = npt.NDArray[Any]
Stats = tuple[Sequence[float], Sequence[float]]  # mean and std of R, G, B in 0..1

_WARP_DETAIL = 2  # shrink by area first beyond this factor: a warp samples and would alias


class Transform(Protocol):
    """One image into one slot; with a method `batch` as FastAugment's, all of a batch at once.

    size: Side of the output.
    min_side: Shorter side to decode to, at least.
    """

    size: int
    min_side: int
    dtype: np.dtype[Any]

    def __call__(self, image: Pixels, out: Buffer, seed: int) -> None:
        """Write `image` (H, W, 3) into `out` (size, size, 3) of `dtype`."""


class Resize:
    """To size x size without keeping the aspect; `normalize` makes it float32."""

    def __init__(self, size: int, *, normalize: Stats | None = None) -> None:
        self.size = self.min_side = size
        self._normalize = None if normalize is None else Normalize(*normalize)
        self.dtype = np.dtype(np.uint8 if normalize is None else np.float32)

    def __call__(self, image: Pixels, out: Buffer, seed: int = 0) -> None:
        if self._normalize is None:
            fit(image, self.size, out=out)
        else:
            self._normalize(fit(image, self.size), out)


class Normalize:
    """(x / 255 - mean) / std, a channel each."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        scale = 1 / (255 * np.asarray(std, np.float32))
        offset = -np.asarray(mean, np.float32) / np.asarray(std, np.float32)
        self._matrix = np.column_stack([np.diag(scale), offset]).astype(np.float32)

    def __call__(self, image: Pixels, out: Buffer) -> None:
        np.copyto(out, image)
        cv2.transform(out, self._matrix, dst=out)


class FastAugment:
    """Flips, transpose, colour jitter, optionally a rotation and zoom, on uint8.

    Colour factors are drawn uniformly from 1 -+ brightness, contrast, saturation and -+ hue (of
    a full turn), as in albumentations' ColorJitter; `color_matrix` says where the two differ.

    rotate: Largest angle in degrees, either way; 0 leaves it out.
    scale: Largest relative zoom, either way: 0.1 draws from 0.9..1.1; 0 leaves it out.
    """

    def __init__(
        self,
        size: int,
        *,
        flips: bool = True,
        transpose: bool = True,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.05,
        rotate: float = 0,
        scale: float = 0,
        normalize: Stats | None = None,
    ) -> None:
        self.size = size
        self._warps = rotate > 0 or scale > 0
        self.min_side = math.ceil(size * (1 + scale)) if self._warps else size
        self._symmetries = 3 * flips | 4 * transpose
        self._rotate, self._scale = rotate, scale
        self._jitter = (brightness, contrast, saturation, hue)
        self._colours = any(self._jitter)
        self._normalize = None if normalize is None else Normalize(*normalize)
        self.dtype = np.dtype(np.uint8 if normalize is None else np.float32)

    def __call__(self, image: Pixels, out: Buffer, seed: int) -> None:
        self.batch([image], out[None], np.array([seed % 2**64], np.uint64))

    def batch(self, images: Iterable[Pixels], out: Buffer, seeds: Bits) -> None:
        """As `__call__` for each image, with the draws of all made at once."""
        bits = mix(seeds)
        symmetries = (bits & np.uint64(self._symmetries)).tolist()
        matrices, shares = self._draw_colours(uniform(bits >> np.uint64(3), 4))
        inverses = self._draw_warps(uniform(mix(bits), 2)) if self._warps else matrices
        for image, slot, symmetry, matrix, share, inverse in zip(
            images, out, symmetries, matrices, shares.tolist(), inverses, strict=True
        ):
            square = self._warp(image, inverse) if self._warps else fit(image, self.size)
            last = slot if self._normalize is None else np.empty(slot.shape, np.uint8)
            if self._colours:
                matrix[:, 3] = share * luma(cv2.mean(square))
                square = cast(Pixels, cv2.transform(square, matrix, dst=None if symmetry else last))
            flip(square, symmetry, out=last)
            if self._normalize is not None:
                self._normalize(last, slot)

    def _draw_colours(
        self, draws: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        brightness, contrast, saturation, hue = draws * np.array(self._jitter)[:, None]
        return color_matrices(
            brightness=1 + brightness, contrast=1 + contrast, saturation=1 + saturation, hue=hue
        )

    def _draw_warps(self, draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Output to input about the centre, in sides of the square: (N, 2, 2)."""
        turn, zoom = np.radians(self._rotate) * draws[0], 1 + self._scale * draws[1]
        cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
        return np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2)

    def _warp(self, image: Pixels, inverse: npt.NDArray[np.float64]) -> Pixels:
        """Resize, rotate and zoom in one pass; the border is mirrored."""
        size = self.size
        if min(image.shape[:2]) >= _WARP_DETAIL * size:
            image = fit(image, self.min_side)
        height, width = image.shape[:2]
        turn = inverse * [[width / size], [height / size]]
        # Pixel centres lie at half integers: the centre of the output meets that of the input.
        centre = np.array([width - 1, height - 1]) / 2
        shift = centre - turn @ np.full(2, (size - 1) / 2)
        warped: Pixels = cv2.warpAffine(
            image,
            np.column_stack([turn, shift]),
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )  # type: ignore[assignment]
        return warped


class AlbumentationsPipeline:
    """Any list of albumentations transforms, seeded at each call.

    Trap: its `set_random_seed` gives the same seed to each transform of the list, so that all draw
    the same number: a horizontal flip then always comes with the vertical one. Here they share
    one generator and draw from it in turn.

    transforms: Without ToTensorV2, since the dataset makes the tensor. May end in Normalize. What
        does not end at (size, size, 3) is resized first.
    min_side: Shorter side to decode to; larger than `size` where the list crops.
    """

    def __init__(
        self, size: int, *, transforms: Sequence[Any], min_side: int | None = None
    ) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks PyPI on import
        import albumentations

        self.size, self.min_side = size, min_side or size
        self._compose = albumentations.Compose(list(transforms))
        black = np.zeros((self.min_side + 1, self.min_side + 2, 3), np.uint8)
        if getattr(self._run(black, 0), "shape", ()) == black.shape:
            resize = albumentations.Resize(size, size)
            self._compose = albumentations.Compose([resize, *transforms])
        probe = self._run(black, 0)
        if not isinstance(probe, np.ndarray) or probe.shape != (size, size, 3):
            got = getattr(probe, "shape", type(probe).__name__)
            raise ValueError(
                f"expected transforms that give an array ({size}, {size}, 3), got {tuple(got)}; "
                "resize or crop to transforms.size and leave ToTensorV2 out"
            )
        self.dtype = probe.dtype

    def __call__(self, image: Pixels, out: Buffer, seed: int) -> None:
        np.copyto(out, self._run(image, seed))

    def _run(self, image: Pixels, seed: int) -> Any:
        generator = np.random.default_rng(seed % 2**64)
        self._compose.set_random_state(generator, random.Random(seed))
        return self._compose(image=image)["image"]


def flip(image: Pixels, code: int, *, out: Buffer) -> None:
    """Write one of the square's eight symmetries: bit 0 left-right, 1 up-down, 2 transpose."""
    if code & 4:
        image = cv2.transpose(image, dst=None if code & 3 else out)  # type: ignore[assignment]
    if code & 3:
        cv2.flip(image, (1, 0, -1)[(code & 3) - 1], dst=out)
    elif image is not out:
        np.copyto(out, image)
