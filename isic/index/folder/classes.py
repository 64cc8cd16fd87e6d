"""Class-named folders of images -> rows: `<class>/x.jpg`, also below `train/`, `val/` and `test/`.

Source: the names of image files; a class folder may hold folders in turn. A single folder around
everything is gone through. Images directly in `test/` are unlabelled.
Unit: one row an image: image (reference), label, split.
Trap: `benign/1.jpg` and `malignant/1.jpg` are two images; `ISIC_0000001.jpg` in both (reduced to
`ISIC_0000001_downsampled.jpg` or not), or the same bytes, is one image with two labels: refused.
"""

import filecmp
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.folder.files import without_extension

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
Parts = tuple[str, ...]
REDUCED = "_downsampled"  # ISIC 2019's mark on an image that other years hold in full
ARCHIVE_ID = r"isic_\d{7}"


def class_rows(root: Path, names: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return image, label and split (train, val, test) of each name, and notes.

    Raises:
        DataError: Images in no class folder, other folders beside train/ and test/, or one image
            under two labels or in two splits.
    """
    parts, notes = _without_wrapper([PurePosixPath(n).parts for n in names])
    tops = {p[0] for p in parts if len(p) > 1}
    if tops and all(t.lower() in SPLITS for t in tops):
        split = [SPLITS.get(p[0].lower(), "") for p in parts]
        parts = [p[1:] if len(p) > 1 else p for p in parts]
    elif beside := sorted(t for t in tops if t.lower() in SPLITS):
        others = first_five(sorted(tops - set(beside)))
        raise DataError(
            f"{root.absolute()} holds {', '.join(beside)} and beside them the folders {others}; "
            f"expected train/, val/ and test/ alone, or class folders alone"
        )
    else:
        split = ["train"] * len(parts)
    label = [p[0] if len(p) > 1 else None for p in parts]
    rows = pd.DataFrame({"image": names, "label": label, "split": split}).astype("string")
    _refuse_unlabelled(root, rows)
    _refuse_two_labels(root, rows)
    return rows, notes


def _without_wrapper(parts: list[Parts]) -> tuple[list[Parts], list[str]]:
    """Go through single folders around everything; a lone train/ or test/ is none."""
    around: list[str] = []
    while (
        len({p[0] for p in parts}) == 1
        and parts[0][0].lower() not in SPLITS
        and all(len(p) > 2 for p in parts)
    ):
        around.append(parts[0][0])
        parts = [p[1:] for p in parts]
    notes = [f"all images lie below {'/'.join(around)}/: its folders are the classes"]
    return parts, notes if around else []


def _refuse_unlabelled(root: Path, rows: pd.DataFrame) -> None:
    bad = rows.loc[rows["label"].isna() & (rows["split"] != "test"), "image"]
    if len(bad):
        raise DataError(
            f"{len(bad)} images of {root.absolute()} lie in no class folder: {first_five(bad)}; "
            f"move them into one, into test/ (unlabelled), or give a CSV with data.index.table"
        )


def _refuse_two_labels(root: Path, rows: pd.DataFrame) -> None:
    """One image in two class folders, or in two splits."""
    stem = rows["image"].map(lambda n: without_extension(n).rpartition("/")[2].lower())
    stem = stem.str.removesuffix(REDUCED)
    bad = []
    for name, same in rows[stem.duplicated(keep=False)].groupby(stem):
        first = same.iloc[0]
        for _, other in same.iloc[1:].iterrows():
            if (first["label"], first["split"]) == (other["label"], other["split"]):
                continue
            if re.fullmatch(ARCHIVE_ID, str(name)) or _same_bytes(
                root, first["image"], other["image"]
            ):
                bad.append(f"{first['image']} and {other['image']}")
    if bad:
        raise DataError(
            f"{len(bad)} images of {root.absolute()} lie in two folders with another label or "
            f"split: {first_five(bad)}; keep each in one"
        )


def _same_bytes(root: Path, one: str, other: str) -> bool:
    return filecmp.cmp(root / one, root / other, shallow=False)
