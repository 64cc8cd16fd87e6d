"""The command line without starting a job: help, nearest keys and choices, verbs, exit codes.

Commands run in this process; whole processes are the matter of test_exit_codes.py.
"""

import logging
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue

from isic.__main__ import VERBS, main
from isic.cli import _in_one_line, command, exit_code, known_keys
from isic.errors import CheckpointError, ConfigError, DataError, IsicError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command as `train.py ARGUMENTS`; exit code, standard output and error."""
    before = signal.getsignal(signal.SIGTERM)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as stop:
            if name == "isic":
                main()
                sys.exit(0)
            command(name, "tests.test_cli:job")
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    yield start
    signal.signal(signal.SIGTERM, before)
    root.handlers[:], root.level = handlers, level
    GlobalHydra.instance().clear()


def job(cfg: object) -> str:
    """A job that raises what an environment variable names."""
    import os

    fault = os.environ.get("TEST_FAULT")
    if fault:
        raise {"data": DataError, "other": ZeroDivisionError, "isic": IsicError}[fault]("expected")
    return "pAUC 0.1"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train", ["python train.py model=effnetv2", "-m fold=0,1,2,3,4", "fold=all", "--cfg job"]),
        ("predict", ["python predict.py ckpt=runs/NAME", "tta=d4", "combine=rank_mean"]),
        ("synth", ["python -m isic synth", "n_images=2000"]),
        ("check", ["python -m isic check"]),
        ("runs", ["python -m isic runs"]),
    ],
)
def test_help_gives_examples(run: Run, name: str, words: list[str]) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    for word in words:
        assert word in out
    own, _, _ = out.partition("== Choices")  # whose lines are Hydra's, one a group
    assert max(map(len, own.splitlines())) <= 100


def test_help_of_train_lists_every_group_and_choice(run: Run) -> None:
    from isic.cli import CONF

    _, out, _ = run("train", "--help")
    groups = "data model transforms sampler loss optim folds trainer callbacks logger experiment"
    for group in groups.split():
        line = next(line for line in out.splitlines() if line.startswith(f"{group}: "))
        for path in (CONF / group).glob("*.yaml"):
            assert path.stem in line.replace(",", " ").split(), path


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("modle=effnetv2", "model"),
        ("optim.optimizer.learning_rate=1", "optim.optimizer"),
        ("optm.optimizer.lr=1", "optim.optimizer.lr"),
        ("lr=1", "optim.optimizer.lr"),
        ("epochs=3", "trainer.max_epochs"),
        ("max_epochs=3", "trainer.max_epochs"),
        ("batch_size=3", "data.batch_size"),
        ("data.rot=x", "data.root"),
        ("trainer.gpus=1", "trainer"),
        ("sed=1", "seed"),
    ],
)
def test_a_wrong_key_gives_the_nearest_right_one(run: Run, wrong: str, near: str) -> None:
    code, out, err = run("train", wrong)
    assert code == 2
    assert wrong.partition("=")[0] in err
    assert near in err
    assert "Traceback" not in err
    assert "pAUC" not in out + err


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("model=resnet19", "resnet18"),
        ("trainer=gpus", "gpu"),
        ("optim=adam", "adamw"),
        ("loss=focall", "focal"),
        ("data=isic2042", "isic2024"),
    ],
)
def test_a_wrong_choice_gives_the_right_ones(run: Run, wrong: str, near: str) -> None:
    code, _, err = run("train", wrong)
    assert code == 2
    assert f"{wrong}: no such choice" in err
    assert near in err


def test_a_wrong_choice_in_a_list_gives_the_right_ones(run: Run) -> None:
    code, _, err = run("stack", "features=[metadata,lesion_shapes]")
    assert code == 2 and "features=lesion_shapes: no such choice" in err
    assert "Did you mean lesion_shape" in err


@pytest.mark.parametrize("wrong", ["seed=x", "overwrite=maybe", "seed=", "'", "model="])
def test_values_that_cannot_be_are_2(run: Run, wrong: str) -> None:
    code, _, err = run("train", wrong)
    assert code == 2
    assert err.startswith("error: ")


def test_a_job_that_is_done_is_0(run: Run) -> None:
    assert run("runs")[0] == 0


@pytest.mark.parametrize(("fault", "code"), [("data", 3), ("other", 1), ("isic", 1)])
def test_a_job_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch, fault: str, code: int) -> None:
    monkeypatch.setenv("TEST_FAULT", fault)
    got, _, err = run("runs")
    assert got == code
    assert "expected" in err
    assert ("Traceback" in err) == (fault == "other")  # a stack trace only where it is ours


def test_a_multirun_prints_a_table_of_its_jobs(run: Run) -> None:
    code, out, _ = run("train", "-m", "fold=0,1")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines() if "done" in line] == [
        *(["fold=0", "done"], ["fold=1", "done"])
    ]


def test_the_config_can_be_printed(run: Run) -> None:
    code, out, _ = run("train", "--cfg", "job", "model=resnet18", "seed=7")
    assert code == 0
    assert "seed: 7" in out
    assert "backbone: resnet18" in out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (IsicError("x"), 1),
        (ConfigError("x"), 2),
        (DataError("x"), 3),
        (CheckpointError("x"), 4),
        (HydraException("x"), 2),
        (OverrideParseException("a", "x"), 2),
        (ConfigKeyError("x"), 2),
        (ValueError("x"), 1),
        (MemoryError(), 1),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_what_a_constructor_raised_counts_not_what_hydra_made_of_it() -> None:
    wrapped = InstantiationException("Error in call to target")
    wrapped.__cause__ = DataError("no such folder")
    assert exit_code(wrapped) == 3


def test_an_error_of_ours_that_another_of_ours_led_to_keeps_its_own_code() -> None:
    refused = CheckpointError("run/last.ckpt: its network cannot be built here")
    refused.__cause__ = ConfigError("model.fusion: expected kind, got _target_")
    assert exit_code(refused) == 4


def test_known_keys_hold_groups_and_their_keys() -> None:
    keys = known_keys("train")
    assert {"model", "data.root", "optim.optimizer.lr", "trainer.max_epochs", "seed"} <= set(keys)


@pytest.mark.slow
def test_verbs(run: Run) -> None:
    for argument in ("--help", "-h"):
        code, out, _ = run("isic", argument)
        assert code == 0
        assert all(f"  {verb}" in out for verb in VERBS)
    code, _, err = run("isic", "chekc")
    assert code == 2
    assert "no verb 'chekc'" in err
    assert "Did you mean check?" in err
    assert run("isic", "runs", "--help")[0] == 0


def test_the_table_of_jobs_says_what_is_wrong_and_not_what_to_do():
    assert _in_one_line(DataError("no such folder /x\nSet data.root")) == "no such folder /x"
    listed = "/x cannot be used:\n  - no column 'dx'\n  - no column 'image'\nCorrect it."
    assert _in_one_line(DataError(listed)) == "/x cannot be used: no column 'dx'"
    assert _in_one_line(ZeroDivisionError("by zero")) == "ZeroDivisionError: by zero"


def test_a_value_that_must_be_given_is_named() -> None:
    with pytest.raises(MissingMandatoryValue) as caught:
        _ = OmegaConf.create({"predictions": "???"}).predictions
    assert _in_one_line(caught.value).startswith("predictions: expected a value, got none")
    assert exit_code(caught.value) == 2


def test_a_name_with_accents_is_not_told_to_wear_quotes(run: Run) -> None:
    code, _, err = run("train", "name=été")
    assert code == 2
    assert "name: expected letters a to z" in err and "quotes" not in err
