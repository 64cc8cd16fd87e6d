"""A run's name, folder and lock: the same experiment is found again, another one is refused."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from isic.errors import ConfigError
from isic.files import waiting_lock, whole_file, write_text
from isic.flat_config import flatten
from isic.identity import differing, identity, run_name
from isic.runs import RunFolder

CONFIG = {
    "name": "run",
    "seed": 0,
    "fold": 1,
    "data": {"root": "here", "batch_size": 8},
    "optim": {"optimizer": {"lr": 0.1}, "warmup_epochs": 1},
    "logger": {"wandb": {"mode": "offline"}},
    "paths": {"runs": "runs"},
}


def with_(**changes):
    return {**CONFIG, **changes}


def test_flat_keys():
    assert flatten({"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "f": None}) == {
        "a.b": 1,
        "a.c.d": [1, {"e": 2}],
        "f": None,
    }


def test_identity_leaves_out_place_fold_and_logger():
    assert set(identity(CONFIG)) == {
        *("seed", "data.batch_size", "optim.optimizer.lr", "optim.warmup_epochs")
    }
    assert set(identity({"data": {"rooted": 1}, "named": 2})) == {"data.rooted", "named"}


def test_a_key_that_is_null_is_as_one_that_is_not_there():
    later = with_(distill=None, data={"root": "here", "batch_size": 8, "crop": None})
    assert identity(later) == identity(CONFIG)
    names = [
        run_name({**c, "name": None}, data="d", model="m", content="") for c in (CONFIG, later)
    ]
    assert names[0] == names[1]
    assert differing(CONFIG, with_(seed=None)) == ["seed: 0 -> None"]


def test_a_metric_beside_the_monitored_one_changes_nothing_that_is_learnt():
    def measured(monitor="val/auc", **functions):
        functions = {k: {"_target_": v} for k, v in functions.items()}
        return with_(metrics={"monitor": monitor, "mode": "max", "functions": functions})

    one = measured(auc="a")
    assert identity(one) == identity(measured(auc="a", accuracy="b"))
    assert differing(one, measured(auc="c")) == ["metrics.functions.auc._target_: a -> c"]
    assert identity(one) != identity(measured("val/loss", auc="a"))


def test_name_does_not_depend_on_the_order_of_keys():
    backwards = {k: CONFIG[k] for k in reversed(CONFIG)}
    names = [
        run_name({**c, "name": None}, data="d", model="m", content="aa")
        for c in (CONFIG, backwards)
    ]
    assert names[0] == names[1]
    assert names[0].startswith("d-m-")


@pytest.mark.parametrize("name", ["mine", "a.b_c-1", "x" * 100])
def test_given_names(name):
    assert run_name({"name": name}, data="d", model="m", content="aa") == name


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", ".hidden", "-m", "x" * 101, "a\nb"])
def test_names_that_would_leave_their_folder(name):
    with pytest.raises(ConfigError, match="name: expected letters"):
        run_name({"name": name}, data="d", model="m", content="aa")


def test_a_claimed_folder_is_claimed_again_by_the_same_experiment(tmp_path):
    folder = RunFolder(tmp_path / "run" / "fold1")
    assert not folder.finished
    folder.claim(CONFIG, {"archive": "aa"})
    stored = folder.config_file.read_bytes()
    assert yaml.safe_load(stored) == {**CONFIG, "archive": "aa"}
    moved = with_(logger={"wandb": None}, data={"root": "there", "batch_size": 8})
    folder.claim(moved, {"archive": "aa"})
    assert folder.config_file.read_bytes() == stored


def begun(folder):
    """As after the first epoch."""
    folder.last.parent.mkdir()
    folder.last.touch()


def test_another_experiment_is_refused_with_the_differing_keys(tmp_path):
    folder = RunFolder(tmp_path / "run" / "fold1")
    folder.claim(CONFIG, {"archive": "aa"})
    begun(folder)
    other = with_(seed=3, optim={"optimizer": {"lr": 0.2}}, extra=1)
    with pytest.raises(ConfigError) as caught:
        folder.claim(other, {"archive": "aa"})
    for difference in (
        *("seed: 0 -> 3", "optim.optimizer.lr: 0.1 -> 0.2", "extra: None -> 1"),
        *("optim.warmup_epochs: 1 -> None", "overwrite=true", str(folder.path)),
    ):
        assert difference in str(caught.value)
    with pytest.raises(ConfigError, match="archive: aa -> bb"):
        folder.claim(CONFIG, {"archive": "bb"})


def test_the_same_command_says_nothing_of_other_batches(tmp_path, caplog):
    folder = RunFolder(tmp_path / "run" / "fold1")
    folder.claim(CONFIG, {"archive": "aa"})
    begun(folder)
    folder.claim(CONFIG, {"archive": "aa"}, trained=lambda: True)
    assert "batches" not in caplog.text


def test_folds_of_one_name_are_folds_of_one_experiment(tmp_path):
    first = RunFolder(tmp_path / "run" / "fold0")
    first.claim(CONFIG, {"archive": "aa"})
    begun(first)
    with pytest.raises(ConfigError, match="fold0 holds another experiment: seed: 0 -> 3"):
        RunFolder(tmp_path / "run" / "fold1").claim(with_(seed=3), {"archive": "aa"})


def test_folds_given_up_before_their_first_epoch_hold_nothing(tmp_path):
    folds = [RunFolder(tmp_path / "run" / f"fold{k}") for k in (0, 1)]
    for fold in folds:
        with fold.lock():
            fold.claim(CONFIG, {"archive": "aa"})
        (fold.path / "metrics.csv").touch()
    with folds[0].lock():
        folds[0].claim(with_(seed=3), {"archive": "aa"})
    assert yaml.safe_load(folds[0].config_file.read_text())["seed"] == 3
    assert {p.name for p in folds[0].path.iterdir()} == {".lock", "config.yaml"}
    assert not folds[1].config_file.exists()


def test_only_the_leading_rank_clears_and_writes(tmp_path):
    folder = RunFolder(tmp_path / "run" / "fold0")
    folder.claim(CONFIG, {"archive": "aa"})
    stored, other = folder.config_file.read_bytes(), with_(seed=3)
    (folder.path / "metrics.csv").touch()
    folder.claim(other, {"archive": "aa"}, leads=False)
    assert folder.config_file.read_bytes() == stored
    assert (folder.path / "metrics.csv").exists()
    RunFolder(tmp_path / "new" / "fold0").claim(other, {"archive": "aa"}, leads=False)
    assert not (tmp_path / "new").exists()
    begun(folder)
    with pytest.raises(ConfigError, match="fold0 holds another experiment"):
        folder.claim(other, {"archive": "aa"}, leads=False)


def claim_beside(k, path, both, answers):
    """As one of two processes that start at once: each holds the lock of its fold."""
    folder = RunFolder(path / f"fold{k}")
    with folder.lock():
        both.wait()
        try:
            folder.claim(with_(seed=3, fold=k), {"archive": "aa"})
            answers.put("claimed")
        except ConfigError as error:
            answers.put(str(error))
        both.wait()


def test_folds_that_start_at_once_over_a_first_try_do_not_refuse_each_other(tmp_path):
    folds = [RunFolder(tmp_path / f"fold{k}") for k in (0, 1)]
    for fold in folds:
        fold.claim(CONFIG, {"archive": "aa"})
    context = multiprocessing.get_context("fork")
    both, answers = context.Barrier(2), context.Queue()
    started = [
        context.Process(target=claim_beside, args=(k, tmp_path, both, answers)) for k in (0, 1)
    ]
    for process in started:
        process.start()
    assert [answers.get(timeout=20) for _ in started] == ["claimed"] * 2
    for process in started:
        process.join()
    assert [yaml.safe_load(f.config_file.read_text())["seed"] for f in folds] == [3, 3]


def test_a_fold_that_is_at_its_first_epoch_is_not_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("isic.runs.SETTLE", 0.2)
    first, second = (RunFolder(tmp_path / "run" / f"fold{k}") for k in (0, 1))
    with first.lock():
        first.claim(CONFIG, {"archive": "aa"})
        with second.lock(), pytest.raises(ConfigError, match="fold0 holds another experiment"):
            second.claim(with_(seed=3), {"archive": "aa"})


def test_a_requeued_job_overwrites_once(tmp_path):
    folder = RunFolder(tmp_path / "run" / "fold1")

    def started(job, times, config=CONFIG):
        with folder.lock():
            folder.claim(config, {"archive": "aa"}, overwrite=True, start=(job, times))
        kept = folder.last.exists()
        folder.last.parent.mkdir(exist_ok=True)
        folder.last.touch()
        return kept

    folder.claim(CONFIG, {"archive": "aa"})
    begun(folder)
    assert not started("7_1", 0), "what stood there before"
    assert not started("7_1", 0), "the same command twice in one allocation throws away twice"
    assert started("7_1", 1)
    assert started("7_1", 2)
    assert not started("7_1", 2, with_(seed=3)), "another experiment"
    assert not started("8_1", 0)
    assert not started("7_1", 3), "it is of job 8 now"


def test_differing_of_equals_is_empty():
    assert differing(CONFIG, with_(fold=4, name="other")) == []


def test_score_and_state(tmp_path):
    folder = RunFolder(tmp_path)
    write_text(folder.score_file, '{"metrics": {}}')
    assert folder.finished
    assert folder.last.parent == folder.best.parent == tmp_path / "checkpoints"


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "score.json"
    write_text(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_two_machines_may_have_the_same_process_id(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path, both, failed = tmp_path / "split.csv", threading.Barrier(2), []

    def write(letter):
        try:
            with whole_file(path) as file:
                file.write(letter * 100_000)
                both.wait(10)
        except OSError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failed
    assert len(set(path.read_bytes())) == 1, "one of them, whole"
    assert list(tmp_path.iterdir()) == [path]


def hold(path: Path, held: "multiprocessing.synchronize.Event") -> None:
    with waiting_lock(path, "holding"):
        held.set()
        time.sleep(60)


def test_a_lock_waits_says_so_and_dies_with_its_holder(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, held = tmp_path / "run" / ".lock", multiprocessing.get_context("fork").Event()
    holder = multiprocessing.get_context("fork").Process(target=hold, args=(path, held))
    holder.start()
    try:
        assert held.wait(20)
        killer = multiprocessing.get_context("fork").Process(
            target=lambda: (time.sleep(0.3), os.kill(holder.pid, signal.SIGKILL))
        )
        killer.start()
        with waiting_lock(path, "training it"):
            pass
        killer.join()
    finally:
        holder.kill()
        holder.join()
    assert "waiting for another process that is training it" in caplog.text


def test_a_free_lock_says_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(2):
        with waiting_lock(tmp_path / ".lock", "training"):
            pass
    assert caplog.text == ""
