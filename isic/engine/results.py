"""The folder that `predict.py` leaves.

`predictions.parquet`, `source.json` (what was predicted, with what), `submission.csv` for test
rows, and where targets exist `score.json`, whose `submitted` scores what the submission holds.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from isic.assemble import score_predictions, submit, with_targets
from isic.checksums import sealed_json
from isic.engine.decide import as_predicted, as_submitted
from isic.errors import ConfigError
from isic.files import write_text
from isic.index.schema import Index, index_hash
from isic.metrics import Metric
from isic.outputs import output_folder
from isic.predictions import score, score_line, write_predictions, write_score
from isic.predictions.fitted import Fitted
from isic.streams import show

log = logging.getLogger(__name__)


class Predicted(Protocol):
    """Whose rows were predicted: a data module, or an archive without one."""

    @property
    def index(self) -> Index: ...

    @property
    def root(self) -> Path: ...


WAYS = ("split", "combine", "tta", "calibrate", "decide", "unknown")


def write_results(
    raw: pd.DataFrame,
    data: Predicted,
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    checkpoints: Sequence[Path],
    fitted: Fitted | None,
    *,
    metrics: Mapping[str, Metric],
) -> str:
    """Write everything that these predictions of the networks give; returns the folder's path.

    record: Of a checkpoint; or of a stack, then with its `config_file`, and whether it gives ranks.
    metrics: That rows with a target are scored by.
    """
    name = record["config"]["name"]
    frame = as_predicted(raw, config, fitted)
    submitted = as_submitted(frame, raw, config, fitted)
    folder = _output(config, name, data, checkpoints)
    attributes = {"run": name, "index_hash": index_hash(data.index.table)}
    attributes["split_hash"] = str(record.get("split_hash"))
    ranks = config["combine"] == "rank_mean" or record.get("ranks", False)
    write_predictions(folder / "predictions.parquet", frame, **attributes, ranks=ranks)
    show(f"predictions: {folder / 'predictions.parquet'}")
    _write_source(folder, record, data, config, checkpoints)
    if config["split"] == "test":
        submit(folder / "submission.csv", submitted, data.index)
        show(f"submission: {folder / 'submission.csv'}")
    truth = data.index.table.set_index("image_id")["target"]
    if truth.reindex(frame["image_id"]).notna().any():
        _write_score(folder, frame, submitted, data, record, config, checkpoints, metrics)
    return str(folder)


def _output(
    config: Mapping[str, Any], name: str, data: Predicted, checkpoints: Sequence[Path]
) -> Path:
    """`output`, or a folder of its own for these checkpoints, rows and ways to combine them."""
    if config["output"]:
        folder = Path(config["output"])
        if (folder / "config.yaml").exists() or list(folder.glob("fold*")):
            raise ConfigError(f"output: {folder} is a run; its scores stay as they are")
    else:
        parts = [config[key] for key in WAYS]
        parts += [str(data.root.resolve()), *(str(p.resolve()) for p in checkpoints)]
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:6]
        runs = Path(config["paths"]["runs"])
        plain = re.sub(r"[^\w.-]+", "-", name)  # of a file: `../..` would lead out of the runs
        folder = runs / "predictions" / f"{plain}-{config['split']}-{key}"
    output_folder(folder, given=bool(config["output"]))
    (folder / "score.json").unlink(missing_ok=True)  # of earlier predictions here
    return folder


def _write_source(
    folder: Path,
    record: Mapping[str, Any],
    data: Predicted,
    config: Mapping[str, Any],
    checkpoints: Sequence[Path],
) -> None:
    """`source.json`: the run, its config and checkpoints, the rows and where their images lie."""
    config_file = record.get("config_file") or checkpoints[0].resolve().parents[1] / "config.yaml"
    source = {
        "run": record["config"]["name"],
        "config": str(config_file),
        "checkpoints": [str(p.resolve()) for p in checkpoints],
        "root": str(data.root.resolve()),
        "images": bool(config["images"]),
        **{key: config[key] for key in WAYS},
    }
    write_text(folder / "source.json", sealed_json(source, indent=1))


def _write_score(
    folder: Path,
    frame: pd.DataFrame,
    submitted: pd.DataFrame,
    data: Predicted,
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    checkpoints: Sequence[Path],
    metrics: Mapping[str, Metric],
) -> None:
    """`score.json` of the predictions; `submitted` beside it where the submission differs."""
    result = score_predictions(frame, data.index, metrics, folder=folder / "curves")
    if submitted is not frame and config["split"] == "test":
        joined = with_targets(submitted, data.index)
        result["submitted"] = score(joined, classes=data.index.info.classes, metrics=metrics)
    result["checkpoints"] = [str(p) for p in checkpoints]
    same = index_hash(data.index.table) == record.get("index_hash")
    result["trained_on_these_rows"] = config["split"] == "train" and same
    write_score(folder / "score.json", result)
    show(f"score: {score_line(result)}")
    if "submitted" in result:
        show(f"score of the submission: {score_line(result['submitted'])}")
    if result["trained_on_these_rows"]:
        log.warning("these rows trained the checkpoints: the score says nothing about new ones")
