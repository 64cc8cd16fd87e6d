"""Images that the archive itself marks as another one again, such as the 425 pairs of SIIM-ISIC.

Source: the column `duplicate_of`. Unit: row = marked image, never used in training.
Trap: a wrong mark costs a good image. It is believed where both show the same, or are of one
patient and have one target, as all of SIIM's are: where no image is there, tables must do.
"""

from collections.abc import Iterable

import pandas as pd

from isic.audit.findings import ODD, RIGHT, Finding, Part
from isic.errors import first_five
from isic.index.schema import Index
from isic.split.groups import group_of


def check_duplicates(
    index: Index,
    pairs: Iterable[tuple[str, str, str]] = (),
    read: pd.Series | None = None,
) -> Part:
    """How many rows are marked, and which marks nothing speaks for.

    pairs: Images found to show the same. read: bool (rows,), whose image was compared; None: none.
    """
    table = index.table
    if "duplicate_of" not in table or table["duplicate_of"].isna().all():
        return Part(facts={"marked": 0})
    copy = table[table["duplicate_of"].notna()]
    ids = pd.Index(table["image_id"])
    at = ids.get_indexer(pd.Index(copy["duplicate_of"]))
    own = ids.get_indexer(pd.Index(copy["image_id"]))
    shown = group_of(table[["image_id"]], [(a, b) for a, b, _ in pairs])
    compared = pd.Series(False, index=table.index) if read is None else read
    frame = pd.DataFrame({"known": at >= 0}, index=copy["image_id"])
    frame["compared"] = compared.to_numpy(bool)[own] & compared.to_numpy(bool)[at]
    for column in ("patient_id", "target"):
        # Two that are not known are not the same: <NA> == <NA> is false here.
        one, other = (table[column].astype("object").iloc[rows].to_numpy() for rows in (own, at))
        both = pd.notna(one) & pd.notna(other)
        frame[column] = [bool(k) and a == b for k, a, b in zip(both, one, other, strict=True)]
    frame["alike"] = shown.to_numpy()[own] == shown.to_numpy()[at]
    frame = frame.where(frame["known"], False)
    return _said(frame.astype(bool))


def _said(frame: pd.DataFrame) -> Part:
    """The finding; frame: image_id -> known, compared, patient_id, target, alike."""
    alike = frame["alike"] & frame["compared"]
    same = frame["patient_id"] & frame["target"]
    doubted = frame.index[~alike & ~same].tolist()
    compared = int(frame["compared"].sum())
    seen = f"{int(alike.sum()):,} of {compared:,} compared show the same"
    text = (
        f"{len(frame):,} images are marked as another one again and never used: "
        f"{int(same.sum()):,} have its patient and target, {seen if compared else 'none compared'}"
    )
    facts = {
        "marked": len(frame),
        "same_patient_and_target": int(same.sum()),
        "compared": compared,
        "show_the_same": int(alike.sum()),
        "doubted": doubted,
    }
    if not doubted:
        return Part([Finding(RIGHT, "duplicates", text)], facts)
    text = f"{text}; for {len(doubted):,} neither holds: {first_five(doubted)}"
    return Part([Finding(ODD, "duplicates", text, "correct duplicate_of, or know why")], facts)
