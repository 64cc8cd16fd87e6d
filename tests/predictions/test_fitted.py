"""What is fitted on a run's out-of-fold rows and applied to its submissions; the unknown class."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.errors import DataError
from isic.metrics import macro_dice
from isic.metrics.chance import chance_level
from isic.predictions.fitted import (
    Fitted,
    calibrated,
    decided,
    fit_to,
    nested_chance,
    nested_decided,
)
from isic.predictions.table import probabilities
from isic.predictions.temperature import fit_temperature, tempered
from isic.predictions.thresholds import fit_thresholds, folded
from isic.predictions.unknown import (
    known_quantiles,
    unknown_class,
    unlikeness,
    with_unknown,
)
from tests.predictions.test_thresholds import made

CLASSES = ("MEL", "NV", "BCC", "UNK")


def oof(n: int = 120, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """An out-of-fold table of four classes, the last never true, and its targets."""
    target, known = made(n, 3, seed)
    probs = np.concatenate([known * 0.98, np.full((n, 1), 0.02)], axis=1)
    frame = pd.DataFrame({"image_id": [f"I{i}" for i in range(n)], "status": "ok"})
    frame["fold"] = pd.array(np.arange(n) % 3, dtype="Int64")
    for i, name in enumerate(CLASSES):
        frame[f"prob_{name}"] = probs[:, i]
    frame["energy"] = -np.log(probs[:, :3].max(axis=1))
    frame.attrs = {"run": "it", "split_hash": "s", "index_hash": "i"}
    return frame, pd.Series(pd.array(target, dtype="Int64"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    frame, target = oof()
    fitted = fit_to(frame, target)
    assert Fitted.read(fitted.write(tmp_path).parent) == fitted
    assert (fitted.run, fitted.split_hash, fitted.index_hash, fitted.rows) == ("it", "s", "i", 120)
    assert fitted.positives["UNK"] == 0
    assert sum(fitted.positives.values()) == 120
    (tmp_path / "thresholds.json").write_text("{}")
    with pytest.raises(DataError, match=r"no fit to out-of-fold rows at .*thresholds\.json"):
        Fitted.read(tmp_path)


def test_it_is_fitted_to_all_rows_before_and_after_a_temperature() -> None:
    frame, target = oof()
    fitted, probs = fit_to(frame, target), probabilities(frame)
    assert list(fitted.thresholds.values()) == fit_thresholds(target.to_numpy(int), probs).tolist()
    t = fit_temperature(target.to_numpy(int), probs, softmax=True)
    scaled = tempered(probs, t, softmax=True)
    assert fitted.temperature == t
    expected = fit_thresholds(target.to_numpy(int), scaled)
    assert list(fitted.tempered_thresholds.values()) == expected.tolist()
    np.testing.assert_array_equal(probabilities(calibrated(frame, fitted)), scaled)


def test_rows_without_a_file_are_not_fitted_to() -> None:
    frame, target = oof()
    fewer = fit_to(frame.iloc[5:], target.iloc[5:])
    names = [c for c in frame if c.startswith("prob_")]
    frame.loc[:4, names] = np.nan
    frame.loc[:4, "status"] = "missing"
    assert fit_to(frame, target).thresholds == fewer.thresholds


def test_decisions() -> None:
    frame, target = oof()
    assert decided(frame, "none") is frame
    one = probabilities(decided(frame, "argmax"))
    assert ((one > 0.5).sum(axis=1) == 1).all()
    cuts = {"MEL": 0.2, "NV": 0.3, "BCC": 0.4, "UNK": 0.01}
    np.testing.assert_array_equal(
        probabilities(decided(frame, "thresholds", cuts)),
        folded(probabilities(frame), list(cuts.values())),
    )
    frame.loc[0, "prob_MEL":"prob_UNK"] = np.nan
    assert not np.isnan(probabilities(decided(frame, "thresholds", cuts))).any()


def test_nested_decisions_do_not_see_their_folds_labels() -> None:
    frame, target = oof()
    joined = frame.assign(target=target)
    first = nested_decided(joined)
    own = joined["fold"] == 1
    other = joined.assign(target=target.where(~own, (target + 1) % 3))
    pd.testing.assert_frame_equal(
        nested_decided(other)[own].drop(columns="target"), first[own].drop(columns="target")
    )
    assert macro_dice(target.to_numpy(int), probabilities(first)) > 0


# ---- an unknown class


def test_a_class_is_unknown_that_no_row_has() -> None:
    assert unknown_class(CLASSES, pd.Series([0, 1, 2])) == "UNK"
    assert unknown_class(CLASSES, pd.Series([0, 1, 3])) is None
    assert unknown_class(("MEL", "NV"), pd.Series([0, 1])) is None
    frame, target = oof()
    assert set(fit_to(frame, target).unknown) == {"max_prob", "energy"}
    assert fit_to(frame, target.where(target != 0, 3)).unknown == {}


def test_unlikeness_by_hand() -> None:
    frame, _ = oof(3)
    frame[["prob_MEL", "prob_NV", "prob_BCC", "prob_UNK"]] = [[0.1, 0.2, 0.1, 0.6]] * 3
    np.testing.assert_allclose(unlikeness(frame, "max_prob"), 0.8)  # its own column says nothing
    np.testing.assert_array_equal(unlikeness(frame, "energy"), frame["energy"])
    with pytest.raises(DataError, match="no energies"):
        unlikeness(frame.drop(columns="energy"), "energy")


@pytest.mark.parametrize("method", ["max_prob", "energy"])
def test_the_scale_is_that_of_known_rows(method) -> None:
    frame, _ = oof(2000)
    quantiles = known_quantiles(frame)
    scored = with_unknown(frame, method, quantiles)
    unknown, raw = scored["prob_UNK"].to_numpy(), unlikeness(frame, method)
    assert (unknown > 0.5).mean() == pytest.approx(0.05, abs=0.003)
    assert (np.diff(unknown[np.argsort(raw)]) >= 0).all()
    assert (unknown.min(), unknown.max()) == (0, 1)
    pd.testing.assert_frame_equal(scored.drop(columns="prob_UNK"), frame.drop(columns="prob_UNK"))
    with pytest.raises(DataError, match="only max_prob was fitted"):
        with_unknown(frame, "energy", {"max_prob": quantiles["max_prob"]})


def test_what_is_less_like_than_any_known_row_has_one() -> None:
    frame, _ = oof()
    quantiles = known_quantiles(frame)
    frame["energy"] = 1e9
    assert (with_unknown(frame, "energy", quantiles)["prob_UNK"] == 1).all()
    frame.loc[0, "energy"] = np.nan
    assert np.isnan(with_unknown(frame, "energy", quantiles)["prob_UNK"][0])


def test_the_chance_level_of_nested_thresholds_is_that_of_thresholds_fitted_to_nothing() -> None:
    """Three quarters are one class: cuts that know nothing score more than the argmax's chance."""
    rng = np.random.default_rng(0)
    frame, _ = oof(900)
    frame[[f"prob_{c}" for c in CLASSES]] = rng.dirichlet(np.ones(4), 900)
    frame["target"] = pd.array(rng.choice(3, 900, p=[0.75, 0.15, 0.1]), dtype="Int64")
    names = [f"prob_{c}" for c in CLASSES]
    score = macro_dice(frame["target"].to_numpy(int), probabilities(nested_decided(frame)))
    level = nested_chance(frame, {"f1": macro_dice})["f1"]
    assert level == pytest.approx(score, abs=0.03)
    assert level > chance_level(macro_dice, frame["target"].to_numpy(int), frame[names]) + 0.1
    assert level == nested_chance(frame, {"f1": macro_dice})["f1"]
    knows = frame.copy()
    knows[names] = np.eye(4)[frame["target"].to_numpy(int)]
    assert nested_chance(knows, {"f1": macro_dice})["f1"] < 0.6
