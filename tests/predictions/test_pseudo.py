"""Confident predictions as training rows: which are taken, and what the CSV says of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.predictions.pseudo import confident, pseudo_rows

NAMES = ("MEL", "NV")


def predicted(melanoma=(0.95, 0.05, 0.6, 0.99, 0.02), **columns) -> pd.DataFrame:
    p = np.array(melanoma)
    frame = pd.DataFrame({"image_id": [f"T{i}" for i in range(len(p))], "lesion_id": None})
    frame = frame.assign(split="test", status="ok", prob_MEL=p, prob_NV=1 - p)
    return frame.assign(**columns)


def archive(row_unit: str = "image") -> pd.DataFrame:
    """Images of the five rows; as lesions, two views each."""
    names = [f"T{i}" for i in range(5)]
    table = pd.DataFrame({"image_id": names, "lesion_id": pd.NA, "view": "dermoscopic"})
    table = table.assign(image=[f"in/{n}.jpg" for n in names], patient_id="P", age=50.0)
    if row_unit == "lesion":
        table["lesion_id"] = [f"L{i}" for i in range(5)]
        other = table.assign(image_id=table["image_id"] + "c", view="clinical")
        other["image"] = [f"in/{n}c.jpg" for n in names]
        table = pd.concat([table, other], ignore_index=True)
    table.attrs["row_unit"] = row_unit
    return table


def test_the_confident_are_taken() -> None:
    found = confident(predicted(), min_confidence=0.95)
    assert found["image_id"].tolist() == ["T0", "T1", "T3", "T4"]
    assert found["label"].tolist() == ["MEL", "NV", "MEL", "NV"]
    assert found["confidence"].tolist() == [0.95, 0.95, 0.99, 0.98]


def test_classes_and_a_cap() -> None:
    assert confident(predicted(), classes=["NV"])["image_id"].tolist() == ["T1", "T4"]
    assert confident(predicted(), max_per_class=1)["image_id"].tolist() == ["T3", "T4"]
    many = confident(predicted(), min_confidence=0.5, max_per_class=2)
    assert many["image_id"].tolist() == ["T0", "T1", "T3", "T4"]


def test_what_has_no_image_has_no_label() -> None:
    frame = predicted((0.99, np.nan), status=["ok", "unreadable"])
    assert confident(frame)["image_id"].tolist() == ["T0"]


def test_ranks_are_refused() -> None:
    frame = predicted()
    frame.attrs["ranks"] = True
    with pytest.raises(DataError, match="ranks, and a rank is no confidence"):
        confident(frame)


def test_other_rows_than_test_rows_are_refused() -> None:
    frame = predicted(split=["test", "train", "train", "test", "test"])
    with pytest.raises(DataError, match="got 2 rows of split train: T1, T2; .* would leak"):
        confident(frame)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 0.0}, "min_confidence: expected above 0"),
        ({"classes": ["SCC"]}, "classes: expected some of MEL, NV, got SCC"),
        ({"max_per_class": 0}, "max_per_class: expected 1 or more"),
    ],
)
def test_values_that_are_none(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        confident(predicted(), **options)


def test_none_so_sure_says_the_highest() -> None:
    with pytest.raises(DataError, match=r"none of 5 rows .* the highest is 0\.990"):
        confident(predicted(), min_confidence=0.999)


def test_the_rows_of_the_csv() -> None:
    rows = pseudo_rows(
        confident(predicted()), archive(), folder=Path("/data"), run="it", weight=0.5
    )
    first = rows.iloc[0].dropna().to_dict()
    assert first == {
        "image_id": "T0_pseudo",
        "image": "in/T0.jpg",
        "label": "MEL",
        "weight": 0.5,
        "parent_id": "T0",
        "patient_id": "P",
        "age": 50.0,
        "view": "dermoscopic",
        "pseudo": "true",
        "pseudo_run": "it",
        "pseudo_folder": "/data",
        "pseudo_confidence": 0.95,
    }


def test_every_view_of_a_lesion_is_a_row() -> None:
    frame = predicted(lesion_id=[f"L{i}" for i in range(5)])
    rows = pseudo_rows(
        confident(frame, max_per_class=1), archive("lesion"), folder=Path("/data"), run="it"
    )
    assert sorted(rows["image"]) == ["in/T3.jpg", "in/T3c.jpg", "in/T4.jpg", "in/T4c.jpg"]
    assert rows.groupby("lesion_id")["label"].first().to_dict() == {
        "L3_pseudo": "MEL",
        "L4_pseudo": "NV",
    }
    assert not rows["image_id"].duplicated().any()


def test_images_that_are_not_there_or_elsewhere_are_named() -> None:
    chosen, images = confident(predicted()), archive()
    give = {"folder": Path("/data"), "run": "it"}
    with pytest.raises(DataError, match="1 predicted rows have no image there: T0"):
        pseudo_rows(chosen, images[images["image_id"] != "T0"], **give)
    images["image"] = "@part/" + images["image"]
    with pytest.raises(DataError, match="4 images lie in another folder than /data"):
        pseudo_rows(chosen, images, **give)
    for weight in (0.0, np.nan):
        with pytest.raises(ConfigError, match="weight: expected above 0"):
            pseudo_rows(chosen, archive(), **give, weight=weight)
