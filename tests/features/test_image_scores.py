"""Out-of-fold scores beside samples: joined by id, all or an error that names the rows."""

import logging
import re

import numpy as np
import pandas as pd
import pytest

from isic.errors import DataError
from isic.features.image_scores import (
    ImageScores,
    input_status,
    score_columns,
    shared_scores,
    with_scores,
)


@pytest.fixture
def samples(train):
    return train.drop(columns="score_net")


def table(samples, classes=("benign", "malignant"), seed=0):
    """A predictions table in another order than the samples."""
    probs = np.random.default_rng(seed).dirichlet(np.ones(len(classes)), len(samples))
    frame = pd.DataFrame(probs, columns=[f"prob_{c}" for c in classes])
    frame.insert(0, "image_id", samples["image_id"].to_numpy())
    return frame.sample(frac=1.0, random_state=seed).reset_index(drop=True)


def test_a_binary_run_gives_the_probability_of_its_last_class(samples):
    one, other = table(samples), table(samples, seed=1)
    rows = with_scores(samples, {"isic2024-net.a": one, "b": other})
    assert list(rows.columns[-2:]) == ["score_isic2024_net_a", "score_b"]
    wanted = one.set_index("image_id")["prob_malignant"]
    np.testing.assert_array_equal(rows["score_isic2024_net_a"], wanted[rows["image_id"]])
    frame = ImageScores().transform(rows, {})
    assert list(frame.columns) == ["score_isic2024_net_a", "score_b"]
    np.testing.assert_array_equal(frame["score_b"], rows["score_b"].astype(np.float32))
    assert "score_b" not in samples


def test_a_run_of_several_classes_gives_a_column_each(samples):
    rows = with_scores(samples, {"m": table(samples, ("MEL", "NV", "MAL_OTH"))})
    assert [c for c in rows if c.startswith("score_")] == [
        *("score_m_MEL", "score_m_NV", "score_m_MAL_OTH")
    ]


def test_gaps_are_refused_unless_they_are_expected(samples, caplog):
    part = table(samples.iloc[10:])
    with pytest.raises(DataError, match=r"no score for 10 samples: .* and 5 more"):
        with_scores(samples, {"a": part})
    with caplog.at_level(logging.INFO):
        rows = with_scores(samples, {"a": part}, required=np.arange(len(samples)) >= 10)
    assert rows["score_a"].isna().sum() == 10
    assert "no score for 10 samples" in caplog.text


def test_other_faults_are_named(samples):
    one = table(samples)
    with pytest.raises(DataError, match="predicts 3 rows twice"):
        with_scores(samples, {"a": pd.concat([one, one.iloc[:3]])})
    with pytest.raises(DataError, match="none of the 400 samples.*another archive"):
        with_scores(samples, {"a": one.assign(image_id="x" + one["image_id"])})
    with pytest.raises(DataError, match=r"has a column score_a_b, which is .* scores of run a\.b"):
        with_scores(samples.assign(score_a_b=0.1), {"a.b": one})


def test_no_two_scores_share_a_column(samples):
    """Classes that differ in punctuation, in case, in another script; runs alike; all at once."""
    names = (
        "MEL+",
        "MEL-",
        "mel",
        "黑素瘤",
        "色素痣",
        "c,d",
        'c"d',
        "c\nd",
        "UNK",
        "_",
        "b_c",
        "c",
    )
    runs = {"a-b": names, "a.b": names, "a": names, "a_b": names}
    made = score_columns(runs)
    assert len(made) == 4 * len(names)
    assert [tuple(column) for column in made.values()] == [(r, c) for r in runs for c in names]
    assert all(re.fullmatch(r"score_[A-Za-z0-9_]+", name) for name in made)
    frames = {run: table(samples, names, seed=i) for i, run in enumerate(runs)}
    rows = with_scores(samples, frames)
    for name, (run, label) in made.items():
        wanted = frames[run].set_index("image_id")[f"prob_{label}"][rows["image_id"]]
        np.testing.assert_array_equal(rows[name], wanted)
    features = ImageScores().transform(rows, {})
    assert features.shape[1] == 4 * len(names)
    two = score_columns({"r+": ("a", "b"), "r-": ("a", "b")})
    assert len(two) == 2 and {c.run for c in two.values()} == {"r+", "r-"}


def test_names_that_are_apart_stay_what_earlier_releases_called_them():
    made = score_columns({"isic2024-net.a": ("blue nevus", "MAL_OTH", "NV"), "b": ("x", "y")})
    assert list(made) == [
        *("score_isic2024_net_a_blue_nevus", "score_isic2024_net_a_MAL_OTH"),
        *("score_isic2024_net_a_NV", "score_b"),
    ]
    shared = score_columns({"r": ("MEL+", "MEL-", "NV")})
    assert shared["score_r_MEL_"].class_name == "MEL-"  # the one that was left of the two
    assert shared_scores(("MEL+", "MEL-", "NV")) == ["MEL+", "MEL-"]
    assert shared_scores(("MEL", "NV")) == []


def test_the_status_is_the_best_that_a_run_gives(samples):
    one, other = table(samples).assign(status="ok"), table(samples, seed=1).assign(status="ok")
    ids = samples["image_id"]
    for frame, status in ((one, "unreadable"), (other, "missing")):
        frame.loc[frame["image_id"].isin(ids[:4]), "status"] = status
    one.loc[one["image_id"].isin(ids[4:6]), "status"] = "missing"
    assert input_status(ids, {"a": one, "b": other})[:6].tolist() == ["unreadable"] * 4 + ["ok"] * 2
    assert input_status(ids, {"b": other})[:5].tolist() == ["missing"] * 4 + ["ok"]
