"""Averages over models: order, weights, unreadable rows, ranks."""

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.metrics import roc_auc
from isic.predictions import ensemble
from isic.predictions.table import probabilities


def model(seed: int, n: int = 40, *, fold: int | None = 0) -> pd.DataFrame:
    malignant = np.random.default_rng(seed).random(n)
    frame = pd.DataFrame(
        {
            "image_id": [f"ISIC_{i}" for i in range(n)],
            "lesion_id": None,
            "fold": fold,
            "split": "train",
            "status": "ok",
            "prob_benign": 1 - malignant,
            "prob_malignant": malignant,
        }
    )
    frame.attrs = {"run": f"run{seed}", "split_hash": "s", "index_hash": str(seed)}
    return frame


def test_mean_joins_by_id() -> None:
    a, b = model(0), model(1)
    shuffled = b.sample(frac=1, random_state=0)
    joined = ensemble([a, shuffled])
    assert joined["image_id"].tolist() == a["image_id"].tolist()
    np.testing.assert_allclose(probabilities(joined), (probabilities(a) + probabilities(b)) / 2)
    assert joined.attrs == {"run": "run0, run1", "split_hash": "s", "index_hash": None}
    assert joined["fold"].tolist() == [0] * 40


def test_weights_count() -> None:
    a, b = model(0), model(1)
    expected = 0.75 * probabilities(a) + 0.25 * probabilities(b)
    np.testing.assert_allclose(probabilities(ensemble([a, b], weights=[3, 1])), expected)


def test_rank_mean_ignores_how_scores_are_spread() -> None:
    a, b = model(0), model(1)
    squeezed = b.copy()
    squeezed["prob_malignant"] = b["prob_malignant"] ** 9
    squeezed["prob_benign"] = 1 - squeezed["prob_malignant"]
    plain, other = (ensemble([a, x], method="rank_mean") for x in (b, squeezed))
    np.testing.assert_allclose(probabilities(plain), probabilities(other))
    np.testing.assert_allclose(probabilities(plain).sum(axis=1), 1.0)
    assert ((probabilities(plain) > 0) & (probabilities(plain) < 1)).all()


@pytest.mark.parametrize("method", ["mean", "rank_mean"])
def test_one_model_keeps_its_order(method: str) -> None:
    a, target = model(3), np.arange(40) % 2
    joined = ensemble([a], method=method)
    assert roc_auc(target, probabilities(joined)) == roc_auc(target, probabilities(a))


@pytest.mark.parametrize("method", ["mean", "rank_mean"])
def test_a_row_is_unreadable_only_where_no_model_read_it(method: str) -> None:
    a, b = model(0), model(1)
    columns = ["status", "prob_benign", "prob_malignant"]
    a.loc[[2, 3], columns] = ["unreadable", np.nan, np.nan]
    b.loc[3, columns] = ["unreadable", np.nan, np.nan]
    joined = ensemble([a, b], method=method)
    assert joined.index[joined["status"] == "unreadable"].tolist() == [3]
    assert np.isnan(probabilities(joined)[3]).all()
    assert not np.isnan(np.delete(probabilities(joined), 3, axis=0)).any()
    if method == "mean":
        np.testing.assert_allclose(probabilities(joined)[2], probabilities(b)[2])


def test_folds_stay_where_all_agree() -> None:
    assert ensemble([model(0, fold=1), model(1, fold=2)])["fold"].isna().all()
    assert ensemble([model(0, fold=None), model(1, fold=None)])["fold"].isna().all()


def test_other_images_and_classes_are_refused() -> None:
    with pytest.raises(DataError, match="differ in 2 images: ISIC_38, ISIC_39"):
        ensemble([model(0), model(1).iloc[:38]])
    with pytest.raises(DataError, match="table 2 has classes"):
        ensemble([model(0), model(1).rename(columns={"prob_malignant": "prob_melanoma"})])


@pytest.mark.parametrize(
    ("frames", "options", "said"),
    [
        ([], {}, "one predictions table or more"),
        ([model(0)], {"method": "median"}, "one of"),
        ([model(0)], {"weights": [1, 2]}, "expected 1 positive weights"),
        ([model(0), model(1)], {"weights": [1, -1]}, "expected 2 positive weights"),
    ],
)
def test_malformed_requests_are_named(frames, options, said) -> None:
    with pytest.raises(ConfigError, match=said):
        ensemble(frames, **options)
