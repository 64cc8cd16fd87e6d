"""`python -m isic stack` from end to end: generated archives, image runs that were made up."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from isic.acquire.synthetic import write_isic2024
from isic.errors import ConfigError, DataError
from isic.index import isic2024, milk10k
from isic.index.schema import Index
from isic.metrics.classification import roc_auc
from isic.predictions import read_predictions, write_predictions
from isic.prepare import open_index
from isic.split.making import make_split
from isic.split.options import Split, SplitOptions
from isic.stack.feature_inputs import applied_inputs
from isic.stack.manifest import open_stack
from isic.stages.stack import families_of
from tests.stack.runs import write_fake_run

FEW = ["stacker.lightgbm.n_estimators=8", "stacker.lightgbm.min_child_samples=5"]
Stack = Callable[..., Path]


def stacked(base: Path, root: Path, *overrides: str) -> Path:
    """The command, in this process: its folder. Raises what it raises."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from isic.cli import CONF
    from isic.config import SCHEMAS
    from isic.stages.stack import stack

    for name, node in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=node)
    GlobalHydra.instance().clear()
    places = [f"data.root={root}", f"paths.runs={base / 'runs'}", f"paths.cache={base / 'cache'}"]
    others = [w for w in overrides if w.startswith("stacker=") and "lightgbm" not in w]
    few = [] if others else FEW
    given = ["logger=csv", "split.n_folds=2", "split.overlap=false", "n_seeds=2", *few, *places]
    given += overrides
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("stack", overrides=given, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        keys = [k for k in cfg if k != "hydra"]
        from omegaconf import OmegaConf

        line = stack(OmegaConf.masked_copy(cfg, keys))
    return base / "runs" / line.partition(":")[0]


def opened(base: Path, root: Path, reader: Any) -> tuple[Index, Split]:
    index = open_index(reader.build_index, root, cache_root=base / "cache")
    options = SplitOptions(n_folds=2, overlap=False)
    split = make_split(index, options, runs_root=base / "runs", cache_root=base / "cache")
    return index, split


@pytest.fixture(scope="module")
def base(archive32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/{a,b}`, two made-up image runs of the shared archive; and a stack `s`."""
    base = tmp_path_factory.mktemp("stack")
    index, split = opened(base, archive32, isic2024)
    write_fake_run(base / "runs", "a", index, split, skill=1.0, seed=1)
    write_fake_run(base / "runs", "b", index, split, skill=1.5, seed=2)
    stacked(base, archive32, "runs=[a,b]", "name=s", "fold=all", "noise=0.05")
    return base


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_a_stack_is_a_run(base: Path, archive32: Path) -> None:
    folder = base / "runs" / "s"
    made = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    assert made == set(
        "config.yaml curves oof.parquet test.parquet submission.csv score.json stack.json models "
        "importance.csv importance.png kept.txt".split()
    )
    oof, of_a = (
        read_predictions(folder / "oof.parquet"),
        read_predictions(base / "runs/a/fold0/oof.parquet"),
    )
    assert oof.attrs["split_hash"] == of_a.attrs["split_hash"]
    assert oof["fold"].value_counts().sum() == len(oof) == 120
    score = json.loads((folder / "score.json").read_text())
    assert list(score["metrics"]) == ["pauc", "auc"]
    assert score["metrics"]["auc"]["low"] < score["metrics"]["auc"]["value"]
    assert len(score["seeds"]["values"]) == 2 and score["seeds"]["std"] >= 0
    assert len(pd.read_csv(folder / "submission.csv")) == 8
    table = pd.read_csv(folder / "importance.csv")
    assert set(table["feature"]) == {
        line.split("\t")[0] for line in (folder / "kept.txt").read_text().splitlines()
    }
    assert not list(folder.rglob("*.pkl"))


def test_the_same_command_prints_its_score_and_another_is_refused(base, archive32, caplog) -> None:
    before = (base / "runs/s/score.json").stat().st_mtime_ns
    again = ["runs=[a,b]", "name=s", "fold=all", "noise=0.05"]
    with caplog.at_level(logging.INFO):
        stacked(base, archive32, *again, "n_jobs=1")
    assert "finished on" in caplog.text
    assert (base / "runs/s/score.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"holds another stack: noise: 0\.05 -> 0\.0"):
        stacked(base, archive32, *again[:-1])
    with pytest.raises(ConfigError, match="holds an image run"):
        stacked(base, archive32, "runs=[b]", "name=a")


def test_what_is_refused_leaves_no_folder_and_no_overwrite(copy: Path, archive32: Path) -> None:
    odd = "+features.lesion_shape.formulas=[hue_contras]"
    with pytest.raises(Exception, match="hue_contras"):
        stacked(copy, archive32, "features=[lesion_shape]", "name=odd", odd)
    assert not (copy / "runs/odd/config.yaml").exists()
    extra = "+features.metadata.columns=[no_such_column]"
    for name, more in (("late", []), ("s", ["overwrite=true"])):
        with pytest.raises(DataError, match="no_such_column"):
            stacked(copy, archive32, "features=[metadata]", f"name={name}", extra, *more)
    assert not (copy / "runs/late/config.yaml").exists()
    assert (copy / "runs/s/score.json").exists(), "an overwrite that is refused throws nothing away"


@pytest.mark.parametrize("more", [[], ["overwrite=true"]])
def test_a_folder_that_is_no_stack_is_left_alone(copy: Path, archive32: Path, more) -> None:
    """`runs/splits` holds every run's folds, a study its trials: nothing may clear them."""
    before = {p.name for p in (copy / "runs/splits").iterdir()}
    with pytest.raises(ConfigError, match=r"splits holds .*\.csv.* and no stack"):
        stacked(copy, archive32, "runs=[a]", "name=splits", *more)
    assert before <= {p.name for p in (copy / "runs/splits").iterdir()}
    assert not (copy / "runs/splits/config.yaml").exists()


def test_a_run_that_was_trained_anew_makes_another_stack(copy: Path, archive32: Path) -> None:
    index, split = opened(copy, archive32, isic2024)
    write_fake_run(copy / "runs", "a", index, split, skill=1.0, seed=77)
    with pytest.raises(ConfigError, match=r"inputs\.a: "):
        stacked(copy, archive32, "runs=[a,b]", "name=s", "fold=all", "noise=0.05")


def test_stacks_stack_and_stand_in_the_table_of_runs(copy: Path, archive32: Path, caplog) -> None:
    from omegaconf import OmegaConf

    from isic.stages.runs import runs

    folder = stacked(copy, archive32, "runs=[s,a]", "features=image_scores", "stacker=rank_average")
    assert folder.name.startswith("isic2024-stack-")
    with caplog.at_level(logging.INFO):
        runs(OmegaConf.create({"paths": {"runs": str(copy / "runs")}}))
    assert f"{folder.name}  pauc" in caplog.text
    chance = json.loads((folder / "score.json").read_text())["metrics"]["pauc"]["chance"]
    assert f"(chance {chance:.4f})" in caplog.text
    assert "2/2" in caplog.text


def test_models_of_every_row_predict_the_test_rows(base: Path) -> None:
    """What was saved gives what was written: `stack.json` is whole."""
    about = json.loads((base / "runs/s/stack.json").read_text())
    assert [e["fold"] for e in about["models"]] == [0, 0, 1, 1, "all", "all"]
    assert [e["run"] for e in about["runs"]] == ["a", "b"]
    config = yaml.safe_load((base / "runs/s/config.yaml").read_text())
    assert about["split_hash"] == config["split_hash"]


@pytest.mark.slow
def test_several_classes_and_several_stackers(milk32: Path, tmp_path: Path) -> None:
    index, split = opened(tmp_path, milk32, milk10k)
    write_fake_run(tmp_path / "runs", "a", index, split)
    folder = stacked(
        *(tmp_path, milk32, "data=milk10k", "runs=[a]", "stacker=[lightgbm,logistic]"),
        *("selection=statistical", "selection.keep=9"),
    )
    oof = read_predictions(folder / "oof.parquet")
    assert len(oof) == 60 and len(oof.attrs["classes"]) == 11
    assert np.allclose(oof.filter(like="prob_").sum(axis=1), 1)
    score = json.loads((folder / "score.json").read_text())
    assert {"macro_f1", "macro_auc", "macro_f1_nested_thresholds"} <= set(score["metrics"])
    assert len((folder / "kept.txt").read_text().splitlines()) >= 9
    with pytest.raises(DataError, match="folds by hospital need two attributions"):
        stacked(tmp_path, milk32, "data=milk10k", "runs=[a]", "hospitals=true", "name=h")
    assert not (tmp_path / "runs/h/oof.parquet").exists()  # said before the first fit
    with pytest.raises(ConfigError, match="combine=rank_mean gives ranks.*macro_dice"):
        stacked(tmp_path, milk32, "data=milk10k", "runs=[a]", "combine=rank_mean")


def test_hospitals_left_out(copy: Path, archive32: Path) -> None:
    folder = stacked(copy, archive32, "runs=[b]", "hospitals=true", "features=image_scores")
    score = json.loads((folder / "score.json").read_text())
    hospitals = score["hospitals"]["by_hospital"]
    assert len(hospitals) >= 2
    assert sum(h["n"] for h in hospitals.values()) == score["hospitals"]["n"] <= 120
    assert all("pauc" in h for h in hospitals.values())


def test_without_runs_the_metadata_alone(copy: Path, archive32: Path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        folder = stacked(copy, archive32, "features=[lesion_shape,image_scores]")
    assert "without image_scores" in caplog.text
    assert "score_" not in (folder / "kept.txt").read_text()
    with pytest.raises(ConfigError, match="image_scores need image runs"):
        stacked(copy, archive32, "features=[image_scores]")


def test_a_stack_inherits_what_its_runs_must_be_read_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Warnings and a chosen epoch of a run, and a feature that tells the class alone."""
    root = write_isic2024(
        tmp_path / "isic2024", n_images=200, n_patients=100, positives=60, images=False
    )
    table = pd.read_csv(path := root / "train-metadata.csv", dtype=str, keep_default_na=False)
    table["tbp_tile_type"] = np.where(table["target"] == "1", "3D: white", "3D: XP")
    table.to_csv(path, index=False)
    index, split = opened(tmp_path, root, isic2024)
    write_fake_run(tmp_path / "runs", "a", index, split, skill=1.0)
    told = {"metrics": {}, "selected_on_validation": True, "warnings": ["pseudo-labels of x"]}
    (tmp_path / "runs/a/fold0/score.json").write_text(json.dumps(told))
    used = ["features=[image_scores,metadata]", "features.metadata.columns=[age,tbp_tile_type]"]
    with caplog.at_level(logging.WARNING):
        folder = stacked(tmp_path, root, "runs=[a]", *used)
    score = json.loads((folder / "score.json").read_text())
    assert score["selected_on_validation"] is True
    inherited, own, rests = score["warnings"]
    assert inherited == "a: pseudo-labels of x"
    assert own.startswith("features holds columns that tell a class alone (AUC > 0.80): tbp_tile_t")
    assert rests.startswith("the stack rests on one feature family, metadata: AUC 1.0000 falls to ")
    assert "its best single feature (AUC) is tbp_tile_type_3D_XP (malignant 1.00)" in rests
    assert "age" not in own and all(text in caplog.text for text in score["warnings"])


@pytest.mark.slow
def test_ranks_say_that_they_are_ranks(copy: Path, archive32: Path) -> None:
    ways = {"combine=mean": False, "combine=rank_mean": True, "stacker=rank_average": True}
    for way, ranks in ways.items():
        folder = stacked(copy, archive32, "runs=[a]", "features=[image_scores]", way, "n_seeds=1")
        assert read_predictions(folder / "test.parquet").attrs["ranks"] is ranks
        assert json.loads((folder / "stack.json").read_text())["ranks"] is ranks
        assert (folder / "thresholds.json").exists() is not ranks
    with pytest.raises(ConfigError, match="rank_average gives ranks, lightgbm probabilities"):
        stacked(copy, archive32, "runs=[a]", "combine=mean", "stacker=[lightgbm,rank_average]")


def test_ranks_are_refused_where_a_metric_cuts(milk32: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stacker=rank_average gives ranks.*macro_dice"):
        stacked(tmp_path, milk32, "data=milk10k", "stacker=rank_average", "runs=[a]")


def test_test_rows_have_the_features_that_a_saved_stack_will_give_them(
    copy: Path, archive_copy: Path
) -> None:
    """A patient on both sides: with other neighbours the same image had other features."""
    train = pd.read_csv(archive_copy / "train-metadata.csv", dtype=str)
    test = pd.read_csv(path := archive_copy / "test-metadata.csv", dtype=str)
    test.assign(patient_id=train["patient_id"].iloc[0]).to_csv(path, index=False)
    folder = stacked(copy, archive_copy, "features=[patient_context,outliers]")
    index, _ = opened(copy, archive_copy, isic2024)
    stack = open_stack(folder)
    rows = index.table[index.table["split"] == "test"].reset_index(drop=True)
    inputs = applied_inputs(
        families_of(stack.about["families"]), rows, stack.states, stack.about["columns"],
        info=index.info,
    )  # fmt: skip
    written = read_predictions(folder / "test.parquet")["prob_malignant"].to_numpy()
    np.testing.assert_array_equal(stack.predict(inputs)[:, 1], written)


def test_a_column_without_values_in_new_rows_is_said(
    base: Path, archive32: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index, _ = opened(base, archive32, isic2024)
    stack = open_stack(base / "runs/s")
    rows = index.table[index.table["split"] == "test"].reset_index(drop=True)
    rows = rows.assign(tbp_lv_H=np.nan, score_a=0.1, score_b=0.2)
    families = families_of(stack.about["families"])
    applied_inputs(families, rows, stack.states, stack.about["columns"], info=index.info)
    assert "no row has a value in tbp_lv_H, which features are made of" in caplog.text
    sexes = {"metadata": {"columns": ["sex"], "categories": {"sex": ["female", "male"]}}}
    one = families_of({"metadata": {"_target_": "isic.features.metadata.Metadata"}})
    other = rows.assign(sex="M")
    names = {"0": ["sex_female", "sex_male", "sex_unknown"]}
    inputs = applied_inputs(one, other, {0: sexes}, names, info=index.info)
    assert "no value of sex is one that training rows had: got M, known are female" in caplog.text
    assert inputs[0].take(slice(None))[:, 2].all()


def test_extra_rows_without_the_measures_of_all_others_train_no_table_stack(
    copy: Path, archive32: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are all malignant and have no measure: missing would mean malignant."""
    names = [f"extra{i}.jpg" for i in range(3)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.full((32, 32, 3), 90, np.uint8))
    extra = tmp_path / "extra.csv"
    pd.DataFrame({"image": names, "label": "malignant"}).to_csv(extra, index=False)
    with caplog.at_level(logging.WARNING):
        stacked(copy, archive32, "features=[lesion_shape]", f"data.extra={extra}")
    assert "3 rows that train in every fold have not the columns that all others" in caplog.text


# ---- what must not go through


def rewritten(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], **about: str) -> None:
    """A predictions file with other rows, or other metadata."""
    frame = read_predictions(path)
    keys = ("run", "index_hash", "split_hash", "split_file")
    attrs = {key: frame.attrs[key] for key in keys} | about
    write_predictions(path, change(frame), **attrs)


def test_a_gap_an_overlap_and_another_archive_are_refused(copy: Path, archive32: Path) -> None:
    folds = [copy / "runs/a" / f"fold{k}" / "oof.parquet" for k in (0, 1)]
    kept = folds[0].read_bytes()
    rewritten(folds[0], lambda frame: frame.iloc[3:])
    with pytest.raises(DataError, match="3 rows have no prediction, all of fold 0"):
        stacked(copy, archive32, "runs=[a]")
    folds[0].write_bytes(kept)
    other = read_predictions(folds[1]).iloc[:2].assign(fold=0)
    rewritten(folds[0], lambda frame: pd.concat([frame, other], ignore_index=True))
    with pytest.raises(DataError, match="2 rows predicted twice"):
        stacked(copy, archive32, "runs=[a]")
    folds[0].write_bytes(kept)
    for path in folds:
        rewritten(path, lambda frame: frame, index_hash="0" * 12)
    with pytest.raises(DataError, match="was trained on another archive"):
        stacked(copy, archive32, "runs=[a]")


def test_another_split_is_refused(copy: Path, archive32: Path) -> None:
    with pytest.raises(DataError, match=r"runs/a was trained on the folds of .*split\.\* keys"):
        stacked(copy, archive32, "runs=[a]", "split.seed=3")


def test_a_run_that_is_not_there(copy: Path, archive32: Path) -> None:
    with pytest.raises(ConfigError, match="runs: no run c under .*; there are a, b, s"):
        stacked(copy, archive32, "runs=[c]")
    with pytest.raises(ConfigError, match="runs: a is named twice"):
        stacked(copy, archive32, "runs=[a,a]")


def test_a_label_that_leaks_through_one_fold_fails_loudly(copy: Path, archive32: Path) -> None:
    index, split = opened(copy, archive32, isic2024)
    write_fake_run(copy / "runs", "a", index, split, skill=0.2)
    target = index.table.set_index("image_id")["target"]

    def leak(frame: pd.DataFrame) -> pd.DataFrame:
        label = target.loc[frame["image_id"]].to_numpy(dtype=float)
        malignant = 0.8 * label + 0.2 * frame["prob_malignant"]
        return frame.assign(prob_malignant=malignant, prob_benign=1 - malignant)

    rewritten(copy / "runs/a/fold1/oof.parquet", leak)
    with pytest.raises(DataError, match="a, class malignant: fold 1 has AUC 1.0000"):
        stacked(copy, archive32, "runs=[a,b]")


def test_columns_that_only_train_rows_have_are_refused(copy: Path, archive32: Path) -> None:
    leaky = ["features=metadata", "features.metadata.columns=[age,tbp_lv_dnn_lesion_confidence]"]
    with pytest.raises(DataError, match="train-only columns tbp_lv_dnn_lesion_confidence"):
        stacked(copy, archive32, "runs=[a]", *leaky)


def test_a_column_that_test_rows_lack_is_refused(copy: Path, archive_copy: Path) -> None:
    path = archive_copy / "test-metadata.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.assign(tbp_lv_H="").to_csv(path, index=False)
    with pytest.raises(DataError, match="no test row has a value in tbp_lv_H"):
        stacked(copy, archive_copy, "features=lesion_shape")


def test_wrong_values_are_refused_before_data_is_read(tmp_path: Path) -> None:
    for override, said in (
        ("fold=1", "fold: a stack is made of all folds at once"),
        ("n_seeds=0", "n_seeds: expected 1 or more, got 0"),
        ("resample.under=2", r"resample\.under: expected a share"),
        ("on_leak=no", "on_leak: expected error or warn"),
        ("logger.wandb={mode: bogus}", "WANDB_MODE.*got 'bogus'"),
        ("+features.image_scores.colums=[x]", "takes no such argument. Did you mean columns"),
    ):
        with pytest.raises(ConfigError, match=said):
            stacked(tmp_path, tmp_path / "absent", "features=image_scores", override)


@pytest.mark.slow
def test_shuffled_labels_give_one_half_through_the_whole_chain(tmp_path: Path) -> None:
    """Features, scores without skill, selection, resampling, boosters: nothing is found."""
    aucs = []
    for seed in range(4):
        base = tmp_path / str(seed)
        root = write_isic2024(
            base / "isic2024", n_images=600, n_test=60, seed=seed, n_patients=60, positives=120,
            images=False,
        )  # fmt: skip
        path = root / "train-metadata.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table["target"] = np.random.default_rng(seed).permutation(table["target"])
        table.to_csv(path, index=False)
        index, split = opened(base, root, isic2024)
        write_fake_run(base / "runs", "a", index, split, skill=0.0, seed=seed)
        folder = stacked(base, root, "runs=[a]", "selection=statistical", "resample.over=0.5")
        oof = read_predictions(folder / "oof.parquet")
        target = index.table.set_index("image_id")["target"].loc[oof["image_id"]]
        aucs.append(roc_auc(target.to_numpy(dtype=int), oof["prob_malignant"].to_numpy()))
    assert 0.44 < np.mean(aucs) < 0.56, aucs
    assert all(0.38 < auc < 0.62 for auc in aucs), aucs


def test_a_stack_compares_images_as_large_as_its_runs_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # folds keep images together that show the same, of those that are read
    asked = []

    def opened(*_: Any, **named: Any) -> Index:
        asked.append(named["max_megapixels"])
        raise DataError("opened")

    monkeypatch.setattr("isic.stages.stack.open_index", opened)
    with pytest.raises(DataError, match="opened"):
        stacked(tmp_path, tmp_path, "data.max_megapixels=100", "features=[lesion_shape]")
    assert asked == [100]
