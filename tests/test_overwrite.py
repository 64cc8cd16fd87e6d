"""Two commands with overwrite=true at once: one's results stay, whole."""

import json

import pytest

from isic.assemble import assemble_run
from isic.files import overwrites
from isic.runs import RunFolder


def test_what_another_process_made_meanwhile_is_not_overwritten(tmp_path, caplog):
    assert overwrites(True, waited=False, folder=tmp_path)
    assert not overwrites(False, waited=True, folder=tmp_path)
    assert not caplog.text
    assert not overwrites(True, waited=True, folder=tmp_path)
    assert str(tmp_path) in caplog.text
    assert "the same command again overwrites it" in caplog.text


def test_a_fold_that_is_thrown_away_is_not_put_together(tmp_path, monkeypatch):
    """The other process empties it while this one waits to read it."""
    from isic import assemble

    folders = [RunFolder(tmp_path / f"fold{k}") for k in range(2)]
    for folder in folders:
        folder.path.mkdir()
        folder.score_file.write_text("{}")
    held = assemble.waiting_lock

    def waits(path, doing):
        folders[0].empty()
        return held(path, doing)

    monkeypatch.setattr(assemble, "waiting_lock", waits)
    assert assemble_run(tmp_path, None, {}, n_folds=2) is None
    assert not (tmp_path / "score.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_two_at_once(commands, tiny, tmp_path, same):
    env = {"ISIC_RUNS_ROOT": str(tmp_path), "ISIC_CACHE_ROOT": str(tmp_path / "cache")}
    words = ["train.py", *tiny, "name=both", "overwrite=true"]
    first = commands.start(*words, "trainer.max_epochs=12", env=env)
    first.wait_for("epoch 1")
    other = commands.start(*words, f"trainer.max_epochs={12 if same else 13}", env=env)
    assert (first.wait(), other.wait()) == (0, 0 if same else 2), first.text + other.text
    assert "another process was at it" in other.text
    assert ("holds another experiment" in other.text) != same
    fold = tmp_path / "both/fold0"
    score = json.loads((fold / "score.json").read_text())
    name, value = next(iter(score["metrics"].items()))
    assert f"{name} {value['value']:.4f}" in first.text
    table = (fold / "metrics.csv").read_text()
    assert table.count("val/loss") == 12
