"""A prediction leads to its file: in tables of images and of lesions, of today and of before."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.assemble import with_targets
from isic.index.isic2024 import INFO
from isic.index.milk10k import INFO as LESIONS
from isic.index.schema import Index, sample_rows
from isic.predictions import ensemble, read_predictions, write_predictions
from isic.predictions.origin import with_images
from isic.predictions.table import image_columns

ABOUT = {"run": "r", "index_hash": "aa", "split_hash": "bb"}


def table(ids: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame({"image_id": ids, "lesion_id": pd.NA, "fold": 0, "split": "train"})
    probs = np.linspace(0.1, 0.9, len(ids))
    return frame.assign(status="ok", prob_benign=1 - probs, prob_malignant=probs)


def index_of(rows: pd.DataFrame, info=INFO) -> Index:
    return Index(rows.assign(patient_id=pd.NA), info, Path("root"))


def test_an_image_is_named_as_the_index_names_it(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": ["a", "b"], "image": ["x/Müller.jpg", "t.hdf5#b"]})
    index = index_of(rows.assign(target=pd.array([1, pd.NA], "Int64")))
    frame = with_images(table(["a", "b"]), rows, index)
    frame["target"] = index.table["target"].to_numpy()
    path = write_predictions(tmp_path / "oof.parquet", frame, **ABOUT)
    read = read_predictions(path)
    assert read["image"].tolist() == ["x/Müller.jpg", "t.hdf5#b"]
    assert read["target"].dtype == "Int64"
    assert read["target"].tolist() == [1, pd.NA]
    assert list(read)[:7] == [*list(table(["a"]))[:5], "image", "target"]
    # its own labels are not in the way of those of the index
    joined = with_targets(read, index)
    assert joined["target"].tolist() == [1, pd.NA]


def lesions() -> pd.DataFrame:
    rows = {"lesion_id": ["L1", "L1", "L2"], "image_id": ["d1", "c1", "c2"]}
    rows |= {
        "view": ["dermoscopic", "clinical", "clinical"],
        "image": ["d1.jpg", "c1.jpg", "c2.jpg"],
    }
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (["clinical"], {"image": ["c1.jpg", "c2.jpg"]}),
        (
            ["dermoscopic", "clinical"],
            {
                "image": ["d1.jpg", "c2.jpg"],
                "image_dermoscopic": ["d1.jpg", None],
                "image_clinical": ["c1.jpg", "c2.jpg"],
            },
        ),
        (None, {"image": ["d1.jpg", "c2.jpg"], "image_dermoscopic": ["d1.jpg", None]}),
    ],
)
def test_a_lesion_names_each_view_that_was_seen(tmp_path, views, expected) -> None:
    index = index_of(lesions(), LESIONS)
    rows = sample_rows(index)
    frame = with_images(table(["d1", "c2"]), rows, index, views=views)
    read = read_predictions(write_predictions(tmp_path / "t.parquet", frame, **ABOUT))
    for column, names in expected.items():
        assert read[column].astype(object).where(read[column].notna(), None).tolist() == names
    assert ("image_clinical" in image_columns(read)) == (views != ["clinical"])


def test_tables_of_before_go_together_with_those_of_today(tmp_path: Path) -> None:
    old = table(["a", "b"])
    path = write_predictions(tmp_path / "old.parquet", old, **ABOUT)
    read = read_predictions(path)
    assert image_columns(read) == []
    new = with_images(old, pd.DataFrame({"image": ["a.jpg", "b.jpg"]}), index_of(old))
    for first, second, names in ((read, new, []), (new, read, ["image"])):
        assert image_columns(ensemble([first, second])) == names
