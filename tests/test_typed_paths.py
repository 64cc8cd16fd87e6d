"""A few commands from end to end with paths as people type them: odd names, other folders."""

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.commands import TINY, ForkServer

ODD = "it's=(odd) [x]#;&%?é{b}"
EPOCH = ("trainer.max_epochs=1", "model.pretrained=false")


@pytest.fixture
def place(tmp_path: Path, archive32: Path) -> Path:
    """A folder of odd names with the archive in it, read-only, behind a link."""
    place = tmp_path / ODD
    (place / "cwd").mkdir(parents=True)
    (place / "dä,ta=").symlink_to(archive32)
    return place


@pytest.mark.slow  # a training and a prediction
def test_everything_works_in_folders_of_odd_names_and_from_any_folder(
    commands: ForkServer, place: Path
) -> None:
    env = {"ISIC_RUNS_ROOT": "../ru%ns?", "ISIC_CACHE_ROOT": str(place / "ca,che")}
    words = [*(w for w in TINY if not w.startswith("data.root")), "data=isic2024", *EPOCH]
    here = f"import os; os.chdir({str(place / 'cwd')!r})"
    code, text = commands.run(
        *("train.py", *words, 'data.root="../dä,ta="', "name=u", "fold=0"), env=env, prelude=here
    )
    assert code == 0, text
    run = place / "ru%ns?" / "u"
    stored = yaml.safe_load((run / "fold0" / "config.yaml").read_text())
    assert stored["data"]["root"] == "../dä,ta="
    # from elsewhere, without saying where the archive lies
    other = place.parent / "other"
    other.mkdir()
    there = f"import os; os.chdir({str(other)!r})"
    code, text = commands.run(
        *("predict.py", f"ckpt=../{ODD}/ru%ns?/u/fold0", "trainer=cpu", "output=o(ut)"),
        env=env,
        prelude=there,
    )
    assert code == 0, text
    assert (other / "o(ut)" / "submission.csv").is_file()
    source = json.loads((other / "o(ut)" / "source.json").read_text())
    assert Path(source["root"]) == Path(os.path.realpath(place / "dä,ta="))


def test_a_quoted_word_reaches_the_jobs_of_a_launcher(commands: ForkServer, place: Path) -> None:
    env = {"ISIC_RUNS_ROOT": str(place / "ru%ns?"), "ISIC_CACHE_ROOT": str(place / "ca,che")}
    code, text = commands.run(
        *("isic", "check", "-m", f"data.root={place}/dä*,{place}/a=b", "images=false"),
        *("overlap=false", "hydra/launcher=local", "data=folder"),
        env=env,
    )
    assert code == 1
    for name in ("dä*", "a=b"):
        assert f"no such folder {place}/{name}; set data.root" in text
