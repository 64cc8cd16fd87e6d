"""Scores of a predictions table, their line and their file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.errors import DataError
from isic.metrics import (
    balanced_accuracy,
    bootstrap_interval,
    macro_auc,
    macro_dice,
    macro_f1_argmax,
    roc_auc,
)
from isic.metrics.partial_auc import partial_auc
from isic.predictions import read_score, score, score_line, write_score
from isic.predictions.scorecard import difference, metric_text

CLASSES = ("benign", "malignant")
METRICS = {"pauc": partial_auc, "auc": roc_auc}


def scored(n: int = 300, seed: int = 0, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    target = pd.array(rng.random(n) < 0.2, dtype="Int64")
    malignant = 1 / (1 + np.exp(-rng.normal(size=n) - target.to_numpy(float)))
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{i}" for i in range(n)],
            "status": "ok",
            "target": target,
            "prob_benign": 1 - malignant,
            "prob_malignant": malignant,
            "patient_id": [f"IP_{i % 40}" for i in range(n)],
            "lesion_id": None,
            **columns,
        }
    )


def score_of(frame: pd.DataFrame, **options):
    given = {"classes": CLASSES, "metrics": METRICS, "n_replicates": 60}
    return score(frame, **(given | options))


def test_values_are_the_metrics_with_their_intervals() -> None:
    frame = scored()
    target, malignant = frame["target"].to_numpy(int), frame["prob_malignant"].to_numpy()
    found = score_of(frame)
    assert (found["n"], found["interval_over"]) == (300, "patient")
    for name, metric in METRICS.items():
        low, high = bootstrap_interval(
            metric, target, malignant, group=frame["patient_id"], n_replicates=60
        )
        assert found["metrics"][name] == {
            "value": metric(target, malignant),
            "low": low,
            "high": high,
        } | ({"chance": pytest.approx(0.02, abs=0.004)} if name == "pauc" else {})


@pytest.mark.parametrize(
    ("columns", "over"),
    [
        ({}, "patient"),
        ({"patient_id": None, "lesion_id": "IL_1"}, "lesion"),
        ({"patient_id": None}, "image"),
    ],
)
def test_says_what_the_interval_is_over(columns, over) -> None:
    assert score_of(scored(**columns))["interval_over"] == over
    bare = scored().drop(columns=["patient_id", "lesion_id"])
    assert score_of(bare)["interval_over"] == "image"


def test_rows_without_a_patient_count_by_lesion_or_alone() -> None:
    frame = scored(lesion_id=[f"IL_{i // 3}" for i in range(300)])
    frame.loc[100:199, "patient_id"] = None
    frame.loc[150:199, "lesion_id"] = None
    named = frame["patient_id"].fillna(frame["lesion_id"]).fillna(frame["image_id"])
    expected = score_of(frame.assign(patient_id=named))
    assert score_of(frame) == expected


def test_a_column_may_be_chosen() -> None:
    frame = scored(site=np.arange(300) % 9)
    assert score_of(frame, group="site")["interval_over"] == "site"
    assert score_of(frame, group="image_id")["interval_over"] == "image"
    with pytest.raises(DataError, match="no column 'hospital'"):
        score_of(frame, group="hospital")


def test_unlabelled_rows_are_left_out() -> None:
    frame = scored()
    frame.loc[:9, "target"] = pd.NA
    assert score_of(frame)["n"] == 290
    assert score_of(frame)["metrics"] == score_of(frame.loc[10:])["metrics"]
    with pytest.raises(DataError, match="none of 10 predictions has a target"):
        score_of(frame.loc[:9])


def test_unreadable_rows_are_scored_with_the_fallback() -> None:
    frame = scored()
    frame.loc[:4, ["prob_benign", "prob_malignant"]] = np.nan
    found = score_of(frame)
    filled = frame["prob_malignant"].fillna(frame["prob_malignant"].mean())
    assert found["n"] == 300
    assert found["metrics"]["auc"]["value"] == pytest.approx(
        roc_auc(frame["target"].to_numpy(int), filled.to_numpy())
    )


def test_rows_without_an_image_file_are_not_scored() -> None:
    frame = scored()
    frame["status"] = "ok"
    frame.loc[:4, "status"] = "missing"
    frame.loc[:4, ["prob_benign", "prob_malignant"]] = np.nan
    assert score_of(frame) == score_of(frame.iloc[5:]) | {"n": 295}


def test_undefined_metrics_are_null_with_a_reason(tmp_path: Path) -> None:
    frame = scored()
    frame["target"] = pd.array(np.zeros(300), dtype="Int64")
    found = score_of(frame, metrics={"auc": roc_auc, "balanced_accuracy": balanced_accuracy})
    assert "only one class" in found["metrics"]["auc"]["reason"]
    assert "AUC undefined [undefined, undefined]" in score_line(found)
    read = read_score(write_score(tmp_path / "score.json", found))
    assert read["metrics"]["auc"]["value"] is None
    assert read["metrics"]["balanced_accuracy"]["value"] is not None
    assert score_line(read) == score_line(found)


def test_missing_probabilities_are_named() -> None:
    with pytest.raises(DataError, match=r"lack \['prob_melanoma'\]"):
        score_of(scored(), classes=("benign", "melanoma"))


def test_line_for_people() -> None:
    numbers = {"value": 0.17123, "low": 0.16441, "high": 0.17808}
    made = {"metrics": {"pauc": numbers}, "n": 401059, "interval_over": "patient"}
    assert score_line(made) == "pAUC 0.1712 [0.1644, 0.1781] (patient bootstrap, n=401059)"
    made["metrics"] = {"auc": numbers, "mine": numbers}
    assert score_line(made).startswith("AUC 0.1712 [0.1644, 0.1781], mine 0.1712 [")


def several(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Four classes, of which `d` has no row and `c` has two patients."""
    rng = np.random.default_rng(seed)
    target = np.r_[rng.integers(0, 2, n - 2), 2, 2]
    probs = rng.dirichlet(np.ones(4), n)
    frame = scored(n).drop(columns=["prob_benign", "prob_malignant"]).assign(target=target)
    frame["patient_id"] = [f"IP_{i}" for i in range(n)]
    return frame.assign(**{f"prob_{c}": probs[:, i] for i, c in enumerate("abcd")})


