"""Rows of an archive -> the table that every archive has, and what is odd in it.

Unit: row = image, age in years. Trap: a column that nothing is known of still has its type, since a
table of test rows alone must be like the test rows of the whole archive.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from isic.errors import first_five
from isic.index.image_files import zips_of
from isic.index.schema import DatasetInfo, one_hot, standard_columns

NUMBERS = ("age",)


def empty_table(columns: Mapping[str, str]) -> pd.DataFrame:
    """No rows, with the types that `Reading.csv` gives these kinds of columns; `code` is Int64."""
    types = {"text": pd.Series(pa.nulls(0, pa.string()).to_pandas()).dtype, "number": np.float64}
    types |= {"code": pd.Int64Dtype()}
    return pd.DataFrame({c: pd.Series([], dtype=types[kind]) for c, kind in columns.items()})


def standard_table(rows: pd.DataFrame, info: DatasetInfo) -> pd.DataFrame:
    """Order the standard columns first, add those that are missing, spread the classes."""
    known = {"archive": info.name, "view": info.views[0]}
    table = rows.assign(**{c: v for c, v in known.items() if c not in rows})
    table["target"] = table["target"].astype("Int64")
    classes = one_hot(table["target"], info.classes)
    own = [c for c in table.columns if c not in standard_columns(info)]
    columns: dict[str, object] = {}
    for name in standard_columns(info):
        if name in info.classes:
            columns[name] = classes[name]
        elif name in table:
            columns[name] = table[name]
        else:
            kind = pa.float64() if name in NUMBERS else pa.string()
            columns[name] = pa.nulls(len(table), kind).to_pandas().to_numpy()
    columns.update({c: table[c] for c in own})
    return pd.DataFrame(columns).reset_index(drop=True)


def without_image(table: pd.DataFrame, root: Path) -> list[str]:
    """A note for each split whose rows have no image file, and for zips that may hold them."""
    notes = []
    for split, count in table["split"].value_counts(sort=False).items():
        lacking = table["image"].isna() & (table["split"] == split)
        if lacking.any():
            named = first_five(table.loc[lacking, "image_id"].tolist())  # a list: ten times faster
            notes.append(f"{lacking.sum()} of {count} {split} rows have no image file: {named}")
    if notes and (zips := zips_of(root)):
        notes.append(f"not unpacked: {first_five(zips)}")
    return notes
