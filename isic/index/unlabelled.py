"""A folder of images that nothing is known of, to be predicted by a model of some archive.

Source: `predict.py images=DIR`. Row unit: image; every row is a test row without a label, its id
the file's name. Classes are those of the checkpoint.
Trap: what a model knows of one archive's camera says little about another one's images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.folder.files import image_names, safe_ids
from isic.index.image_files import listed
from isic.index.schema import DatasetInfo, Index, standard_columns

LAYOUT = ("_test_metadata.csv", "_test_input", "_training_input")  # of a challenge's download


def build_index(root: Path, *, info: Mapping[str, Any], views: Sequence[str] = ()) -> Index:
    """The images below `root`, in the order of their paths.

    info: `DatasetInfo.to_dict()` of what the checkpoint was trained on.
    views: Those that the model sees; of several, each image is a lesion that has the first alone.

    Raises:
        DataError: No such folder, no image in it, or an archive whose images belong together.
    """
    root = Path(root)
    names, notes = image_names(root) if root.is_dir() else ([], [])
    if not names:
        why = f"; {first_five(notes)}" if notes else ""
        raise DataError(f"images: expected a folder of images, got none in {root.absolute()}{why}")
    trained = DatasetInfo.from_dict(info)
    if len(views) > 1:
        _refuse_archive(root, views)
        notes.append(_alone(names, views))
    known = replace(
        trained,
        row_unit="lesion" if len(views) > 1 else "image",
        id_column="image_id",
        submission_columns=trained.classes,
        submission_classes=trained.classes,
        download="",
    )
    columns: dict[str, Any] = dict.fromkeys(standard_columns(known))
    columns |= {"image_id": safe_ids(names), "image": names, "split": "test"}
    columns |= {"archive": known.name, "view": next(iter(views), known.views[0])}
    if len(views) > 1:
        columns["lesion_id"] = columns["image_id"]
    table = pd.DataFrame(columns, index=range(len(names)))
    table["target"] = table["target"].astype("Int64")
    texts = ["lesion_id", "patient_id", "diagnosis", "sex", "site", "attribution"]
    table[texts] = table[texts].astype("string")
    return Index(table, known, root, notes=notes)


def _refuse_archive(root: Path, views: Sequence[str]) -> None:
    """An archive says which images are one lesion; read as a plain folder each would be one.

    Raises:
        DataError: Names what looks like an archive's.
    """
    place = root.absolute()
    found = [str(place / name) for name in listed(root) if name.lower().endswith(LAYOUT)]
    if place.name.lower().endswith(LAYOUT):
        found, place = [str(place)], place.parent
    if found:
        raise DataError(
            f"images={root}: expected images of a lesion each, got an archive's layout "
            f"({first_five(found)}), and the model sees {' and '.join(views)} of one lesion: "
            f"data.root={place} reads that layout, with its table *_Test_Metadata.csv, which says "
            "what belongs together"
        )


def _alone(names: Sequence[str], views: Sequence[str]) -> str:
    others = " and ".join(views[1:])
    return (
        f"each of the {len(names)} images is taken as the {views[0]} image of a lesion of its own "
        f"and predicted without {others}, which the model was trained with; an archive's folder, "
        "given as data.root=DIR, brings them together"
    )
