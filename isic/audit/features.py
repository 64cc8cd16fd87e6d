"""The features that a stack would make of an archive, for the search of shortcuts.

Source: families of `isic.features`, those of the data set (`conf/features/usual_*.yaml`) unless
others are named; image scores are not there before an image run is. Unit: one row of the index; in
an archive of lesions the images of a lesion share its features.
Trap: a z-score within the patient is missing where a patient has one image: what is made of columns
that tell nothing may tell the class. Families that learn are fitted on all labelled rows, since
they look at no label.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from isic.audit.findings import NOTE, Finding
from isic.errors import DataError
from isic.features.family import Family
from isic.features.table import check_columns, fit_features, make_features, split_families
from isic.index.schema import Index, sample_rows


def audited_features(
    index: Index, families: Mapping[str, Family], *, cache_root: Path
) -> tuple[pd.DataFrame | None, list[Finding]]:
    """Return the features of the index's rows, None where there are none, and what was not made."""
    samples = sample_rows(index)
    usable, findings = dict[str, Family](), []
    for key, family in families.items():
        try:
            check_columns({key: family}, samples, index.info)
            usable[key] = family
        except DataError as error:
            text = f"{key} cannot be made, so it is not searched for shortcuts: {error}"
            findings.append(Finding(NOTE, "features", text))
    if not usable:
        return None, findings
    training = samples[(samples["split"] == "train") & samples["target"].notna()]
    _, learned = split_families(usable)
    states = fit_features(learned, training, info=index.info)
    table = make_features(usable, samples, states, info=index.info, cache_root=cache_root).frame()
    if index.info.row_unit == "image":
        return table.set_axis(index.table.index), findings
    table.index = pd.Index(samples["lesion_id"])
    return table.loc[index.table["lesion_id"]].set_axis(index.table.index), findings
