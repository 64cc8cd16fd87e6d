"""`predict.py stack=`: image models, features and stackers, of one test set in one command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.checksums import KEY
from isic.predictions import read_predictions, write_predictions
from tests.commands import ForkServer

pytestmark = pytest.mark.slow  # whole commands

OFFLINE = """
import socket
def refused(*args):
    raise OSError("no network here")
socket.socket.connect = refused
"""
TABULAR = ["features=[lesion_shape,patient_context,clusters,image_scores,patient_scores]"]
SMALL = ["stacker.lightgbm.n_estimators=10", "n_seeds=2", "split.n_folds=2", "logger=csv"]


@pytest.fixture(scope="module")
def base(
    commands: ForkServer,
    two_folds: tuple[Path, str],
    tiny_archive: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A runs folder with the image run `two`, a stack `s` of it, and a stack `top` of both."""
    base = tmp_path_factory.mktemp("stacked") / "runs"
    shutil.copytree(two_folds[0].parent, base)
    for name, more in (
        ("s", ["runs=[two]", *TABULAR]),
        ("top", ["runs=[two,s]", "features=image_scores", "stacker=logistic", "fold=all"]),
    ):
        small = SMALL if name == "s" else SMALL[1:]
        code, text = commands.run(
            "isic", "stack", f"data.root={tiny_archive}", f"name={name}", *small, *more,
            env={"ISIC_RUNS_ROOT": str(base)},
        )  # fmt: skip
        assert code == 0, text
    return base


def predicted(commands: ForkServer, base: Path, *words: str, prelude: str = "") -> tuple[int, str]:
    env = {"ISIC_RUNS_ROOT": str(base)}
    return commands.run("predict.py", "trainer=cpu", *words, env=env, prelude=prelude)


@pytest.mark.parametrize("name", ["s", "top"])
def test_the_test_rows_get_what_the_stack_gave_them(commands, base, tiny_archive, name) -> None:
    """Offline, from checkpoints and `stack.json` alone, of a stack and of a stack on a stack."""
    output = base.parent / f"out-{name}"
    code, text = predicted(
        commands, base, f"stack={name}", f"output={output}", f"data.root={tiny_archive}",
        prelude=OFFLINE,
    )  # fmt: skip
    assert code == 0, text
    got, wanted = (
        read_predictions(path).set_index("image_id")
        for path in (output / "predictions.parquet", base / name / "test.parquet")
    )
    assert np.abs(got["prob_malignant"] - wanted["prob_malignant"][got.index]).max() < 1e-6
    submission = pd.read_csv(output / "submission.csv")
    assert len(submission) == 21 and submission["target"].between(0, 1).all()


def test_what_is_not_there_is_said_before_an_image_is_decoded(commands, base, tmp_path) -> None:
    runs = Path(shutil.copytree(base, tmp_path / "runs"))
    shutil.rmtree(runs / "two")
    code, text = predicted(commands, runs, "stack=s")
    assert code == 3 and "was fitted on run two, which is not at" in text
    assert "predicting with" not in text
    code, text = predicted(commands, runs, "stack=absent")
    assert code == 3 and "expected a folder with stack.json" in text


def test_a_run_that_was_trained_anew_is_refused(commands, base, tmp_path) -> None:
    runs = Path(shutil.copytree(base, tmp_path / "runs"))
    path = runs / "two" / "oof.parquet"
    frame = read_predictions(path)
    keys = ("run", "index_hash", "split_hash", "split_file")
    changed = frame.assign(prob_malignant=0.25, prob_benign=0.75)
    write_predictions(path, changed, **{key: frame.attrs[key] for key in keys})
    code, text = predicted(commands, runs, "stack=s")
    assert code == 3 and "two is not as" in text and "predicting with" not in text


def test_a_manifest_of_other_code_is_refused(commands, base, tmp_path) -> None:
    runs = Path(shutil.copytree(base, tmp_path / "runs"))
    path = runs / "s" / "stack.json"
    about = json.loads(path.read_text())
    about["families"]["clusters"] = {"_target_": "os.system", "command": "true"}
    path.write_text(json.dumps({k: v for k, v in about.items() if k != KEY}))
    code, text = predicted(commands, runs, "stack=s")
    assert code == 4 and "families.clusters: expected a feature family" in text
    assert "got os.system" in text and "trust=true lets it" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stack=s", "ckpt=two"], "give stack= or ckpt="),
        (["stack=s", "split=train"], "split: with stack= expected test"),
        (["stack=s", "decide=argmax"], "gives ranks, no probabilities"),
        ([], "or a stack, got none"),
    ],
)
def test_options_that_a_stack_has_not(commands, base, words, said) -> None:
    code, text = predicted(commands, base, *words)
    assert code == 2 and said in text


def test_a_stack_is_no_checkpoint(commands, base) -> None:
    code, text = predicted(commands, base, "ckpt=s")
    assert code == 4 and "is a stack: predict.py stack=" in text
