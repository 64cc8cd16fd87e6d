"""One `config.yaml` that is garbled hides no other run and stops no other command."""

import json

import pytest

from isic.engine.clean import clean
from isic.errors import ConfigError, DataError
from isic.identity import read_config, same_experiment
from isic.runs import RunFolder
from isic.stages.runs import runs

CONFIG = "{name: good, seed: 0, n_folds: 2, evaluate: last, fold: 0, data: {root: d}}\n"
SCORE = {"metrics": {}, "n": 0} | dict.fromkeys(("seconds", "images_per_second"), 60.0)
SCORE["peak_memory_mb"] = 1024.0
GARBLED = {
    "empty": b"",
    "binary": bytes(range(256)),
    "torn": b"data: {root: d\nseed: [",
    "no keys": b"just words\n",
    "other keys": b"name: x\n",
    "a list": b"- 1\n- 2\n",
    "a date": b"seed: 2024-13-45\n",
}


@pytest.fixture(params=GARBLED)
def root(tmp_path, request):
    for name, content in (("good", CONFIG.encode()), ("bad", GARBLED[request.param])):
        fold = tmp_path / name / "fold0"
        fold.mkdir(parents=True)
        (fold / "config.yaml").write_bytes(content)
        (fold / "score.json").write_text(json.dumps(SCORE))
    return tmp_path


class Options(dict):
    __getattr__ = dict.__getitem__


def said(caplog):
    """Every line, of records that hold several too."""
    return "\n".join(caplog.messages).splitlines()


def options(root, **more):
    return Options(paths=Options(runs=str(root)), **more)


def test_the_others_are_listed_and_the_reason_is_said(root, caplog):
    caplog.set_level("INFO")
    runs(options(root))
    good, bad = (next(x for x in said(caplog) if x.startswith(n)) for n in ("good", "bad"))
    assert "not scored" in good
    assert "1/2" in good
    assert "cannot be read" in bad
    assert "\n" not in bad
    assert str(root / "bad/fold0/config.yaml") in bad


def test_what_is_behind_a_score_makes_no_line_of_the_table_long(tmp_path, caplog):
    caplog.set_level("INFO")
    auc = {"value": 0.7, "low": 0.6, "high": 0.8, "undefined": 0.01, "classes": ["a", "b"]}
    fold = tmp_path / "good/fold0"
    fold.mkdir(parents=True)
    (fold / "config.yaml").write_text(CONFIG)
    (fold / "score.json").write_text(json.dumps({**SCORE, "metrics": {"auc": auc}}))
    runs(options(tmp_path))
    [line] = [x for x in said(caplog) if x.startswith("good")]
    assert "auc 0.7000 [0.6000, 0.8000], one fold" in line
    assert "resamples" not in line


@pytest.mark.parametrize("file", ["config.yaml", "prepared.yaml"])
def test_a_stack_or_a_study_that_is_garbled(root, caplog, file):
    caplog.set_level("INFO")
    (root / "other").mkdir()
    (root / "bad/fold0/config.yaml").rename(root / "other" / file)
    (root / "other/trials.csv").write_bytes(b"")
    runs(options(root))
    assert any(line.startswith("good") for line in said(caplog))
    if file == "prepared.yaml":
        assert any(x.startswith("study other: cannot be read") for x in said(caplog))


def test_cleaning_goes_on(root, caplog):
    caplog.set_level("INFO")
    clean(options(root, clean="show"))
    if (root / "bad/fold0/config.yaml").read_bytes() != GARBLED["other keys"]:
        assert f"{root / 'bad/fold0'} cannot be read" in caplog.text
    assert f"{root / 'good/fold0'} cannot" not in caplog.text


def test_a_command_without_a_name_passes_it_over(root):
    (root / "bad").rename(root / "d-m-012345")
    assert same_experiment(root, "d-m", {"seed": 7}, None, at="fold*/config.yaml") is None


def test_its_own_command_says_so_and_overwrites_it(root):
    folder = RunFolder(root / "bad/fold0")
    with pytest.raises((ConfigError, DataError), match=r"bad.fold0"):
        folder.claim({"seed": 7}, {"n_folds": 2})
    folder.claim({"seed": 7}, {"n_folds": 2}, overwrite=True)
    assert read_config(folder.config_file)["seed"] == 7
    assert not folder.finished
