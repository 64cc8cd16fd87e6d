"""Lists of albumentations transforms that won, for `AlbumentationsPipeline(transforms=...)`.

`siim_2020`: the stack of the SIIM-ISIC 2020 winner (Ha, Liu, Liu, arXiv 2010.05351, `dataset.py` of
haqishen/SIIM-ISIC-Melanoma-Classification-1st-Place-Solution), which the first and second places of
2024 used again; its names of albumentations 0.4 as they are in 2.0.8.

Trap: several of the old arguments still exist and mean something else; each is commented below.
"""

import os
from typing import Any

import cv2

_NOISE = (5.0**0.5 / 255, 30.0**0.5 / 255)  # the winner's var_limit=(5, 30) in levels of uint8
_MIRROR = cv2.BORDER_REFLECT_101  # 0.4's default in the distortions; now it is black


def siim_2020(*, cutout: float = 0.375) -> list[Any]:
    """Flips, light, blur or noise, a distortion, contrast, colour, a shift, and one black square.

    Differences that are meant: images are resized first and not before the last step, so that blur
    and noise act at the network's size; the square lies wholly inside the image.

    cutout: Side of the black square, of the image's side.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks PyPI on import
    import albumentations as A

    return [
        A.D4(p=1.0),  # Transpose, VerticalFlip, HorizontalFlip at 0.5 each are these eight
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.0, p=0.75),
        A.RandomBrightnessContrast(brightness_limit=0.0, contrast_limit=0.2, p=0.75),
        A.OneOf(
            [
                A.MotionBlur(blur_limit=5),
                A.MedianBlur(blur_limit=5),
                # 0.4 drew a kernel of 3 or 5 and took OpenCV's sigma of it: 0.8 or 1.1
                A.GaussianBlur(blur_limit=(3, 5), sigma_limit=(0.8, 1.1)),
                A.GaussNoise(std_range=_NOISE),
            ],
            p=0.7,
        ),
        A.OneOf(
            [
                A.OpticalDistortion(distort_limit=1.0, border_mode=_MIRROR),
                A.GridDistortion(distort_limit=1.0, normalized=False, border_mode=_MIRROR),
                _elastic(),
            ],
            p=0.7,
        ),
        A.CLAHE(clip_limit=4.0, p=0.7),
        A.HueSaturationValue(hue_shift_limit=10, sat_shift_limit=20, val_shift_limit=10, p=0.5),
        A.Affine(  # ShiftScaleRotate(0.1, 0.1, 15, border_mode=0)
            translate_percent={"x": (-0.1, 0.1), "y": (-0.1, 0.1)},
            scale=(0.9, 1.1),
            keep_ratio=True,
            rotate=(-15, 15),
            p=0.85,
        ),
        A.CoarseDropout(
            num_holes_range=(1, 1),
            hole_height_range=(cutout, cutout),
            hole_width_range=(cutout, cutout),
            p=0.7,
        ),
    ]


def _elastic() -> Any:
    """What `ElasticTransform(alpha=3)` did in 0.4: a random affine of three points by 50 pixels.

    Its displacement field of alpha 3 and sigma 50 moves nothing by a pixel, then as now; 2.0.8 has
    no `alpha_affine`. The ranges give the spread of the old matrices on a side of 768 pixels.
    """
    import albumentations as A

    return A.Affine(
        translate_percent={"x": (-0.047, 0.047), "y": (-0.047, 0.047)},
        scale={"x": (0.83, 1.17), "y": (0.83, 1.17)},
        shear={"x": (-11, 11), "y": (0, 0)},
        border_mode=_MIRROR,
    )
