"""Every archive goes from its official layout to a score and a submission, by the same commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simplejpeg

from isic.predictions import read_predictions, read_score
from isic.split import open_split
from tests.commands import TINY, ForkServer

Roots = dict[str, Path]


@pytest.fixture(scope="module")
def roots(archive32: Path, archive2019: Path, archive2020: Path, milk32: Path) -> Roots:
    return {"isic2024": archive32, "isic2019": archive2019, "isic2020": archive2020} | {
        "isic2020_diagnosis": archive2020,
        "milk10k": milk32,
    }


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    return {
        "ISIC_RUNS_ROOT": str(tmp_path / "runs"),
        "ISIC_CACHE_ROOT": str(tmp_path / "cache"),
    }


def train(
    commands: ForkServer, places: dict[str, str], *arguments: str, name: str = "it"
) -> tuple[Path, str]:
    """Train by the command line; the run's folder and what was said."""
    code, text = commands.run(
        "train.py", *TINY, "trainer.max_epochs=1", f"name={name}", *arguments, env=places
    )
    assert code == 0, text
    return Path(places["ISIC_RUNS_ROOT"]) / name, text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "head", "columns"),
    [
        ("isic2019", "image", "MEL NV BCC AK BKL DF VASC SCC UNK"),
        ("isic2020", "image_name", "target"),
        ("isic2020_diagnosis", "image_name", "target"),
        ("milk10k", "lesion_id", "AKIEC BCC BEN_OTH BKL DF INF MAL_OTH MEL NV SCCKA VASC"),
        ("isic2024", "isic_id", "target"),
    ],
)
def test_two_folds_give_a_score_and_a_submission(
    roots: Roots, places: dict[str, str], commands: ForkServer, data: str, head: str, columns: str
) -> None:
    run, text = train(
        commands, places, "-m", "fold=0,1", f"data={data}", f"data.root={roots[data]}"
    )
    oof = read_predictions(run / "oof.parquet")
    (split,) = (run.parent / "splits").glob("*.csv")
    assert oof["image_id"].tolist() == _validated(split)
    assert read_score(run / "score.json")["n"] == len(oof)
    submission = pd.read_csv(run / "submission.csv")
    assert submission.columns.tolist() == [head, *columns.split()]
    test = read_predictions(run / "test.parquet")
    assert len(submission) == len(test) == 8 if data == "milk10k" else len(test)
    if data == "isic2020_diagnosis":
        in_order = test.set_index("image_id")["prob_MEL"].loc[submission[head]]
        np.testing.assert_allclose(submission["target"], in_order)


def _validated(split: Path) -> list[str]:
    table = open_split(split).table
    return table.loc[table["fold"] >= 0, "image_id"].tolist()


@pytest.mark.slow
def test_a_lesion_is_predicted_once_from_the_view_that_is_asked_for(
    milk32: Path, places: dict[str, str], commands: ForkServer
) -> None:
    run, _ = train(commands, places, "data=milk10k", f"data.root={milk32}", "data.views=[clinical]")
    oof = read_predictions(run / "fold0" / "oof.parquet")
    assert oof["lesion_id"].is_unique
    (split,) = (run.parent / "splits").glob("*.csv")
    table = open_split(split).table
    assert len(table) == 60, "the split names lesions, whatever view is looked at"
    code, text = commands.run(
        "train.py", *TINY, "data=milk10k", f"data.root={milk32}", "data.views=[tbp]", env=places
    )
    assert code == 2, text
    assert "data.views: expected one or more of dermoscopic, clinical, got tbp" in text


@pytest.mark.slow
def test_what_is_held_out_is_read_by_predict_alone(
    roots: Roots, places: dict[str, str], commands: ForkServer
) -> None:
    run, text = train(
        commands,
        places,
        *("-m", "fold=0,1", "data=isic2020", f"data.root={roots['isic2020']}", "split.holdout=0.2"),
    )
    (file,) = (run.parent / "splits").glob("*-h0.2.csv")
    held = open_split(file).held_out
    assert len(held) > 10
    oof = read_predictions(run / "oof.parquet")
    assert not set(oof["image_id"]) & set(held["image_id"])
    output = run.parent / "final"
    asked = ["predict.py", f"ckpt={run}", "split=holdout", f"output={output}", "trainer=cpu"]
    code, text = commands.run(*asked, env=places)
    assert code == 0, text
    predicted = read_predictions(output / "predictions.parquet")
    assert set(predicted["image_id"]) == set(held["image_id"])
    assert json.loads((output / "score.json").read_text())["trained_on_these_rows"] is False
    file.write_text(file.read_text() + "\n")
    code, text = commands.run(*asked, env=places)
    assert code == 3
    assert "is gone or has changed" in text


@pytest.mark.slow
def test_a_checkpoint_without_held_out_rows_says_how_to_get_some(
    roots: Roots, places: dict[str, str], commands: ForkServer
) -> None:
    run, _ = train(commands, places, "data=isic2020", f"data.root={roots['isic2020']}")
    code, text = commands.run(
        "predict.py", f"ckpt={run / 'fold0'}", "split=holdout", "trainer=cpu", env=places
    )
    assert code == 3
    assert "train with split.holdout=0.15 first" in text


