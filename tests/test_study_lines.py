"""What is said of a sweep once it has run: a line in the table of runs, and of dropped weights."""

from pathlib import Path

import pytest

from isic.engine.inference import find_checkpoints
from isic.errors import CheckpointError
from isic.stages.runs import study_lines


@pytest.mark.parametrize(("mode", "best"), [("max", "0.7"), ("min", "0.4")])
def test_a_study_is_one_line(tmp_path: Path, mode: str, best: str) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "prepared.yaml").write_text(f"metrics: {{monitor: val/auc, mode: {mode}}}\n")
    assert "no worker has ended" in study_lines(tmp_path)[0]
    (folder / "trials.csv").write_text(
        "number,value,state\n0,0.4,COMPLETE\n1,0.7,COMPLETE\n2,0.9,PRUNED\n3,,FAIL\n"
    )
    [line] = study_lines(tmp_path)
    assert line.startswith(f"study study: val/auc {best}, best of 2 complete, 4 trials")


def test_a_trial_whose_weights_were_dropped_says_so(tmp_path: Path) -> None:
    fold = tmp_path / "study/trial3/fold0"
    fold.mkdir(parents=True)
    (fold / "config.yaml").write_text("{evaluate: best, fold: 0, n_folds: 1}\n")
    (fold / "score.json").write_text("{}\n")
    with pytest.raises(CheckpointError, match=r"no weights: a sweep keeps .* \(keep_weights\)"):
        find_checkpoints(str(fold.parent))
