"""Cross-fitting: the same as a loop written by hand, however many fits run at once."""

from functools import partial
from typing import Any

import lightgbm
import numpy as np
import pytest

from isic.errors import ConfigError, DataError, IsicError
from isic.stack.combine import ranked
from isic.stack.cross_fit import Plan, Task, add_noise, cross_fit, fit_one
from isic.stack.early import inner_fold
from isic.stack.inputs import FoldInputs, Samples
from isic.stack.resample import Resample
from isic.stack.stackers import LogisticStacker
from tests.stack.rows import features, samples

TREES = partial(
    lightgbm.LGBMClassifier,
    n_estimators=20,
    n_jobs=1,
    verbosity=-1,
    min_child_samples=5,
    subsample=0.7,
    subsample_freq=1,
    deterministic=True,
)


class Spy:
    """Keeps what it was fitted on; its probabilities are those of the training rows."""

    seen: list[tuple[np.ndarray, np.ndarray]]

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> "Spy":
        self.seen.append((X.copy(), y.copy()))
        self.share = np.bincount(y) / len(y)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.tile(self.share, (len(X), 1))


def each_fold(rows: Samples, source: FoldInputs) -> dict[int | str, FoldInputs]:
    return dict.fromkeys([*rows.folds, "all"], source)


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_agrees_with_a_loop_written_by_hand(classes: int) -> None:
    rows = samples(classes=classes)
    source = features(rows)
    plan = Plan(seeds=(0, 5), resample=Resample(0.2, 0.5))
    got = cross_fit(rows, each_fold(rows, source), {"trees": TREES}, plan)

    X, y, fold = source.parts[0], rows.target, rows.table["fold"].to_numpy()
    wanted = np.zeros((len(y), classes))
    for k in range(3):
        for seed in (0, 5):
            training = np.flatnonzero(fold != k)
            drawn = plan.resample.rows(y[training], np.random.default_rng([seed, k]))
            model = TREES(random_state=seed).fit(X[training][drawn], y[training][drawn])
            wanted[fold == k] += model.predict_proba(X[fold == k]) / 2
    assert np.abs(got.oof - wanted).max() < 1e-9


def test_fits_side_by_side_are_bit_equal_to_one_after_another() -> None:
    rows = samples()
    inputs = each_fold(rows, features(rows))
    makers = {"trees": TREES, "logistic": LogisticStacker}
    results = [
        cross_fit(
            *(rows, inputs, makers),
            Plan(seeds=(0, 1), noise=0.1, noisy=frozenset({"f0"}), n_jobs=jobs, combine=combine),
            test_rows=np.arange(50),
        )
        for combine in ("mean", "rank_mean")
        for jobs in (1, 4)
    ]
    for one, four in (results[:2], results[2:]):
        assert np.array_equal(one.oof, four.oof)
        assert one.test is not None and four.test is not None
        assert np.array_equal(one.test, four.test)
        assert [m.to_text() for m in one.models.values()] == [
            m.to_text() for m in four.models.values()
        ]


def test_rank_means_are_ranks_of_each_seed_over_all_rows() -> None:
    rows = samples()
    inputs = each_fold(rows, features(rows))
    seeds = [cross_fit(rows, inputs, {"trees": TREES}, Plan(seeds=(seed,))).oof for seed in (0, 1)]
    both = cross_fit(rows, inputs, {"trees": TREES}, Plan(seeds=(0, 1), combine="rank_mean"))
    assert np.allclose(both.oof, (ranked(seeds[0]) + ranked(seeds[1])) / 2, atol=1e-12)
    assert np.allclose(both.by_seed[1], ranked(seeds[1]), atol=1e-12)


def test_rows_are_drawn_inside_the_training_fold_only() -> None:
    rows = samples()
    source = FoldInputs((np.arange(len(rows.target), dtype=np.float32)[:, None],), ("row",))
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    plan = Plan(resample=Resample(0.5, 0.6))
    got = cross_fit(rows, each_fold(rows, source), {"spy": lambda: Spy(seen)}, plan)
    fold = rows.table["fold"].to_numpy()
    for k, (matrix, code) in enumerate(seen):
        used = matrix[:, 0].astype(int)
        assert (fold[used] != k).all()
        assert np.array_equal(rows.target[used], code)
        assert len(used) > len(set(used.tolist()))  # some were drawn twice
    assert not np.isnan(got.oof).any()  # every held-out row is predicted, once


def test_who_trains() -> None:
    """Unlabelled rows, rows that may not, and rows whose group is held out do not."""
    rows = samples(120)
    rows.target[:8] = -1
    rows.table.loc[8:11, "fold"] = -2  # rows of groups 2, 3: train everywhere ...
    rows.table.loc[8:11, "group"] = rows.table["group"].iat[12]  # ... but of a group of fold 0
    trains = np.ones(120, dtype=bool)
    trains[20:24] = False
    held = Samples(rows.table, rows.target, rows.classes, trains)
    assert held.folds == [0, 1, 2]
    assert not set(range(8)) & set(held.training(1).tolist())
    assert not set(range(20, 24)) & set(held.training("all").tolist())
    assert not set(range(8, 12)) & set(held.training(0).tolist())
    assert set(range(8, 12)) <= set(held.training(1).tolist())
    assert set(range(8, 12)) <= set(held.training("all").tolist())


