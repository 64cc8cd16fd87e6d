"""SIIM-ISIC 2020's images that are in the archive twice: which one repeats which.

Source: ISIC_2020_Training_Duplicates.csv, 425 disjoint pairs, each of one patient and one target.
Unit: one row a train image; `duplicate_of` holds the id of the image that it repeats, or null.
Trap: an image that repeats another is never used. A pair of two patients, two targets, or a circle
of pairs would take away images that nothing replaces, and is refused.
"""

import pandas as pd

from isic.errors import first_five
from isic.index.tables import Reading

NAME = "ISIC_2020_Training_Duplicates.csv"


def duplicates(reading: Reading, rows: pd.DataFrame) -> pd.Series:
    """The image that each train row repeats; what is wrong goes to the faults of `reading`."""
    none = pd.Series(None, index=rows.index, dtype="object")
    path = reading.find(NAME)
    if path is None:
        reading.notes.append(f"no {NAME}: 425 images are in the archive twice, and both are used")
        return none
    kinds = {"image_name_1": "text", "image_name_2": "text"}
    pairs = reading.csv(path, kinds, id_column="image_name_2")
    here = pairs.isin(set(rows["image_name"])).all(axis=1)
    if not here.all():
        reading.notes.append(
            f"{path.name}: {int((~here).sum())} of {len(pairs)} pairs name images that are not in "
            f"the train table: {first_five(pairs.loc[~here, 'image_name_2'])}"
        )
    pairs = pairs[here].drop_duplicates("image_name_2")
    if pairs.empty:
        return none
    reading.faults += [f"{path.name}: {fault}" for fault in _faults(pairs, rows)]
    reading.notes.append(
        f"{path.name}: {len(pairs)} pairs are one image twice; the second of each is never used"
    )
    first = pairs.set_index("image_name_2")["image_name_1"]
    return rows["image_name"].map(first)


def _faults(pairs: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Pairs that cannot be one image, and images that would all be left out."""
    first, second = pairs["image_name_1"], pairs["image_name_2"]
    itself = first == second
    table = rows.drop_duplicates("image_name").set_index("image_name")
    a, b = (table.loc[ids].reset_index(drop=True) for ids in (first, second))
    patients = (a["patient_id"] != b["patient_id"]) & a["patient_id"].notna()
    patients &= b["patient_id"].notna()
    # the challenge's target, under the nine classes too
    targets = (a["diagnosis"] == "melanoma") != (b["diagnosis"] == "melanoma")
    faults = [
        f"{int(bad.sum())} pairs {what}: {_named(pairs[bad.to_numpy(bool)])}"
        for bad, what in ((patients, "are of two patients"), (targets, "have two targets"))
        if bad.any()
    ]
    if itself.any():
        faults.append(
            f"{int(itself.sum())} images are paired with themselves: {first_five(first[itself])}"
        )
    circle = _in_circles(dict(zip(second[~itself], first[~itself], strict=True)))
    if circle:
        faults.append(f"{len(circle)} images repeat one another in a circle: {first_five(circle)}")
    return faults


def _named(pairs: pd.DataFrame) -> str:
    ids = zip(pairs["image_name_1"], pairs["image_name_2"], strict=True)
    return first_five(f"{one} and {other}" for one, other in ids)


def _in_circles(repeats: dict[str, str]) -> list[str]:
    """The sorted ids from which following the pairs leads back to the start."""
    found: set[str] = set()
    done: set[str] = set()
    for start in repeats:
        path: dict[str, None] = {}
        at: str | None = start
        while at is not None and at not in done and at not in path:
            path[at] = None
            at = repeats.get(at)
        if at in path:
            walked = list(path)
            found |= set(walked[walked.index(at) :])
        done |= set(path)
    return sorted(found)
