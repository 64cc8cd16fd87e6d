"""What may be chosen, and which rows train."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError
from isic.split.options import SplitOptions, training_mask

TABLE = pd.DataFrame(
    {
        "image_id": list("abcdefgh"),
        "group": ["P", "P", "Q", "R", "R", "S", "T", "U"],
        "fold": [0, -2, 1, 2, -1, -2, 2, -3],
    }
)


@pytest.mark.parametrize(
    ("fold", "trains"),
    [(0, "cdfg"), (1, "abdfg"), (2, "abcf"), ("all", "abcdfg")],
)
def test_who_trains(fold: int | str, trains: str) -> None:
    mask = training_mask(TABLE, fold)
    assert mask.dtype == np.bool_
    assert "".join(TABLE["image_id"][mask]) == trains


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_who_trains_never_validates_nor_shares_a_group_with_who_does(fold: int) -> None:
    validating = TABLE["fold"] == fold
    mask = training_mask(TABLE, fold)
    assert not (mask & validating).any()
    assert not set(TABLE["group"][mask]) & set(TABLE["group"][validating])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "random"}, "split.method: expected grouped, hospital, given, got 'random'"),
        ({"holdout": 1.0}, r"split.holdout: expected a share in \[0, 1\), got 1.0"),
        ({"holdout": -0.1}, "split.holdout"),
        ({"method": "given"}, "split.file: expected a CSV"),
        ({"n_folds": 1}, "n_folds must be 2 or more, got 1"),
        ({"n_folds": None}, "n_folds must be 2 or more, got None"),
        ({"file": "a.csv", "holdout": 0.1}, "expected 0 with split.file, got 0.1"),
        ({"columns": {"fold": "k"}}, "names the columns of split.file, got no file"),
        ({"file": "a.csv", "columns": {"id": "k"}}, "image_id, group, fold, got id"),
    ],
)
def test_what_is_no_choice(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SplitOptions(**options)


def test_hospitals_need_no_number_of_folds() -> None:
    assert SplitOptions(method="hospital", n_folds=None).n_folds is None
