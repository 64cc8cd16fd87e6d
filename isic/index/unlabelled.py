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

from isic.errors import DataError
from isic.index.folder.files import image_names, safe_ids
from isic.index.schema import DatasetInfo, Index, standard_columns


def build_index(root: Path, *, info: Mapping[str, Any], views: Sequence[str] = ()) -> Index:
    """The images below `root`, in the order of their paths.

    info: `DatasetInfo.to_dict()` of what the checkpoint was trained on.
    views: Those that the model sees; of several, each image is a lesion that has the first alone.

    Raises:
        DataError: No such folder, or no image in it.
    """
    root = Path(root)
    names, notes = image_names(root) if root.is_dir() else ([], [])
    if not names:
        raise DataError(f"images: expected a folder of images, got none in {root.absolute()}")
    trained = DatasetInfo.from_dict(info)
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
