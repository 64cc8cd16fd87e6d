"""What the name of a folder or a file says by itself: a split, a mask, or nothing at all.

Source: names as people give them; `train_images`, `Training Set` and `train` are one.
Unit: one name.
Trap: a mask lies beside its image under nearly the same name, and is no image of a class.
"""

import re
from pathlib import PurePosixPath

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SAYS_NOTHING = {"set", "images", "image", "data", "dataset", "input", "folder"}
MASKS = {"mask", "masks", "segmentation", "segmentations"}
# `_segmentation`, `_superpixels` and `_attribute_globules` are ISIC 2016 to 2018's.
MASK_ENDING = re.compile(r".*_(segmentation|mask|superpixels|attribute_[a-z_]+)(_\d+)?")


def words_of(folder: str) -> list[str]:
    """The words of a name that say something, in lower case: `Train_Images` -> train."""
    words = re.split(r"[_\-\s]+", folder.lower())
    return [w for w in words if w and w not in SAYS_NOTHING]


def split_of(folder: str) -> str | None:
    """train, val or test where the name says that and no more."""
    words = words_of(folder)
    return SPLITS.get(words[0]) if len(words) == 1 else None


def is_mask(name: str) -> bool:
    """Whether a file is a mask by its own name, or by that of a folder that it lies in."""
    path = PurePosixPath(name.lower())
    if MASK_ENDING.fullmatch(path.stem):
        return True
    words = ([w for w in words_of(folder) if w not in SPLITS] for folder in path.parts[:-1])
    return any(len(w) == 1 and w[0] in MASKS for w in words)
