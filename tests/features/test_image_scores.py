"""Out-of-fold scores beside samples: joined by id, all or an error that names the rows."""

import logging

import numpy as np
import pandas as pd
import pytest

from isic.errors import DataError
from isic.features.image_scores import ImageScores, with_scores


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
    with pytest.raises(DataError, match=r"score_a_b is there already; rename run a\.b"):
        with_scores(samples, {"a-b": one, "a.b": one})
