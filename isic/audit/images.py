"""The images: who has none, which do not decode, their sizes and formats.

Unit: one image; sides in pixels as stored, bytes as encoded.
Trap: test images are often published later or never. A test table without a single image is odd,
with some of them it is wrong, as a train table is with any missing.
"""

from typing import Any

import pandas as pd

from isic.audit.findings import NOTE, ODD, RIGHT, WRONG, Finding, Part
from isic.errors import first_five
from isic.index.integrity import MISSING, OK, UNREADABLE
from isic.index.passed_over import unread_note, unread_of
from isic.index.schema import Index


def check_images(
    index: Index, files: pd.DataFrame, *, missing_images: str = "error", on_bad_image: str = "error"
) -> Part:
    """Judge what `read_images` found.

    missing_images, on_bad_image: The `data` keys; `drop` and `skip` make a fault merely odd.
    """
    findings = []
    if (files["status"] == MISSING).all():
        findings.append(_none_at_all(index, missing_images))
    else:
        for split in ("train", "test"):
            findings += _missing(index, files, split, missing_images)
        findings += _unreadable(index, files, on_bad_image)
        findings += _guessed(index, files)
        findings += _sizes(files)
    ids, status = index.table["image_id"], files["status"]
    bad = status == UNREADABLE
    return Part(
        findings=findings,
        facts={
            "status": _counted(status),
            "missing": ids[status == MISSING].tolist(),
            "unreadable": dict(zip(ids[bad], files.loc[bad, "fault"], strict=True)),
            "formats": _counted(files.loc[status == OK, "format"]),
            "sizes": _common_sizes(files[status == OK]),
            **{name: _quartiles(files.loc[status == OK, name]) for name in ("width", "height")},
            "bytes": _quartiles(files.loc[status == OK, "n_bytes"]),
        },
    )


def _none_at_all(index: Index, missing_images: str) -> Finding:
    n, unread = len(index.table), _unread(index, index.table["image_id"])
    return Finding(
        WRONG if missing_images == "error" else ODD,
        "images",
        f"none of {n:,} rows has an image under {index.folders}{unread}",
        f"download them: {index.download}; images=false checks the tables alone "
        "(data.missing_images=drop trains on those that are there, of which there are none)",
    )


def _missing(index: Index, files: pd.DataFrame, split: str, missing_images: str) -> list[Finding]:
    """Missing images of one split."""
    rows = index.table["split"] == split
    missing = rows & (files["status"] == MISSING)
    if not missing.any():
        return []
    n, of = int(missing.sum()), int(rows.sum())
    named = first_five(index.table.loc[missing, "image_id"])
    text = f"{n:,} of {of:,} {split} rows have no image under {index.folders}: {named}"
    text += _unread(index, index.table.loc[missing, "image_id"])
    if split == "train":
        state = WRONG if missing_images == "error" else ODD
        rest = "train on the rest with data.missing_images=drop"
        return [Finding(state, "images", text, f"{rest}, or download them: {index.download}")]
    state = ODD if n == of or missing_images != "error" else WRONG
    todo = "nothing for training; predict.py split=test needs them, downloaded like the others"
    return [Finding(state, "images", text, todo)]


def _unread(index: Index, ids: pd.Series) -> str:
    """Files of these ids in formats that are not read, where there are some."""
    names = unread_of(index.root, set(ids.tolist()))
    return f"; {unread_note(names)}" if names else ""


def _unreadable(index: Index, files: pd.DataFrame, on_bad_image: str) -> list[Finding]:
    bad = files["status"] == UNREADABLE
    if not bad.any():
        return []
    pairs = zip(index.table.loc[bad, "image_id"], files.loc[bad, "fault"], strict=True)
    named = first_five(f"{image_id} ({fault})" for image_id, fault in pairs)
    return [
        Finding(
            WRONG if on_bad_image == "error" else ODD,
            "images",
            f"{int(bad.sum()):,} of {len(files):,} images cannot be read: {named}",
            "download these again, or go on without them with data.on_bad_image=skip",
        )
    ]


def _guessed(index: Index, files: pd.DataFrame) -> list[Finding]:
    """Readable images of which something had to be guessed, a finding for each guess."""
    guessed = files[(files["status"] == OK) & (files["note"] != "")]
    return [
        Finding(
            NOTE,
            "images",
            f"{len(rows):,} of {len(files):,} images: {note}: "
            f"{first_five(index.table.loc[rows.index, 'image_id'])}",
        )
        for note, rows in guessed.groupby("note")
    ]


def _sizes(files: pd.DataFrame) -> list[Finding]:
    read = files[files["status"] == OK]
    if read.empty:
        return []
    formats = ", ".join(f"{name} {n:,}" for name, n in _counted(read["format"]).items())
    sides = " / ".join(
        f"{width} x {height}"
        for width, height in zip(
            _quartiles(read["width"]).values(), _quartiles(read["height"]).values(), strict=True
        )
    )
    kilobytes = " / ".join(f"{n / 1000:.1f}" for n in _quartiles(read["n_bytes"]).values())
    text = f"{len(read):,} decode to the end: {formats}; min / median / max {sides} px, "
    return [Finding(RIGHT, "images", f"{text}{kilobytes} kB")]


def _counted(values: pd.Series) -> dict[str, int]:
    """Value -> rows, most frequent first."""
    counts = values.value_counts()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return {str(value): int(n) for value, n in ordered}


def _common_sizes(read: pd.DataFrame, most: int = 20) -> dict[str, int]:
    """`width x height` -> images, of the most frequent sizes."""
    names = read["width"].astype(str) + " x " + read["height"].astype(str)
    return dict(list(_counted(names).items())[:most])


def _quartiles(values: pd.Series) -> dict[str, Any]:
    """Smallest, median and largest; empty without values."""
    if values.empty:
        return {}
    middle = values.quantile(0.5, interpolation="lower")
    return {"min": int(values.min()), "median": int(middle), "max": int(values.max())}
