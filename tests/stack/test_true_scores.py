"""What a stack says of itself: names that stay apart, absent features, its inputs, its status."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from isic.acquire.synthetic import write_isic2024
from isic.engine.stacked import Archive, Parts, predict_parts
from isic.index import folder as folder_reader
from isic.index import isic2024
from isic.index.schema import Index
from isic.metrics.classification import macro_auc
from isic.predictions import read_predictions, read_score, score_line, write_predictions
from isic.split.options import Split
from isic.stack.manifest import open_stack
from tests.stack.runs import write_fake_run
from tests.stack.test_command import opened, stacked

TREES = ["stacker.lightgbm.n_estimators=20", "stacker.lightgbm.min_child_samples=5"]
FOLDER = ("data=folder", "metrics=folder", "features=[image_scores]", "n_seeds=1")


def labelled_images(root: Path, names: list[str], each: int = 12) -> Path:
    """Images, each of its own bytes, and a table that gives each a class."""
    root.mkdir()
    rows = []
    for c, name in enumerate(names):
        for i in range(each):
            image = np.full((8, 8, 3), 20 * c + i, np.uint8)
            cv2.imwrite(str(root / f"im_{c}_{i}.png"), image)
            rows.append({"image": f"im_{c}_{i}.png", "label": name})
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


def oof_auc(folder: Path, index: Index) -> float:
    frame = read_predictions(folder / "oof.parquet")
    target = index.table.set_index("image_id")["target"][frame["image_id"]].to_numpy(int)
    return macro_auc(target, frame.filter(like="prob_").to_numpy())


@pytest.mark.parametrize(
    "names",
    [
        ["MEL+", "MEL-", "NV"],
        ["黑素瘤", "色素痣", "基底细胞癌"],
        ["a,b", 'a"b', "a\nb", "a[b]", "a{b}", "a:b", "UNK", "_", "$a$b$^", "prob_x"],
    ],
    ids=["punctuation", "chinese", "everything"],
)
def test_a_stack_of_odd_class_names_knows_every_class(tmp_path: Path, names: list[str]) -> None:
    root = labelled_images(tmp_path / "images", names)
    index, split = opened(tmp_path, root, folder_reader)
    write_fake_run(tmp_path / "runs", "r", index, split, skill=6.0)
    ranks = ["~metrics.functions.accuracy", "~metrics.functions.balanced_accuracy"]
    for stacker, more in (("logistic", []), ("rank_average", ranks), ("lightgbm", TREES)):
        given = (*FOLDER, "runs=[r]", f"stacker=[{stacker}]", "resample={over: null, under: null}")
        folder = stacked(tmp_path, root, *given, f"name=s-{stacker}", *more)
        assert len((folder / "kept.txt").read_text().splitlines()) == len(names)
        assert oof_auc(folder, index) > 0.95
        made = json.loads((folder / "stack.json").read_text())["scores"]
        assert [of for _, of in made.values()] == list(index.info.classes)
        table = pd.read_csv(folder / "curves/confusion.csv", index_col=0, keep_default_na=False)
        assert list(table.columns) == list(index.info.classes)


# ---- what is not there


def archive_without_measures(base: Path) -> Path:
    """ISIC 2024 as a download whose table has two measured columns with values, of 33."""
    root = write_isic2024(
        base / "isic2024", n_images=300, n_patients=60, positives=60, n_test=24, images=False
    )
    for name in ("train-metadata.csv", "test-metadata.csv"):
        table = pd.read_csv(root / name, dtype=str, keep_default_na=False)
        measured = [c for c in table if c.startswith("tbp_lv_") and "location" not in c]
        kept = ("tbp_lv_A", "tbp_lv_Aext")
        table[[c for c in measured if c not in kept]] = ""
        table.to_csv(root / name, index=False)
    return root


def test_features_that_are_not_there_are_counted_said_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = archive_without_measures(tmp_path)
    with caplog.at_level(logging.INFO):
        folder = stacked(tmp_path, root, "features=[lesion_shape,outliers]", "name=s", *TREES)
    score = read_score(folder / "score.json")
    counts = score["features"]
    assert counts["lesion_shape"]["made"] == 89
    assert 2 <= counts["lesion_shape"]["used"] < 12
    kept = [line.split("\t")[0] for line in (folder / "kept.txt").read_text().splitlines()]
    assert {"tbp_lv_A", "tbp_lv_Aext"} <= {*kept} and "tbp_lv_areaMM2" not in kept
    assert len(kept) == sum(c["used"] for c in counts.values())
    (warning,) = [w for w in score["warnings"] if "features have no value" in w]
    assert f"of {sum(c['made'] for c in counts.values())} features have no value" in warning
    assert "no row has a value in tbp_lv_" in warning and warning in score_line(score)
    assert f"known   {len(kept)} features (lesion_shape {len(kept) - 1} of 89, outl" in caplog.text


def test_the_rank_average_stands_beside_the_score_and_a_worse_stack_is_warned_of(
    tmp_path: Path,
) -> None:
    root = archive_without_measures(tmp_path)
    index, split = opened(tmp_path, root, isic2024)
    for name, skill, seed in (("a", 0.8, 1), ("b", 0.8, 2)):
        write_fake_run(tmp_path / "runs", name, index, split, skill=skill, seed=seed)
    # metadata that says nothing, and scores that the stack does not look at
    noise = ["features=[lesion_shape]", "runs=[a,b]", "name=noise", *TREES]
    score = read_score(stacked(tmp_path, root, *noise) / "score.json")
    alone = score["inputs_alone"]["metrics"]["auc"]
    assert alone["of"] == "rank average" and alone["value"] > 0.7
    value = score["metrics"]["auc"]["value"]
    assert alone["difference"] == pytest.approx(value - alone["value"])
    assert alone["low"] < alone["difference"] < alone["high"] < 0
    (warning,) = [w for w in score["warnings"] if "of its inputs" in w]
    assert warning.startswith("the stack is worse than the rank average of its inputs: pauc lower")
    line = score_line(score)
    assert f"its inputs alone (a, b): rank average pAUC {alone_of(score, 'pauc'):.4f} (the" in line
    plain = ["features=[image_scores]", "runs=[a,b]", "stacker=[rank_average]", "name=plain"]
    same = read_score(stacked(tmp_path, root, *plain) / "score.json")
    assert same["metrics"]["auc"]["value"] == alone["value"]
    assert same["inputs_alone"]["metrics"]["auc"]["difference"] == 0
    assert not any("of its inputs" in w for w in same["warnings"])


def alone_of(score: dict, name: str) -> float:
    return float(score["inputs_alone"]["metrics"][name]["value"])


# ---- what carries it


def test_a_stack_that_one_family_carries_says_which(tmp_path: Path) -> None:
    """Every malignant row has a patient of its own: z-scores within the patient are missing."""
    root = write_isic2024(
        tmp_path / "isic2024", n_images=400, n_patients=40, positives=60, n_test=24, images=False
    )
    table = pd.read_csv(path := root / "train-metadata.csv", dtype=str, keep_default_na=False)
    malignant = (table["target"] == "1").to_numpy()
    table.loc[malignant, "patient_id"] = [f"IP_9{i:06d}" for i in range(malignant.sum())]
    table.to_csv(path, index=False)
    index, split = opened(tmp_path, root, isic2024)
    write_fake_run(tmp_path / "runs", "a", index, split, skill=0.5)
    families = "features=[lesion_shape,patient_context,image_scores]"
    folder = stacked(tmp_path, root, families, "runs=[a]", "name=s", *TREES)
    score = read_score(folder / "score.json")
    assert score["metrics"]["auc"]["value"] > 0.98
    told = score["reliance"]["families"]
    assert told["patient_context"]["alone"] > 0.9 > told["image_scores"]["alone"]
    (rests,) = [w for w in score["warnings"] if "rests on one feature family" in w]
    assert "patient_context" in rests and "best single feature (AUC) is" in rests
    (single,) = [w for w in score["warnings"] if w.startswith("features of patient_context tell")]
    assert "_patient_z being known (malignant" in single
    assert not any("image_id" in w or "patient_id" in w for w in score["warnings"])


def test_warnings_name_what_the_features_use_and_nothing_else(tmp_path: Path) -> None:
    """Ids order and group rows, and a column that a selection drops is not used either."""
    root = write_isic2024(
        tmp_path / "isic2024", n_images=300, n_patients=100, positives=60, n_test=24, images=False
    )
    table = pd.read_csv(path := root / "train-metadata.csv", dtype=str, keep_default_na=False)
    malignant = table["target"] == "1"
    table["isic_id"] = np.where(malignant, "MAL_", "BEN_") + table["isic_id"]  # ids that tell
    table["site_2"] = np.where(malignant, "x", "y")
    table.to_csv(path, index=False)
    score = read_score(
        stacked(tmp_path, root, "features=[lesion_shape,outliers]", "name=s", *TREES) / "score.json"
    )
    assert not any("image_id" in w or "site_2" in w for w in score["warnings"])


# ---- rows without an image


@pytest.mark.parametrize("status", ["unreadable", "missing"])
def test_rows_that_no_run_could_read_keep_their_status(tmp_path: Path, status: str) -> None:
    root = write_isic2024(
        tmp_path / "isic2024", n_images=200, n_patients=40, positives=40, n_test=24, images=False
    )
    index, split = opened(tmp_path, root, isic2024)
    gone = unreadable_run(tmp_path / "runs", index, split, status)
    families = "features=[lesion_shape,image_scores]"
    folder = stacked(tmp_path, root, families, "runs=[a]", "name=s", *TREES)
    oof = read_predictions(folder / "oof.parquet").set_index("image_id")
    assert (oof.loc[gone[0], "status"] == status).all()
    assert (oof.drop(gone[0])["status"] == "ok").all()
    assert oof.loc[gone[0]].filter(like="prob_").isna().all(axis=None)
    test = read_predictions(folder / "test.parquet").set_index("image_id")
    assert test.loc[gone[1], "status"].tolist() == [status]
    score = read_score(folder / "score.json")
    assert score["n"] == (200 if status == "unreadable" else 196)
    assert pd.read_csv(folder / "submission.csv")["target"].notna().all()
    table = read_predictions(tmp_path / "runs/a/test.parquet")
    applied = predict_parts(
        Parts(open_stack(folder), {}, {}), Archive(index, root), {"trust": False}, {"a": table}
    ).set_index("image_id")
    assert applied.loc[gone[1], "status"].tolist() == [status]
    pd.testing.assert_frame_equal(
        applied.filter(like="prob_"), test.loc[applied.index].filter(like="prob_")
    )
    both = stacked(tmp_path, root, families, "runs=[a,b]", "name=both", *TREES)
    assert (read_predictions(both / "oof.parquet")["status"] == "ok").all()  # b could read them


def unreadable_run(
    runs: Path, index: Index, split: Split, status: str
) -> tuple[list[str], list[str]]:
    """Runs a and b, of which a could not read four train rows and a test row; their ids."""
    for name in ("a", "b"):
        write_fake_run(runs, name, index, split, skill=1.0)
    ids: list[list[str]] = []
    for path, n in ((runs / "a/fold0/oof.parquet", 4), (runs / "a/test.parquet", 1)):
        frame = read_predictions(path)
        attrs = {k: frame.attrs[k] for k in ("run", "index_hash", "split_hash", "split_file")}
        frame.loc[: n - 1, "status"] = status
        frame.loc[: n - 1, ["prob_benign", "prob_malignant"]] = np.nan
        write_predictions(path, frame, **attrs)
        ids.append(frame["image_id"][:n].tolist())
    return ids[0], ids[1]
