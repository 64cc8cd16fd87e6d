"""Image references of predictions: which files each row of a predictions table was made from.

`image` is relative to the archive's root, as the index has it (`@name/...` lies in a mount). Of a
lesion it is the first view that was seen and exists; where several views were seen,
`image_<view>` is each of theirs, null where a row lacks it.
"""

from collections.abc import Sequence

import pandas as pd

from isic.index.schema import Index
from isic.prepare import image_columns


def with_images(
    frame: pd.DataFrame, rows: pd.DataFrame, index: Index, *, views: Sequence[str] | None = None
) -> pd.DataFrame:
    """Add columns with the references of the images to a predictions table.

    Args:
        frame: Predictions, in the order of `rows`.
        rows: Of `sample_rows(index)`.
        index: Of the archive.
        views: Views that were seen; None means all of a lesion's.
    """
    lesions = index.info.row_unit == "lesion"
    columns = image_columns(index, views or (index.info.views if lesions else None))
    seen = rows[list(columns.values())].astype("string").set_axis(list(columns), axis=1)
    found = {"image": seen.bfill(axis=1).iloc[:, 0]}
    if len(columns) > 1:
        found |= {f"image_{view}": seen[view] for view in seen.columns}
    return frame.assign(**{name: column.to_numpy() for name, column in found.items()})
