"""How far one run is from others on the same rows: difference of each metric with its interval.

    python benchmarks/paired.py runs/A runs/B [runs/C ...]

Prints A minus B, A minus C ... from their out-of-fold predictions, 95 % interval of the paired
bootstrap, which resamples whole patients (lesions, images where there are no others). Runs are
image runs or stacks; metrics and archive are those of A. `--metric NAME` adds one of
`isic.metrics.classification` by its name. An interval above 0 says that A is better. Rows without
an image in either run are left out, unreadable ones scored with the mean, as in `score.json`.
Trap: an image run that chose its checkpoint by the held-out fold is flattered, and so is the
difference.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
import yaml
from hydra.utils import instantiate

from isic.assemble import with_targets
from isic.errors import DataError
from isic.metrics import Metric, classification
from isic.metrics.bootstrap import paired_interval
from isic.predictions import read_predictions
from isic.predictions.table import prob_columns, with_fallback
from isic.prepare import open_index

log = logging.getLogger(__name__)


def compare(first: Path, others: list[Path], names: list[str]) -> list[str]:
    """A line for each run and metric.

    Raises:
        DataError: A run without out-of-fold predictions, or of another archive.
    """
    config = yaml.safe_load(_config(first).read_text())
    data = config["data"]
    index = open_index(
        instantiate(data["index"]), data["root"],
        cache_root=Path(config["paths"]["cache"]), extra=data.get("extra"),
    )  # fmt: skip
    metrics: dict[str, Metric] = dict(instantiate(config["metrics"]["functions"]))
    metrics |= {name: getattr(classification, name) for name in names}
    mine, archive = _scored(first)
    mine = with_targets(mine, index)
    mine = mine[mine["target"].notna()]
    lines, classes = [], index.info.classes
    for other in others:
        theirs, also = _scored(other)
        if also != archive:
            raise DataError(f"{other} was trained on another archive ({also}) than {first}")
        theirs = theirs.set_index("image_id")
        both = mine[mine["image_id"].isin(theirs.index)]
        log.info("# %d rows of %s, %d of them in %s", len(mine), first.name, len(both), other.name)
        lines += [
            f"{first.name} - {other.name}  {name}  {_difference(metric, both, theirs, classes)}"
            for name, metric in metrics.items()
        ]
    return lines


def _difference(
    metric: Metric, mine: pd.DataFrame, theirs: pd.DataFrame, classes: tuple[str, ...]
) -> str:
    """`+difference [low, high]` over the rows of `mine`."""
    columns = prob_columns(classes)
    group = mine["patient_id"].fillna(mine["lesion_id"]).fillna(mine["image_id"])
    values = paired_interval(
        metric,
        mine["target"].to_numpy("int64"),
        mine[columns].to_numpy(),
        theirs.loc[mine["image_id"], columns].to_numpy(),
        group=group.to_numpy(),
    )
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(*values)


def _scored(run: Path) -> tuple[pd.DataFrame, str]:
    """Out-of-fold predictions as they are scored, and the hash of the archive's rows."""
    frame = read_predictions(run / "oof.parquet")
    return with_fallback(frame[frame["status"] != "missing"]), str(frame.attrs["index_hash"])


def _config(run: Path) -> Path:
    """Of a stack, or of the first fold of an image run."""
    own = run / "config.yaml"
    return own if own.exists() else min(run.glob("fold*/config.yaml"))


def main() -> None:
    """Read the command line."""
    about: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **about)
    parser.add_argument("first", type=Path)
    parser.add_argument("others", type=Path, nargs="+")
    parser.add_argument("--metric", action="append", default=[])
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for line in compare(given.first, given.others, given.metric):
        log.info(line)


if __name__ == "__main__":
    main()
