"""Is an archive whole? Counts against the published ones, and every image read and decoded once.

Source: the index (already validated) and the files its `image` column refers to.
Unit: one entry per image; 2,000 to 4,000 tiles a second, read and decoded.
Trap: counts that differ from the published ones are listed, not an error: a part of an archive,
a generated one and another release are all fine to train on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from isic.errors import DataError, first_five
from isic.images.decode import ImageError, decode
from isic.images.progress import Progress
from isic.images.sources import Sources, check_refs, read_refs
from isic.index.schema import Index

PROGRESS_STEP = 256  # images between two updates of the bar


@dataclass
class ImageFaults:
    """Positions in the list of references: those without bytes, and why others do not decode."""

    missing: list[int] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)


def check_images(sources: Sources, refs: Sequence[str | None], *, progress: bool = True) -> ImageFaults:
    """Read and decode each reference; a null reference counts as missing."""
    check_refs(refs)
    faults = ImageFaults()
    with Progress("checking images", total=len(refs), enabled=progress) as bar:
        for i, data in enumerate(read_refs(sources, refs)):
            if data is None:
                faults.missing.append(i)
            elif reason := _why_unreadable(data):
                faults.unreadable[i] = reason
            if i % PROGRESS_STEP == PROGRESS_STEP - 1:
                bar.advance(PROGRESS_STEP)
    return faults


def _why_unreadable(data: bytes | OSError) -> str:
    """Decode in full: a truncated JPEG has a sound header. Empty when it is readable."""
    if isinstance(data, OSError):
        return str(data)
    try:
        decode(data)
    except ImageError as error:
        return str(error)
    return ""


def check_archive(index: Index, *, images: bool = True, progress: bool = True) -> dict[str, Any]:
    """Check an archive before training; plain types only.

    images: False leaves the image files unopened.

    Returns:
        `counts` and `published` by name, `differences` and `lines` for people, `missing` ids,
        `unreadable` (id -> reason), and `errors`: empty when the archive is whole.
    """
    counts = _counts(index)
    published = index.info.published_counts
    differences = [
        f"{name}: {counts[name]:,} here, {expected:,} published"
        for name, expected in published.items()
        if name in counts and counts[name] != expected
    ]
    report: dict[str, Any] = {
        "archive": index.info.name,
        "root": str(index.root),
        "counts": counts,
        "published": dict(published),
        "differences": differences,
        "missing": [],
        "unreadable": {},
        "errors": [],
    }
    if images:
        _add_images(report, index, progress=progress)
    found = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    report["lines"] = [f"{index.info.name} in {index.root}: {found}", *differences]
    return report


def _counts(index: Index) -> dict[str, int]:
    """Rows, classes, patients and images, under the names of `published_counts`."""
    table = index.table
    train = table[table["split"] == "train"]
    classes = {
        name: int((train["target"] == code).sum()) for code, name in enumerate(index.info.classes)
    }
    return {
        "train": len(train),
        "test": len(table) - len(train),
        "unlabelled": int(train["target"].isna().sum()),
        **classes,
        "patients": int(train["patient_id"].nunique()),
        "images": int(table["image"].notna().sum()),
    }


def _add_images(report: dict[str, Any], index: Index, *, progress: bool) -> None:
    """Open what the index refers to and note the ids that fail, with an error per kind."""
    ids = index.table["image_id"].tolist()
    refs: list[str | None] = [None if pd.isna(r) else r for r in index.table["image"]]
    try:
        faults = check_images(index.sources, refs, progress=progress)
    except DataError as error:
        # A store that does not open says nothing of single images.
        report["errors"].append(str(error))
        return
    report["missing"] = [ids[i] for i in faults.missing]
    report["unreadable"] = {ids[i]: reason for i, reason in faults.unreadable.items()}
    if report["missing"]:
        report["errors"].append(
            f"{len(report['missing'])} of {len(ids)} rows have no image under {index.root}: "
            f"{first_five(report['missing'])}; download them ({index.info.download}) or train on "
            f"the rest with data.missing_images=drop"
        )
    if report["unreadable"]:
        named = first_five(f"{i} ({reason})" for i, reason in report["unreadable"].items())
        report["errors"].append(
            f"{len(report['unreadable'])} of {len(ids)} images cannot be read: {named}; download "
            f"these again or go on without them with data.on_bad_image=skip"
        )
