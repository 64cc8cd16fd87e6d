"""Models as text: they come back, and predict the same."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost

from isic.errors import ConfigError, DataError
from isic.stack.cross_fit import Plan, Task, cross_fit
from isic.stack.fitted import from_text
from isic.stack.importance import importance_table
from isic.stack.inputs import FoldInputs
from isic.stack.manifest import open_stack, save_stack
from isic.stack.stackers import LogisticStacker, RankAverage, make, require_package
from tests.stack.rows import features, samples

MAKERS: dict[str, Any] = {
    "lightgbm": partial(lightgbm.LGBMClassifier, n_estimators=5, n_jobs=1, verbosity=-1),
    "xgboost": partial(xgboost.XGBClassifier, n_estimators=5, n_jobs=1),
    "catboost": partial(
        catboost.CatBoostClassifier,
        iterations=5, thread_count=1, verbose=False, allow_writing_files=False,
    ),
    "logistic": LogisticStacker,
    "rank_average": RankAverage,
}  # fmt: skip
ALL = pytest.mark.parametrize("name", MAKERS)


def fit(name: str, *, classes: int = 2, **options: Any):
    rows = samples(300, classes=classes)
    source = features(rows)
    scores = ("f0", "f1") if classes == 2 else ()
    plan = Plan(scores=scores, **options)
    inputs = dict.fromkeys([*rows.folds, "all"], source)
    return cross_fit(rows, inputs, {name: MAKERS[name]}, plan), source.parts[0]


@ALL
@pytest.mark.parametrize("classes", [2, 3])
def test_a_model_read_back_predicts_the_same(name: str, classes: int) -> None:
    if name == "rank_average" and classes == 3:
        pytest.skip("its columns are of classes: below")
    result, X = fit(name, classes=classes)
    for model in result.models.values():
        again = from_text(model.kind, model.to_text(), codes=model.codes, n_classes=classes)
        assert model.kind == name
        assert np.abs(again.predict(X) - model.predict(X)).max() < 1e-12
        assert np.allclose(again.predict(X).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lightgbm", {"min_child_samples": 1000}),  # trees of one leaf
        ("lightgbm", {"linear_tree": True}),
        ("lightgbm", {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1}),
        ("xgboost", {"gamma": 3.0, "max_depth": 4}),  # nodes that were pruned
        ("xgboost", {"booster": "dart", "rate_drop": 0.5}),
        ("xgboost", {"n_estimators": 3, "num_parallel_tree": 2}),
        ("catboost", {"grow_policy": "Lossguide"}),
    ],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_texts_of_other_options_are_read(name: str, options, classes: int, monkeypatch) -> None:
    monkeypatch.setitem(MAKERS, name, partial(MAKERS[name], **options))
    result, X = fit(name, classes=classes)
    for model in result.models.values():
        again = from_text(name, model.to_text(), codes=model.codes, n_classes=classes)
        assert np.abs(again.predict(X) - model.predict(X)).max() < 1e-12


# Each of these ends the process, or keeps it for ever, in the library itself.
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("split_feature", "900000000", "split_feature: expected 0 to"),
        ("left_child", "99999999", "children: expected"),
        ("right_child", "-99999999", "children: expected"),
        ("left_child", "0", "reached twice"),
        ("num_leaves", "200000", "leaf_value: expected 200000"),
        ("num_cat", "3", "no categories"),
        ("objective", "multiclass num_class:9", "objective: expected 1 classes"),
        ("num_class", "7", "num_class: expected 1 or 2"),
    ],
)
def test_lightgbm_does_not_point_outside_its_model(key: str, value: str, said: str) -> None:
    model = next(iter(fit("lightgbm")[0].models.values()))
    first = r"[^ \n]+" if "child" in key or key == "split_feature" else r"[^\n]+"
    text = re.sub(rf"(?m)^{key}={first}", f"{key}={value}", model.to_text())
    with pytest.raises(DataError, match=said):
        from_text("lightgbm", text, codes=(0, 1), n_classes=2)
    unsized = re.sub("tree_sizes=.*", "tree_sizes=1 2 3", model.to_text())  # of no use to us
    again = from_text("lightgbm", unsized, codes=(0, 1), n_classes=2)
    X = features(samples(300)).parts[0]
    assert np.array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("left_children", 99999999, "left_children: expected -1 to"),
        ("left_children", 0, "reached twice"),
        ("split_indices", 99999999, "split_indices: expected"),
        ("tree_info", 9999999, "tree_info: expected 0 to 0"),
        ("iteration_indptr", 9999999, "iteration_indptr: expected 0 to 5"),
    ],
)
def test_xgboost_does_not_point_outside_its_model(key: str, value: int, said: str) -> None:
    plain = json.loads(next(iter(fit("xgboost")[0].models.values())).to_text())
    booster = plain["learner"]["gradient_booster"]["model"]
    (booster if key in booster else booster["trees"][0])[key][0] = value
    with pytest.raises(DataError, match=said):
        from_text("xgboost", json.dumps(plain), codes=(0, 1), n_classes=2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree["splits"][0].update(split_index=9_999_999), "split_index: expected"),
        (lambda tree: tree.update(leaf_values=[1.0]), "leaf_values: expected"),
        (lambda tree: tree.update(splits=tree["splits"] * 9), "splits: expected up to 16"),
    ],
)
def test_catboost_does_not_point_outside_its_model(change, said: str) -> None:
    plain = json.loads(next(iter(fit("catboost")[0].models.values())).to_text())
    change(plain["oblivious_trees"][0])
    with pytest.raises(DataError, match=said):
        from_text("catboost", json.dumps(plain), codes=(0, 1), n_classes=2)


@ALL
def test_rows_in_parts_are_predicted_as_all_at_once(name: str, monkeypatch) -> None:
    rows = samples(300)
    source = FoldInputs(features(rows).parts, features(rows).names, np.arange(1, 6))
    inputs = dict.fromkeys(rows.folds, source)
    result = cross_fit(rows, inputs, {name: MAKERS[name]}, Plan(scores=("f1", "f2")))
    model, some = next(iter(result.models.values())), np.arange(3, 250, 2)
    whole = model.predict(source.take(some))
    monkeypatch.setattr("isic.stack.fitted.PART", 7)
    assert np.abs(model.predict_rows(source, some) - whole).max() < 1e-12
    assert model.predict_rows(source, some[:0]).shape == (0, 2)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost"])
def test_the_best_round_is_what_is_kept(name: str) -> None:
    rows = samples(300)
    inputs = dict.fromkeys(rows.folds, features(rows))
    many = partial(MAKERS[name], **{"iterations" if name == "catboost" else "n_estimators": 200})
    result = cross_fit(rows, inputs, {name: many}, Plan(early_stopping=3))
    model = next(iter(result.models.values()))
    again = from_text(name, model.to_text(), codes=model.codes, n_classes=2)
    X = inputs[0].parts[0]
    assert np.abs(again.predict(X) - model.predict(X)).max() < 1e-12


def saved(folder: Path, name: str = "lightgbm") -> Path:
    result, _ = fit(name)
    columns = {k: [f"f{i}" for i in range(6)] for k in range(3)}
    about = {"name": "s", "classes": ["c0", "c1"], "combine": "rank_mean", "runs": []}
    save_stack(
        folder, result.models, columns=columns, states={k: {} for k in range(3)}, about=about
    )
    return folder


@ALL
def test_a_stack_read_back_predicts_what_it_predicted(tmp_path: Path, name: str) -> None:
    stack = open_stack(saved(tmp_path, name))
    rows = samples(300)
    source = features(rows)
    inputs = dict.fromkeys([*rows.folds, "all"], source)
    plan = Plan(combine="rank_mean", scores=("f0", "f1"))
    result = cross_fit(rows, inputs, {name: MAKERS[name]}, plan, test_rows=np.arange(300))
    assert result.test is not None
    assert np.abs(stack.predict(inputs, n_jobs=2) - result.test).max() < 1e-12
    assert not list(tmp_path.rglob("*.pkl"))


def test_a_model_file_that_changed_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path) / "models" / "lightgbm-fold1-seed0.txt"
    file.write_text(file.read_text().replace("leaf_value=", "leaf_value=1 "))
    with pytest.raises(DataError, match="fold1-seed0.txt changed since the stack was"):
        open_stack(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match="is gone"):
        open_stack(tmp_path)


def test_what_is_no_stack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no stack in"):
        open_stack(tmp_path)
    (tmp_path / "stack.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(DataError, match="has version 99"):
        open_stack(tmp_path)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    stack = open_stack(saved(tmp_path))
    narrow = features(samples(300), width=5)
    with pytest.raises(DataError, match="these rows lack: f5"):
        stack.predict(dict.fromkeys(range(3), narrow))


def test_an_estimator_without_a_format_predicts_and_is_not_kept() -> None:
    from sklearn.naive_bayes import GaussianNB

    rows = samples(300)
    inputs = dict.fromkeys(rows.folds, features(rows))
    inputs = {k: type(v)((np.nan_to_num(v.parts[0]),), v.names) for k, v in inputs.items()}
    result = cross_fit(rows, inputs, {"bayes": GaussianNB}, Plan())
    assert not np.isnan(result.oof).any()
    with pytest.raises(DataError, match="GaussianNB has no text format"):
        next(iter(result.models.values())).to_text()


def test_logistic_takes_the_median_for_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    X[:5, 1], X[:, 2] = np.nan, np.nan  # a column that nothing is known of
    model = LogisticStacker().fit(X, y)
    filled = X.copy()
    filled[:5, 1] = np.median(X[5:, 1])
    assert np.array_equal(model.predict_proba(X), model.predict_proba(filled))
    assert np.isfinite(model.predict_proba(np.full((1, 3), np.inf, np.float32))).all()


def test_logistic_is_scikit_learns_on_its_standardised_columns() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)).astype(np.float32)
    y = np.digitize(X[:, 0] + rng.normal(size=300), [-0.5, 0.5])
    scaled = StandardScaler().fit_transform(X.astype(np.float64))
    theirs = LogisticRegression(C=0.1, max_iter=1000).fit(scaled, y).predict_proba(scaled)
    assert np.abs(LogisticStacker().fit(X, y).predict_proba(X) - theirs).max() < 1e-9


def test_rank_average_is_the_mean_rank_of_the_runs() -> None:
    from scipy.stats import rankdata

    rng = np.random.default_rng(0)
    X = rng.random((50, 4)).astype(np.float32)
    names = ("age", "score_a", "score_b", "score_a_ratio")
    model = make(
        RankAverage, seed=0, columns=names, scores=("score_a", "score_b"), classes=("b", "m")
    )
    wanted = (rankdata(X[:, 1]) + rankdata(X[:, 2]) - 1) / 2 / 50
    assert np.allclose(model.predict_proba(X)[:, 1], wanted)


def test_rank_average_by_class_and_without_scores() -> None:
    names = ("score_a_mel", "score_a_bcc", "score_b_mel", "score_b_bcc", "score_a_nv", "score_b_nv")
    classes = ("mel", "bcc", "nv")
    of = ("mel", "bcc", "mel", "bcc", "nv", "nv")
    known = {"columns": names, "scores": names, "score_classes": of, "classes": classes}
    assert make(RankAverage, seed=0, **known).positions == [[0, 2], [1, 3], [4, 5]]
    known["score_classes"] = ("nv", "bcc", "nv", "bcc", "mel", "mel")  # no name says which
    assert make(RankAverage, seed=0, **known).positions == [[4, 5], [1, 3], [0, 2]]
    with pytest.raises(ConfigError, match="averages the scores of image runs, and there are none"):
        make(RankAverage, seed=0, columns=("age",), scores=(), classes=("b", "m"))


def test_a_booster_that_is_not_installed_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'isic\[boosters\]'"):
        require_package("xgboost", "xgboost.XGBClassifier")


@ALL
def test_importance_finds_the_feature_that_says_something(name: str) -> None:
    result, X = fit(name)
    columns = [f"f{i}" for i in range(6)]
    table = importance_table((model, columns, X[:60]) for model in result.models.values())
    assert table["models"].tolist() == [3] * 6
    if name != "rank_average":
        assert table["feature"].iat[0] == "f0"
        assert table["gain"].sum() == pytest.approx(1)
        assert table["gain"].idxmax() == 0


def test_shap_of_lightgbm_adds_up_to_its_log_odds() -> None:
    result, X = fit("lightgbm")
    model = result.models[Task("lightgbm", 0, 0)]
    contributions = model.model.predict(X, pred_contrib=True)
    odds = np.log(model.predict(X)[:, 1] / model.predict(X)[:, 0])
    assert np.allclose(contributions.sum(axis=1), odds)
    table = importance_table([(model, [f"f{i}" for i in range(6)], X)]).set_index("feature")
    assert table.loc["f3", "shap"] == pytest.approx(np.abs(contributions[:, 3]).mean(), rel=1e-9)