@pytest.mark.slow
def test_other_archives_train_and_never_validate(
    roots: Roots, places: dict[str, str], commands: ForkServer
) -> None:
    run, text = train(
        commands,
        places,
        *("data=merged", "data.parts=[isic2019,isic2020]", f"data.root={roots['isic2019'].parent}"),
        f"data.index.roots.isic2020={roots['isic2020']}",
    )
    (file,) = (run.parent / "splits").glob("merged-*.csv")
    table = open_split(file).table
    first = pd.read_csv(roots["isic2019"] / "ISIC_2019_Training_GroundTruth.csv")["image"]
    assert set(table.loc[table["fold"] >= 0, "image_id"]) == set(first)
    assert (table.loc[~table["image_id"].isin(first), "fold"] < 0).all()
    oof = read_predictions(run / "fold0" / "oof.parquet")
    assert set(oof["image_id"]) <= set(first)
    assert f"{len(table) - int((table['fold'].isin([0, -1])).sum())} training rows" in text


@pytest.mark.slow
def test_any_folder_of_images_is_predicted(
    roots: Roots, places: dict[str, str], commands: ForkServer, tmp_path: Path
) -> None:
    run, _ = train(commands, places, "data=milk10k", f"data.root={roots['milk10k']}")
    mine = tmp_path / "mine"
    (mine / "more").mkdir(parents=True)
    lesion = next((roots["milk10k"] / "MILK10k_Test_Input").iterdir())
    for source, name in zip(sorted(lesion.iterdir()), ("a 1.JPG", "more/b.jpg"), strict=True):
        shutil.copy(source, mine / name)
    asked = ["predict.py", "ckpt=it", "trainer=cpu", f"output={tmp_path / 'out'}"]
    code, text = commands.run(*asked, f"images={mine}", env=places)
    assert code == 0, text
    submission = pd.read_csv(tmp_path / "out" / "submission.csv").set_index("image_id")
    assert submission.index.tolist() == ["a_1", "b"]
    (mine / "a 1.JPG").unlink()
    (mine / "more" / "b.jpg").unlink()
    code, text = commands.run(*asked, f"images={mine}", env=places)
    assert code == 3
    assert "expected a folder of images, got none in" in text


def extra_csv(folder: Path, **columns: object) -> Path:
    """Two images of noise and their CSV."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("new0.jpg", "new1.jpg"):
        noise = rng.integers(0, 255, (40, 40, 3), np.uint8)
        (folder / name).write_bytes(simplejpeg.encode_jpeg(noise))
    rows = {"image_id": ["NEW_0", "NEW_1"], "image": ["new0.jpg", "new1.jpg"]}
    frame = pd.DataFrame({**rows, "label": ["malignant", "benign"], **columns})
    frame.to_csv(folder / "extra.csv", index=False)
    return folder / "extra.csv"


@pytest.mark.slow
def test_extra_images_train_with_their_weight_and_never_beside_their_parents_fold(
    archive32: Path, places: dict[str, str], commands: ForkServer, tmp_path: Path
) -> None:
    metadata = pd.read_csv(archive32 / "train-metadata.csv", low_memory=False)
    patients = metadata.groupby("patient_id", sort=False)["isic_id"].first()
    for k, parent in enumerate(patients[:2]):
        folder = tmp_path / f"new{k}"
        extra = extra_csv(folder, parent_id=[parent, None], weight=[0.5, 2.0])
        run, text = train(
            commands,
            places,
            *("data=isic2024", f"data.root={archive32}", f"data.extra={extra}"),
            name=f"it{k}",
        )
        file = Path(read_predictions(run / "fold0" / "oof.parquet").attrs["split_file"])
        table = open_split(file).table.set_index("image_id")
        assert (table.loc[["NEW_0", "NEW_1"], "fold"] == -2).all()
        assert table.loc["NEW_0", "group"] == table.loc[parent, "group"]
        n = int((table["fold"] == 1).sum()) + 1 + int(table.loc[parent, "fold"] != 0)
        assert f"{n} training rows" in text
        shutil.rmtree(folder)
        code, text = commands.run("predict.py", f"ckpt={run / 'fold0'}", "trainer=cpu", env=places)
        assert code == 0, f"extra images are not needed to predict\n{text}"


@pytest.mark.slow
@pytest.mark.parametrize("data", ["isic2019", "isic2020", "isic2024", "milk10k"])
def test_real_samples_train_from_where_they_lie(
    real_root: Path, places: dict[str, str], commands: ForkServer, data: str
) -> None:
    root = real_root / data
    asked = [*TINY, "trainer.max_epochs=1", "name=it", f"data={data}", f"data.root={root}"]
    if data in ("isic2019", "isic2020"):
        code, text = commands.run("train.py", *asked, env=places)
        assert code == 3
        assert "data.missing_images=drop" in text
        asked.append("data.missing_images=drop")
    code, text = commands.run("train.py", *asked, env=places)
    assert code == 0, text
    run = Path(places["ISIC_RUNS_ROOT"]) / "it" / "fold0"
    assert read_score(run / "score.json")["n"] > 10
    code, text = commands.run("predict.py", f"ckpt={run}", "trainer=cpu", env=places)
    assert code == (0 if data == "isic2024" else 3), text
    assert data == "isic2024" or "no image of that part lies under" in text
