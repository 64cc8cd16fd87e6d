"""A fitted stacker: how it predicts, and how it becomes native text and comes back.

LightGBM's model.txt, XGBoost's and CatBoost's JSON, JSON of our own for the stackers of this
package: text that other tools read, that shows what it holds, and that runs no code when opened.
Read back, a model predicts the same to 1e-12. Other estimators predict, but cannot be kept.
Trap: a training fold may lack a rare class; `codes` says which classes a model's columns are.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isic.errors import DataError
from isic.stack.inputs import FoldInputs
from isic.stack.model_text import check_catboost, check_xgboost, plain_lightgbm
from isic.stack.stackers import OWN

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]

SUFFIX = {
    "lightgbm": ".txt",
    "xgboost": ".json",
    "catboost": ".json",
    **dict.fromkeys(OWN, ".json"),
}


TOGETHER = ("rank_average", "")  # kinds whose answer for a row may depend on the others given
PART = 65_536  # rows at a time: boosters copy what they are given, once a thread


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model and the classes that it knows.

    kind: `lightgbm`, `xgboost`, `catboost`, a name of `OWN`, or empty for any other estimator.
    codes: Class number of each column that the model gives.
    """

    kind: str
    model: Any
    codes: tuple[int, ...]
    n_classes: int

    def predict(self, matrix: Matrix) -> Floats:
        """Probabilities (N, C); 0 for classes that its training rows lacked."""
        probs = np.zeros((len(matrix), self.n_classes))
        probs[:, list(self.codes)] = _raw(self.kind, self.model, matrix)
        return probs

    def predict_rows(self, source: FoldInputs, rows: Ints) -> Floats:
        """Probabilities (n, C) of some rows of a fold's inputs, a part at a time."""
        if not len(rows):
            return np.empty((0, self.n_classes))
        step = len(rows) if self.kind in TOGETHER else PART
        parts = (rows[start : start + step] for start in range(0, len(rows), step))
        return np.concatenate([self.predict(source.take(part)) for part in parts])

    def to_text(self) -> str:
        """The model as text. Raises DataError for an estimator without a format."""
        if self.kind == "lightgbm":
            return str(self.model.model_to_string())
        if self.kind == "xgboost":
            return bytes(self.model.save_raw("json")).decode()
        if self.kind == "catboost":
            return _catboost_text(self.model)
        if self.kind in OWN:
            return json.dumps(self.model.to_dict()) + "\n"
        raise DataError(f"{type(self.model).__name__} has no text format: its models are not kept")


def fitted(estimator: Any, codes: Ints, *, n_classes: int) -> Fitted:
    """What stays of an estimator after its fit."""
    package = type(estimator).__module__.partition(".")[0]
    kind, model = "", estimator
    if package == "lightgbm":
        kind, model = package, estimator.booster_
    elif package == "xgboost":
        booster = estimator.get_booster()
        best = booster.attr("best_iteration")
        kind, model = package, booster if best is None else booster[: int(best) + 1]
    elif package == "catboost":
        kind = package
    else:
        kind = next((name for name, cls in OWN.items() if isinstance(estimator, cls)), "")
    return Fitted(kind, model, tuple(int(c) for c in codes), n_classes)


def from_text(kind: str, text: str, *, codes: tuple[int, ...], n_classes: int) -> Fitted:
    """The inverse of `Fitted.to_text`.

    Raises:
        DataError: Text that is no such model.
    """
    try:
        model = _read(kind, text, n_codes=len(codes))
    except Exception as fault:  # each library raises its own
        raise DataError(f"a {kind} model cannot be read: {fault}; fit the stack again") from fault
    return Fitted(kind, model, codes, n_classes)


def _raw(kind: str, model: Any, matrix: Matrix) -> Floats:
    """A column each class that the model was fitted on, on one thread."""
    if kind == "lightgbm":
        probs = np.asarray(model.predict(matrix, num_threads=1), dtype=np.float64)
    elif kind == "xgboost":
        import xgboost

        given = xgboost.DMatrix(matrix, nthread=1)
        model.set_param({"nthread": 1})
        probs = np.asarray(model.predict(given), dtype=np.float64)
    elif kind == "catboost":
        probs = np.asarray(model.predict_proba(matrix, thread_count=1), dtype=np.float64)
    else:
        probs = np.asarray(model.predict_proba(matrix), dtype=np.float64)
    return np.column_stack([1.0 - probs, probs]) if probs.ndim == 1 else probs


def _read(kind: str, text: str, *, n_codes: int) -> Any:
    if kind == "lightgbm":
        import lightgbm

        return lightgbm.Booster(model_str=plain_lightgbm(text, n_codes=n_codes))
    if kind == "xgboost":
        import xgboost

        check_xgboost(text, n_codes=n_codes)
        return xgboost.Booster(model_file=bytearray(text.encode()))
    if kind == "catboost":
        check_catboost(text, n_codes=n_codes)
        return _catboost_model(text)
    return OWN[kind].from_dict(json.loads(text))


def _catboost_text(model: Any) -> str:
    """CatBoost writes files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        return path.read_text()


def _catboost_model(text: str) -> Any:
    import catboost

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_text(text)
        return catboost.CatBoostClassifier().load_model(str(path), format="json")