def test_a_row_that_no_fold_holds_out_is_not_predicted() -> None:
    rows = samples(120)
    rows.table.loc[0:3, "fold"] = -2
    got = cross_fit(rows, each_fold(rows, features(rows)), {"l": LogisticStacker}, Plan())
    assert np.isnan(got.oof[:4]).all() and not np.isnan(got.oof[4:]).any()


def test_a_training_fold_without_positives_is_named() -> None:
    rows = samples(120)
    rows.target[rows.table["fold"].to_numpy() != 2] = 0
    with pytest.raises(DataError, match="fold 2: its training rows are all of c0"):
        cross_fit(rows, each_fold(rows, features(rows)), {"l": LogisticStacker}, Plan())


def test_a_class_that_a_training_fold_lacks_gets_nothing() -> None:
    rows = samples(240, classes=3)
    fold = rows.table["fold"].to_numpy()
    rows.target[(rows.target == 1) & (fold != 0)] = 0
    rows.target[np.flatnonzero(fold == 0)[0]] = 1
    got = cross_fit(rows, each_fold(rows, features(rows)), {"trees": TREES}, Plan())
    assert (got.oof[fold == 0, 1] == 0).all()
    assert np.allclose(got.oof.sum(axis=1), 1)


def test_features_of_a_fold_are_its_own() -> None:
    """A column that its fold's training rows made stands beside the shared ones."""
    rows = samples()
    shared = features(rows, width=2).parts[0]
    inputs: dict[int | str, FoldInputs] = {
        k: FoldInputs(
            (shared, np.full((len(shared), 1), k, np.float32)),
            ("a", "b", "fold_number"),
            np.array([0, 2]),
        )
        for k in rows.folds
    }
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    cross_fit(rows, inputs, {"spy": lambda: Spy(seen)}, Plan())
    assert [set(m[:, 1].tolist()) for m, _ in seen] == [{0.0}, {1.0}, {2.0}]
    assert inputs[0].columns == ("a", "fold_number")


def test_refit_predicts_test_rows_by_the_models_of_every_row() -> None:
    rows = samples()
    inputs = each_fold(rows, features(rows))
    got = cross_fit(rows, inputs, {"trees": TREES}, Plan(), test_rows=np.arange(9), refit=True)
    model = fit_one(Task("trees", "all", 0), inputs["all"], rows, TREES, Plan())
    assert got.test is not None
    assert np.array_equal(got.test, model.predict(inputs["all"].parts[0][:9]))
    assert [task.fold for task in got.models] == [0, 1, 2, "all"]


def test_noise_is_added_to_the_scores_alone_and_in_units_of_each() -> None:
    wide = np.random.default_rng(0).normal(size=(5000, 2)) * [1.0, 10.0]
    matrix = wide.astype(np.float32)
    before = matrix.copy()
    plan = Plan(noise=0.1, noisy=frozenset({"score"}))
    add_noise(matrix, ("age", "score"), plan, np.random.default_rng(1))
    assert np.array_equal(matrix[:, 0], before[:, 0])
    assert (matrix - before)[:, 1].std() == pytest.approx(1.0, rel=0.05)


def test_early_stopping_looks_at_groups_of_the_training_fold() -> None:
    rows = samples()
    inputs = each_fold(rows, features(rows))
    many = partial(TREES, n_estimators=300, learning_rate=0.3)
    got = cross_fit(rows, inputs, {"trees": many}, Plan(early_stopping=5))
    trees = [model.model.num_trees() for model in got.models.values()]
    assert all(0 < n < 300 for n in trees)
    group = rows.table["group"].to_numpy()[rows.training(0)]
    aside = inner_fold(group, rows.target[rows.training(0)], seed=0)
    assert not set(group[aside]) & set(group[~aside])
    assert 0.1 < aside.mean() < 0.3


def test_early_stopping_is_not_misled_by_rows_drawn_anew_and_weights() -> None:
    """The log-loss of rows as they are is best at the first tree: every probability is shifted."""
    rows = samples(6000)
    inputs = each_fold(rows, features(rows))
    heavy = partial(TREES, n_estimators=200, learning_rate=0.02, scale_pos_weight=3.0)
    plan = Plan(early_stopping=20, resample=Resample(0.3, 0.9))
    got = cross_fit(rows, inputs, {"trees": heavy}, plan)
    assert all(model.model.current_iteration() > 10 for model in got.models.values())


def test_early_stopping_with_nothing_to_judge_by_is_refused() -> None:
    rows = samples(12, folds=3)
    rows = Samples(rows.table, np.arange(12) % 2, rows.classes)
    with pytest.raises(DataError, match="early_stopping: a fifth of the training groups holds"):
        cross_fit(rows, each_fold(rows, features(rows)), {"trees": TREES}, Plan(early_stopping=5))


def test_early_stopping_without_rounds_is_refused() -> None:
    rows = samples()
    with pytest.raises(ConfigError, match="LogisticStacker has no rounds to stop"):
        cross_fit(
            rows, each_fold(rows, features(rows)), {"l": LogisticStacker}, Plan(early_stopping=5)
        )


def test_a_parameter_that_the_library_refuses_is_named() -> None:
    rows = samples(60)
    odd = partial(TREES, num_leaves=1)
    with pytest.raises(IsicError, match="stacker=trees cannot be fitted on fold 0: .*num_leaves"):
        cross_fit(rows, each_fold(rows, features(rows)), {"trees": odd}, Plan())
