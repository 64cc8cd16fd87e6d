"""What a study leaves: the weights of the best alone, the table, the pictures."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from isic.errors import CheckpointError
from isic.search.results import best_trials, drop_weights, ended, summary, write_results
from tests.search.sweeps import options


def study_of(folder: Path, values: list[float | None], direction: str = "maximize") -> optuna.Study:
    """One trial a value, None for one that failed; each with weights and a score on disk."""
    study = optuna.create_study(direction=direction)
    for i, value in enumerate(values):
        trial = study.ask()
        trial.set_user_attr("run", f"{i:04d}")
        fold = folder / "study" / f"{i:04d}" / "fold0"
        (fold / "checkpoints").mkdir(parents=True)
        (fold / "score.json").write_text("{}")
        trial.suggest_float("optim.optimizer.lr", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("transforms", ["light", "heavy"])
        if value is None:
            trial.set_user_attr("failure", "out of memory")
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)
    return study


def kept(folder: Path) -> list[int]:
    return sorted(int(p.parts[-3]) for p in folder.glob("study/*/fold0/checkpoints"))


@pytest.mark.parametrize(
    ("direction", "expected"), [("maximize", [1, 4, 5]), ("minimize", [0, 2, 3])]
)
def test_the_three_best_keep_their_weights(
    direction: str, expected: list[int], tmp_path: Path
) -> None:
    values = [0.1, 0.9, 0.2, 0.3, 0.9, 0.8, None, 0.5]
    study = study_of(tmp_path, values, direction)
    drop_weights(study, options(tmp_path))
    assert kept(tmp_path) == expected
    assert len(list(tmp_path.glob("study/*/fold0/score.json"))) == len(values)


def test_one_that_runs_or_waits_to_run_again_keeps_what_it_has(tmp_path: Path) -> None:
    from isic.search.slots import put_back

    study = study_of(tmp_path, [0.1, 0.2, 0.3, 0.4, None])
    put_back(study, study.trials[4], deaths=1)
    drop_weights(study, options(tmp_path, keep_weights=1))
    assert kept(tmp_path) == [3, 4]


def test_table_and_pictures_need_no_network(tmp_path: Path) -> None:
    study = study_of(tmp_path, [0.1, 0.9, 0.2, None, 0.3])
    write_results(study, options(tmp_path))
    folder = tmp_path / "study"
    for name in ("history", "importance", "parallel", "slices"):
        page = (folder / f"{name}.html").read_text()
        assert 'src="plotly.min.js"' in page
        assert "cdn" not in page
    assert (folder / "plotly.min.js").exists()
    assert "out of memory" in (folder / "trials.csv").read_text()


def test_a_study_without_a_complete_trial_is_still_told(tmp_path: Path) -> None:
    study = study_of(tmp_path, [None])
    write_results(study, options(tmp_path))
    assert summary(study, options(tmp_path)) == "study: no trial is complete (1 fail)"
    assert ended(study.trials[0]) == "failed: out of memory"


def test_the_line_of_the_best(tmp_path: Path) -> None:
    study = study_of(tmp_path, [0.1, 0.9])
    assert [t.number for t in best_trials(study, 2)] == [1, 0]
    line = summary(study, options(tmp_path))
    assert line.startswith("study: val/auc 0.9 in trial 1: optim.optimizer.lr=")
    assert line.endswith("(2 complete)")


@pytest.mark.parametrize("name", ["../outside", "/", "", "0001/../../outside", "1"])
def test_a_folder_that_a_storage_makes_up_is_not_emptied(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside" / "fold0" / "checkpoints"
    outside.mkdir(parents=True)
    study = study_of(tmp_path, [0.1, 0.9])
    trial = study.ask()
    trial.set_user_attr("run", name)
    study.tell(trial, 0.0)
    with pytest.raises(CheckpointError, match=r"trial 2 says its folder is .*expected a number"):
        drop_weights(study, options(tmp_path))
    assert outside.exists()
