"""Class-named folders of images -> rows: `<class>/x.jpg` below `train/` and `test/`, or above them.

Source: the names of image files; a class folder may hold folders in turn. A single folder around
everything is gone through, above the splits and below them. Images directly in `test/` are
unlabelled. Splits are told by `names.split_of`. Masks beside the images are left out with a note.
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
from isic.index.folder.names import SPLITS, is_mask, split_of, words_of

Parts = tuple[str, ...]
REDUCED = "_downsampled"  # ISIC 2019's mark on an image that other years hold in full
ARCHIVE_ID = r"isic_\d{7}"


def class_rows(root: Path, names: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return image, label and split (train, val, test) of each image, and notes.

    Raises:
        DataError: Images in no class folder, other folders or images beside train/ and test/, or
            one image under two labels or in two splits.
    """
    names, notes = _without_masks(names)
    parts, around = _without_wrapper([PurePosixPath(n).parts for n in names])
    tops = {p[0] for p in parts if len(p) > 1}
    if tops and all(split_of(t) for t in tops):
        split, parts, wrapped = _splits_above(parts)
        notes += [*around, *_split_notes(tops), *wrapped]
    elif beside := sorted(t for t in tops if split_of(t)):
        others = first_five(sorted(tops - set(beside)))
        raise DataError(
            f"{root.absolute()} holds {', '.join(beside)} and beside them the folders {others}; "
            f"expected train/, val/ and test/ alone, or class folders alone"
        )
    elif below := {p[1] for p in parts if len(p) > 2 and split_of(p[1])}:
        split = _splits_below(root, names, parts)
        notes += [*around, *_split_notes(below, "below the classes")]
    else:
        split = ["train"] * len(parts)
        notes += around
    label = [p[0] if len(p) > 1 else None for p in parts]
    rows = pd.DataFrame({"image": names, "label": label, "split": split}).astype("string")
    _refuse_unlabelled(root, rows)
    _refuse_two_labels(root, rows)
    return rows, notes


def _without_masks(names: list[str]) -> tuple[list[str], list[str]]:
    """Leave out masks, unless there is nothing else."""
    masks = {n for n in names if is_mask(n)}
    if not masks or len(masks) == len(names):
        return names, []
    note = f"{len(masks)} masks are no images of a class and are left out: "
    return [n for n in names if n not in masks], [note + first_five(sorted(masks))]


def _without_wrapper(parts: list[Parts]) -> tuple[list[Parts], list[str]]:
    """Go through single folders around everything; a lone train/ or test/ is none."""
    around: list[str] = []
    while (
        len({p[0] for p in parts}) == 1
        and split_of(parts[0][0]) is None
        and all(len(p) > 2 for p in parts)
    ):
        around.append(parts[0][0])
        parts = [p[1:] for p in parts]
    notes = [f"all images lie below {'/'.join(around)}/: its folders are the classes"]
    return parts, notes if around else []


def _splits_above(parts: list[Parts]) -> tuple[list[str], list[Parts], list[str]]:
    """The split of each image by its first folder, what lies below it, and notes.

    `train/train/` and `train/images/` are `train/`: such a folder says nothing more of an image.
    """
    split = [(split_of(p[0]) or "") if len(p) > 1 else "" for p in parts]
    parts = [p[1:] if len(p) > 1 else p for p in parts]
    while empty := [s for s in {*SPLITS.values()} if _says_nothing(parts, split, s)]:
        parts = [p[1:] if s in empty else p for p, s in zip(parts, split, strict=True)]
    parts, notes = _without_wrapper(parts)
    return split, parts, notes


def _splits_below(root: Path, names: list[str], parts: list[Parts]) -> list[str]:
    """The split of each image by the folder below its class, where every image lies in one."""
    split = [split_of(p[1]) or "" if len(p) > 2 else "" for p in parts]
    bad = [n for n, s in zip(names, split, strict=True) if not s]
    if bad:
        folders = ", ".join(sorted({p[1] for p, s in zip(parts, split, strict=True) if s}))
        raise DataError(
            f"{len(names) - len(bad)} images of {root.absolute()} lie in {folders} below their "
            f"class and {len(bad)} do not: {first_five(bad)}; expected CLASS/train/x.jpg and "
            f"CLASS/test/x.jpg for all of them, or CLASS/x.jpg"
        )
    return split


def _says_nothing(parts: list[Parts], split: list[str], of: str) -> bool:
    """Whether all of a split lies in one folder that repeats its name, or is named `images`."""
    own = [p for p, s in zip(parts, split, strict=True) if s == of]
    tops = {p[0] if len(p) > 1 else "" for p in own}
    top = tops.pop() if len(tops) == 1 else ""
    return bool(top) and (split_of(top) == of or not words_of(top))


def _split_notes(folders: set[str], where: str = "above the classes") -> list[str]:
    """Which folders were read as splits, where their names or their place might mean another."""
    if where.startswith("above") and all(f.lower() in SPLITS for f in folders):
        return []
    said = ", ".join(f"{f} ({split_of(f)})" for f in sorted(folders))
    return [f"folders {where} are splits: {said}"]


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