def test_a_macro_metric_says_which_classes_it_averages_and_which_are_few(tmp_path: Path) -> None:
    found = score_of(several(), classes=tuple("abcd"), metrics={"macro_auc": macro_auc})
    assert found["metrics"]["macro_auc"]["classes"] == ["a", "b", "c"]
    assert found["few"] == {"c": 2}
    line = score_line(read_score(write_score(tmp_path / "score.json", found)))
    assert "over a, b, c alone: no rows of the other classes" in line
    assert "of fewer than 5 patients, which intervals hardly vary: c 2" in line
    whole = scored().assign(prob_benign=0.5)
    assert "few" not in score_of(whole) and "alone" not in score_line(score_of(whole))


def test_resamples_without_a_value_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    frame = scored(patient_id=[f"IP_{i}" for i in range(300)])
    frame["target"] = pd.array(np.arange(300) == 0, dtype="Int64")
    found = score_of(frame, n_replicates=400)["metrics"]["auc"]
    assert found["undefined"] == pytest.approx(1 / np.e, abs=0.08)  # none drew the one positive
    assert "% of resamples have no value and are left out" in score_line(score_of(frame))
    assert "undefined" not in score_of(scored())["metrics"]["auc"]
    assert "bootstrap replicates" not in caplog.text  # the line for people holds it, once
    few = {"value": 0.5, "low": 0.4, "high": 0.6, "undefined": 0.002}
    assert "(0.2% of resamples have no value" in metric_text("auc", few)


def test_the_chance_level_stands_behind_a_macro_f1_and_old_files_print_without() -> None:
    metrics = {"macro_f1": macro_dice, "macro_f1_argmax": macro_f1_argmax, "auc": macro_auc}
    found = score_of(several(), classes=tuple("abcd"), metrics=metrics)
    for name in ("macro_f1", "macro_f1_argmax"):
        entry = found["metrics"][name]
        assert entry["chance"] == pytest.approx(entry["value"], abs=0.08)  # it knows nothing
        assert entry == score_of(several(), classes=tuple("abcd"), metrics=metrics)["metrics"][name]
        assert f"(chance {entry['chance']:.4f}" in score_line(found)
    assert "chance" not in found["metrics"]["auc"]
    quick = score_of(several(), classes=tuple("abcd"), metrics=metrics, chance=False)
    assert "chance" not in score_line(quick)


def test_a_difference_is_paired_with_its_interval() -> None:
    frame = several()
    better = frame.assign(**{f"prob_{c}": (frame["target"] == i) * 1.0 for i, c in enumerate("ab")})
    found = difference(
        better, frame, classes=tuple("abcd"), metrics={"auc": macro_auc}, n_replicates=60
    )["auc"]
    known = score_of(frame, classes=tuple("abcd"), metrics={"auc": macro_auc})["metrics"]["auc"]
    assert found["value"] == known["value"]
    assert 0 < found["low"] < found["difference"] < found["high"]
    with pytest.raises(DataError, match="hold other rows"):
        difference(better, frame.iloc[::-1], classes=tuple("abcd"), metrics={"auc": macro_auc})


def test_file_is_plain_json_and_keeps_what_a_run_adds(tmp_path: Path) -> None:
    added = {"seconds": np.float32(3.5), "n_folds": np.int64(5), "gone": np.nan}
    found = score_of(scored()) | added
    path = write_score(tmp_path / "run" / "score.json", found)
    read = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (read["seconds"], read["n_folds"], read["gone"]) == (3.5, 5, None)
    assert read["metrics"] == found["metrics"]
    with pytest.raises(DataError, match="absent.json cannot be used: No such file"):
        read_score(tmp_path / "absent.json")
