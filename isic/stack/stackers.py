"""The estimators of conf/stacker: how each is made, and two that are our own.

A stacker is anything with `fit(X, y, sample_weight)` and `predict_proba(X)`; X is float32 (N, F)
with NaN where a value is missing, y counts the classes of the training fold from 0.
Trap: an estimator with more threads than one slows the fits beside it; the yamls say one.
"""

import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Maker = Callable[..., Any]
"""An unfitted estimator; given `random_state` and what `make` knows where it asks for them."""

EXTRAS = {"xgboost": "boosters", "catboost": "boosters"}


def require_package(name: str, target: str) -> None:
    """Raise ConfigError where the package of a stacker's `_target_` is not installed."""
    package = target.partition(".")[0]
    if package in EXTRAS and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"stacker={name} needs the package {package}: pip install 'isic[{EXTRAS[package]}]', "
            "or take stacker=lightgbm"
        )


def rank_stackers(nodes: Mapping[str, Any]) -> list[str]:
    """Those of conf/stacker's nodes whose numbers are ranks."""
    return [name for name, node in nodes.items() if node["_target_"].endswith(".RankAverage")]


def make(maker: Maker, *, seed: int, **known: Sequence[str]) -> Any:
    """An unfitted estimator for one fit.

    known: `columns` of X, which of them are `scores`, of which classes (`score_classes`), and
        `classes` of y, for those that ask.
    """
    parameters = inspect.signature(maker).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given: dict[str, Any] = {k: tuple(v) for k, v in known.items() if k in parameters}
    if "random_state" in parameters or open_ended:
        given["random_state"] = seed
    return maker(**given)


class LogisticStacker:
    """Logistic regression on standardised features; a missing value is the column's median.

    Written as JSON: medians, means, deviations, coefficients.

    C: Inverse strength of the L2 penalty.
    """

    def __init__(self, C: float = 0.1, max_iter: int = 1000, class_weight: Any = None) -> None:
        self.C, self.max_iter, self.class_weight = C, max_iter, class_weight
        self.state: dict[str, Floats] = {}

    def fit(self, X: Matrix, y: npt.NDArray[np.int64], sample_weight: Any = None) -> Any:
        """Fit scaler and regression on the rows given."""
        from sklearn.linear_model import LogisticRegression

        values = X.astype(np.float64)
        values[~np.isfinite(values)] = np.nan
        median = _medians(values)
        values = np.where(np.isnan(values), median, values)
        scale = values.std(axis=0)
        self.state = {
            "median": median,
            "mean": values.mean(axis=0),
            "scale": np.where(scale > 0, scale, 1.0),
        }
        model = LogisticRegression(C=self.C, max_iter=self.max_iter, class_weight=self.class_weight)
        model.fit(self.standardised(X), y, sample_weight=sample_weight)
        self.state |= {"coef": model.coef_, "intercept": model.intercept_}
        return self

    def standardised(self, X: Matrix) -> Floats:
        """X as the regression sees it, (N, F)."""
        values = X.astype(np.float64)
        values = np.where(np.isfinite(values), values, self.state["median"])
        scaled: Floats = (values - self.state["mean"]) / self.state["scale"]
        return scaled

    def predict_proba(self, X: Matrix) -> Floats:
        """(N, K): K the classes that it was fitted on."""
        logits = self.standardised(X) @ self.state["coef"].T + self.state["intercept"]
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs: Floats = exp / exp.sum(axis=1, keepdims=True)
        return probs

    def to_dict(self) -> dict[str, Any]:
        """Plain lists; Python writes a float64 so that it reads back the same."""
        return {key: value.tolist() for key, value in self.state.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "LogisticStacker":
        """The inverse of `to_dict`."""
        made = cls()
        made.state = {key: np.asarray(value, dtype=np.float64) for key, value in plain.items()}
        return made


class RankAverage:
    """Mean rank of the image runs' own scores: nothing is learned, so nothing can be overfitted.

    An ablation of 2026 on ISIC 2024 found it above every learned stacker of one image model.
    Ranks are within the rows that are predicted together.

    columns: Names of X's columns.
    scores: Those of them that are plain scores of a run.
    score_classes: The class that each of `scores` is a probability of; of two classes it may be
        left out, since all are of the last one.
    classes: In the order of y.
    """

    def __init__(
        self,
        columns: Sequence[str] = (),
        scores: Sequence[str] = (),
        score_classes: Sequence[str] = (),
        classes: Sequence[str] = (),
    ) -> None:
        wanted = list(classes)[-1:] if len(classes) == 2 else list(classes)
        if len(wanted) == 1 and not score_classes:
            score_classes = wanted * len(scores)
        label = dict(zip(scores, score_classes, strict=True))
        self.positions = [
            [i for i, name in enumerate(columns) if label.get(name) == one] for one in wanted
        ]
        if classes and not all(self.positions):
            raise ConfigError(
                "stacker=rank_average averages the scores of image runs, and there are none among "
                "the features: give runs=[NAME], and features that hold image_scores"
            )

    def fit(self, X: Matrix, y: npt.NDArray[np.int64], sample_weight: Any = None) -> Any:
        """Nothing to learn."""
        return self

    def predict_proba(self, X: Matrix) -> Floats:
        """Mean ranks in (0, 1), (N, C); a row without a score is in the middle."""
        from scipy.stats import rankdata

        columns = []
        for positions in self.positions:
            scores = X[:, positions].astype(np.float64)
            filled = np.where(np.isnan(scores), _medians(scores), scores)
            columns.append(((rankdata(filled, axis=0) - 0.5) / len(X)).mean(axis=1))
        if len(columns) == 1:
            columns = [1.0 - columns[0], columns[0]]
        return np.column_stack(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists."""
        return {"positions": self.positions}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "RankAverage":
        """The inverse of `to_dict`."""
        made = cls()
        made.positions = [list(p) for p in plain["positions"]]
        return made


OWN: dict[str, Any] = {"logistic": LogisticStacker, "rank_average": RankAverage}


def _medians(scores: Floats) -> Floats:
    """Of each column, (F,); 0 where nothing is known."""
    known = np.isfinite(scores).any(axis=0)
    medians = np.zeros(scores.shape[1])
    medians[known] = np.nanmedian(scores[:, known], axis=0)
    return medians


def refuse_one_class(y: npt.NDArray[np.int64], classes: Sequence[str], *, fold: object) -> None:
    """Raise DataError where a training fold has one class only."""
    present = np.unique(y)
    if len(present) < 2:
        named = ", ".join(classes[c] for c in present) or "no labelled row"
        raise DataError(
            f"fold {fold}: its training rows are all of {named}; a stacker needs two classes or "
            "more. Take fewer folds, or a stratified split (folds=grouped)."
        )
