"""What a sweep costs beside its trainings: a worker's trial against the same training alone.

Ours is a trial as a worker runs it: claimed in SQLite, drawn, composed, trained in a fork, watched,
told, and what it leaves deleted. Alone is the same frozen config in a fork of the same process, so
that both start alike; its end is seen within 5 ms. Each trial is followed by its training alone. A
busy machine stretches both: the CPU seconds of the worker itself are logged as well.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import yaml
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore

from benchmarks.tiles import bench_root
from isic.acquire.synthetic import write_isic2024
from isic.cli import CONF
from isic.config import SCHEMAS
from isic.search.compose import Composer, check_space
from isic.search.forks import Jobs
from isic.search.loop import Member, Sweep
from isic.search.options import SearchOptions
from isic.search.space import read_space

TARGET = 1.0  # seconds a trial

log = logging.getLogger(__name__)


@contextmanager
def sweep_of(runs: Path, n_trials: int) -> Iterator[Sweep]:
    """The sweep of `python sweep.py space=image` on tiny trainings."""
    root = write_isic2024(bench_root() / "sweep", n_images=161, n_test=8, size_range=32)
    words = (
        "model=resnet18 model.backbone=test_resnet.r160_in1k model.pretrained=false trainer=cpu "
        "data.image_size=32 data.num_workers=0 split.n_folds=2 logger=csv trainer.max_epochs=3"
    ).split()
    places = [f"data.root={root}", f"paths.runs={runs}", f"paths.cache={bench_root()}"]
    search = SearchOptions(
        name="study", folder=runs / "study", stage="train", n_trials=n_trials, n_workers=1,
        storage=None, folds=(0,), monitor="val/pauc", direction="maximize", seed=0, heartbeat=15.0,
        keep_weights=3, give_up_after=3,
    )  # fmt: skip
    ConfigStore.instance().store(name="train_schema", node=SCHEMAS["train"])
    space = read_space(yaml.safe_load((CONF / "space" / "image.yaml").read_text()))
    pruner = yaml.safe_load((CONF / "pruner" / "none.yaml").read_text())
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composer = Composer("train", [*words, *places])
        check_space(space, composer)
        yield Sweep(search, space, composer, {}, pruner)


def alone(jobs: Jobs, config: dict[str, Any], folder: Path) -> float:
    """Seconds of a training from its fork to its end."""
    begun = time.perf_counter()
    pid = jobs.start("train", config, folder / "alone.yaml", folder / "alone.log")
    while (code := jobs.poll(pid)) is None:
        time.sleep(0.005)
    if code:
        raise RuntimeError((folder / "alone.log").read_text())
    return time.perf_counter() - begun


def measure(n_trials: int) -> tuple[list[tuple[float, float]], list[float]]:
    """Seconds of (a trial, its training alone), and the worker's own CPU seconds in a trial."""
    pairs, own = [], []
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        with (
            sweep_of(runs, n_trials) as this,
            this.joined(announce=False) as (store, study),
            Member(this, store, study) as member,
        ):
            this.make_ready(study, member.jobs)
            for number in range(n_trials):
                begun, cpu = time.perf_counter(), time.process_time()
                trial = member.next_trial()
                assert trial is not None
                member.run(trial)
                seconds = time.perf_counter() - begun
                own.append(time.process_time() - cpu)
                frozen = runs / "study" / f"{number:04d}" / "fold0.yaml"
                config = yaml.safe_load(frozen.read_text()) | {"name": f"alone{number}"}
                pairs.append((seconds, alone(member.jobs, config, Path(folder))))
    return pairs, own


def run(*, n_trials: int = 7) -> list[dict[str, Any]]:
    """The one bar: seconds of a trial beyond its training."""
    pairs, own = measure(n_trials)
    beyond = sorted(ours - theirs for ours, theirs in pairs)
    log.info(
        "sweep: %d trials, %.2f to %.2f s beyond the training; the worker's own CPU %.2f s a trial",
        *(n_trials, beyond[0], beyond[-1], median(own)),
    )
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    return [
        {
            "name": "sweep_trial_vs_training_alone (ratio: seconds beyond)",
            "ours": round(ours, 2),
            "baseline": round(theirs, 2),
            "ratio": round(median(beyond), 3),
            "target": TARGET,
            "ok": median(beyond) <= TARGET,
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a sweep costs.")
    parser.add_argument("--trials", type=int, default=7)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="# %(message)s")
    for bar in run(n_trials=arguments.trials):
        print(" ".join(str(value) for value in bar.values()))


if __name__ == "__main__":
    main()
