"""Selection keeps what tells the classes apart and agrees with scikit-learn."""

from functools import partial

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.feature_selection import chi2 as sklearn_chi2
from sklearn.feature_selection import f_classif, mutual_info_classif

from isic.errors import DataError
from isic.features.relevance import anova_f, chi2, mutual_information
from isic.features.selection import (
    NullImportance,
    PermutationSelection,
    StatisticalSelection,
)
from isic.metrics.classification import macro_auc, roc_auc

NAMES = ("noise0", "signal", "constant", "noise1", "weak", "empty", "noise2")
small = partial(LGBMClassifier, n_estimators=15, num_leaves=7, n_jobs=1, verbosity=-1)
gain = partial(small, importance_type="gain")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    target = (rng.random(600) < 0.2).astype(np.int64)
    values = rng.normal(size=(600, len(NAMES))).astype(np.float32)
    values[:, 1] += 2 * target
    values[:, 4] += 0.8 * target
    values[:, 2], values[:, 5] = 3.0, np.nan
    values[rng.random(600) < 0.1, 0] = np.nan
    return values, target, np.repeat(np.arange(60), 10)


def test_tests_agree_with_scikit_learn(data):
    values, target, _ = data
    for classes in (target, np.arange(600) % 3):
        x = values[:, [1, 3, 4, 6]]
        np.testing.assert_allclose(anova_f(x, classes), f_classif(x, classes)[0], rtol=1e-4)
        low, high = x.min(axis=0), x.max(axis=0)
        wanted = sklearn_chi2((x - low) / (high - low), classes)[0]
        np.testing.assert_allclose(chi2(x, classes), wanted, rtol=1e-3)
    near = mutual_info_classif(x, target, random_state=0)
    ours = mutual_information(x, target)
    assert np.argsort(-ours)[:2].tolist() == np.argsort(-near)[:2].tolist() == [0, 2]
    assert ours[0] == pytest.approx(near[0], abs=0.06)


def test_mutual_information_of_the_class_itself_is_its_entropy(data):
    target = data[1]
    share = np.bincount(target) / len(target)
    itself = np.stack([target, -target, np.zeros(600)], axis=1).astype(np.float32)
    entropy = -(share * np.log(share)).sum()
    np.testing.assert_allclose(mutual_information(itself, target), [entropy, entropy, 0], atol=1e-9)


@pytest.mark.parametrize(
    "selector",
    [
        StatisticalSelection(keep=2),
        PermutationSelection(small, roc_auc, least=0.005),
        NullImportance(gain, shuffles=8, quantile=1.0),
    ],
    ids=lambda s: type(s).__name__,
)
def test_what_tells_the_classes_apart_is_kept(data, selector):
    values, target, groups = data
    before = values.copy()
    found = selector.fit(values, NAMES, target, groups)
    assert {"signal", "weak"} <= set(found.kept)
    assert not {"constant", "empty"} & set(found.kept)
    assert len(found.kept) <= 3
    assert list(found.kept) == [n for n in NAMES if n in found.kept]
    assert max(found.scores, key=lambda n: found.scores[n]) == "signal"
    assert found == selector.fit(values, NAMES, target, groups)
    np.testing.assert_array_equal(values, before)


def test_permutation_knows_many_classes_and_one_that_an_inner_fold_lacks(data):
    values, binary, groups = data
    target = np.where(binary == 1, 1, np.where(values[:, 3] > 1, 2, 0))
    target[groups == 7] = 3  # of one patient: held out once, and then never trained on
    chosen = PermutationSelection(small, macro_auc, least=0.005)
    assert {"signal", "noise1"} <= set(chosen.fit(values, NAMES, target, groups).kept)
    lonely = (groups == 7).astype(np.int64)  # no inner fold has both classes on both sides
    with pytest.raises(DataError, match="selection: no inner fold"):
        chosen.fit(values, NAMES, lonely, groups)


def test_shuffled_labels_keep_little(data):
    values, target, groups = data
    shuffled = np.random.default_rng(5).permutation(target)
    try:
        kept = PermutationSelection(small, roc_auc, least=0.02).fit(values, NAMES, shuffled, groups)
    except DataError as nothing:
        assert "tells the classes apart" in str(nothing)
    else:
        assert len(kept.kept) <= 1


def test_bad_input_is_named(data):
    values, target, _ = data
    with pytest.raises(DataError, match="expected 600 rows and 2 names"):
        StatisticalSelection().fit(values, NAMES[:2], target)
    with pytest.raises(DataError, match="two classes"):
        StatisticalSelection().fit(values, NAMES, np.zeros(600, np.int64))
    with pytest.raises(DataError, match="none of 2 features"):
        StatisticalSelection().fit(values[:, [2, 5]], ("constant", "empty"), target)


def test_a_feature_that_tells_the_classes_apart_is_kept() -> None:
    rng = np.random.default_rng(0)
    target = np.arange(60) % 2
    values = np.column_stack([rng.normal(size=60) + 0.3 * target, target]).astype(np.float32)
    chosen = StatisticalSelection(keep=1).fit(values, ("weak", "perfect"), target)
    assert chosen.kept == ("perfect",)
