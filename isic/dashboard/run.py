"""One W&B run a fold, stack or trial, kept under its folder as `wandb/offline-run-*`.

| part | holds |
|---|---|
| group, name | the run's name; `<name>-fold<k>` |
| job type | train, stack or sweep |
| config | flat: `optim.optimizer.lr`, as on the command line |
| summary | `score, score_low, score_high`, `oof/<metric>` with interval, seconds, img/s, memory |
| charts | `roc`, `pr`, `confusion` as tables of numbers, `curves/*` as pictures |
| files | `oof.parquet` |

The trap: no image of a patient is among them; those are sent with `logger.wandb.images=true` alone.
"""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from isic.dashboard.send import send_meanwhile, wait_for_senders
from isic.errors import ConfigError
from isic.files import write_text
from isic.flat_config import flatten

log = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled")
_stopped: list[str] = []  # said once a process
_DATA_DIR_IS_SET = "WANDB_DATA_DIR" in os.environ
LEAVING = (130, 143, -1)  # Ctrl-C, SIGTERM, a requeue: nobody has the time to wait for a server
FACTS = ("seconds", "images_per_second", "peak_memory_mb", "interval_over", "n")
CHARTS = {  # curve -> W&B's own chart, its fields, our columns
    "roc": ("wandb/area-under-curve/v0", {"x": "fpr", "y": "tpr", "class": "class"}),
    "pr": ("wandb/area-under-curve/v0", {"x": "recall", "y": "precision", "class": "class"}),
}


def is_on(options: Mapping[str, Any] | None) -> bool:
    """Whether conf/logger's `wandb` asks for a run at all."""
    if options is None:
        return False
    if options["mode"] not in MODES:
        raise ConfigError(
            f"logger.wandb.mode (WANDB_MODE): expected {', '.join(MODES)}, got {options['mode']!r}"
        )
    return bool(options["mode"] != "disabled")


def open_run(
    folder: Path,
    options: Mapping[str, Any],
    *,
    group: str,
    name: str,
    config: Mapping[str, Any],
    job_type: str = "train",
    tags: Sequence[str] = (),
) -> Any:
    """A `wandb.Run` in `folder`, which goes on under the id that an earlier one there had.

    options: The keys `wandb` of conf/logger; its `group` and `job_type` go before the arguments,
        its `tags` are added to them.
    """
    import wandb
    from wandb.sdk.data_types._private import MEDIA_TMP

    # W&B's folder for tables: forks of one process share it, and the first that ends deletes it
    Path(MEDIA_TMP.name).mkdir(parents=True, exist_ok=True)
    if not _DATA_DIR_IS_SET:  # tables wait there to be sent, else below the home folder
        os.environ["WANDB_DATA_DIR"] = str(folder.resolve() / "wandb")
    # WANDB_MODE=online is for the sender: here W&B would ask the server if it wants telemetry, and
    # wait for the answer when the command ends.
    wandb.setup(wandb.Settings(mode="offline"))
    run = wandb.init(
        mode="offline",
        project=options["project"],
        entity=options.get("entity"),
        group=options.get("group") or group,
        name=name,
        job_type=options.get("job_type") or job_type,
        tags=[*tags, *(options.get("tags") or [])],
        id=run_id(folder),
        resume="allow",
        dir=str(folder),
        # where a command was typed is nobody else's matter
        config={k: v for k, v in flatten(config).items() if k != "paths.cwd"},
        settings=wandb.Settings(silent=True, console="off", disable_git=True),
    )
    send_meanwhile(run, options)
    return run


def run_id(folder: Path) -> str:
    """The same id for every continuation of a run, kept in its folder."""
    path = folder / "wandb-id.txt"
    kept = path.read_text(errors="replace").strip() if path.exists() else ""
    if not re.fullmatch(r"[\w-]{1,64}", kept):  # it names a folder: `../..` would lead elsewhere
        write_text(path, kept := secrets.token_hex(4))
    return kept


def log_result(run: Any, folder: Path, result: Mapping[str, Any]) -> None:
    """Score, interval and resources of `score.json`, curves and predictions of a run's folder.

    result: `metrics` (name -> value, low, high; the first is the score) and any of `FACTS`.
    folder: `curves/*.{csv,png}` and `oof.parquet`, where they are there.
    """
    with tolerated():
        run.summary.update(summary(result))
        charts = _charts(folder / "curves")
        if charts:
            run.log(charts)
        if (folder / "oof.parquet").exists():
            copy = _without_names(folder / "oof.parquet", Path(run.dir))
            run.save(str(copy), base_path=run.dir, policy="now")


def _without_names(predictions: Path, folder: Path) -> Path:
    """A copy of a predictions table that may leave this machine: names of files stay here.

    A copy and no link, which would end where a run is moved.
    """
    import pyarrow.parquet as pq

    columns, copy = pq.read_schema(predictions).names, folder / predictions.name
    kept = [c for c in columns if c != "image" and (c == "image_id" or c[:6] != "image_")]
    if kept == columns:  # of an earlier version
        return Path(shutil.copy(predictions, copy))
    table = pq.read_table(predictions, columns=kept)
    about = {k: v for k, v in (table.schema.metadata or {}).items() if k != b"checksum"}
    pq.write_table(table.replace_schema_metadata(about), copy, compression="zstd")
    return copy


@contextmanager
def tolerated() -> Iterator[None]:
    """W&B's service may die; nothing that is trained depends on it."""
    try:
        yield
    except Exception as error:  # a socket's, a mailbox's, its own
        if not _stopped:
            log.warning("W&B stopped (%r); what is on disk stays, and the work goes on", error)
        _stopped.append(repr(error))


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Flat, comparable numbers of a score.

    >>> sorted(summary({"metrics": {"auc": {"value": 0.8, "low": 0.7, "high": 0.9}}}))[3:]
    ['score', 'score_high', 'score_low']
    """
    facts = {key: result[key] for key in FACTS if key in result}
    for place, (name, value) in enumerate(result["metrics"].items()):
        for key in (f"oof/{name}", *(["score"] if place == 0 else [])):
            facts |= {key: value["value"], f"{key}_low": value["low"], f"{key}_high": value["high"]}
            if value.get("chance") is not None:
                facts[f"{key}_chance"] = value["chance"]
    return facts


def _charts(curves: Path) -> dict[str, Any]:
    """W&B charts of the numbers in `curves/*.csv`, and the pictures beside them."""
    import wandb

    charts: dict[str, Any] = {
        f"curves/{path.stem}": wandb.Image(str(path)) for path in sorted(curves.glob("*.png"))
    }
    for name, (chart, fields) in CHARTS.items():
        if (curves / f"{name}.csv").exists():
            # a class may be called NA, or 01
            table = pd.read_csv(curves / f"{name}.csv", dtype={"class": str}, keep_default_na=False)
            table = table[list(fields.values())]
            charts[name] = wandb.plot_table(
                vega_spec_name=chart, data_table=wandb.Table(dataframe=table), fields=fields
            )
    if (curves / "confusion.csv").exists():
        charts["confusion"] = _confusion(read_confusion(curves / "confusion.csv"))
    return charts


def read_confusion(path: Path) -> pd.DataFrame:
    """Counts by true class (row) and predicted one; the names are text, whatever they look like."""
    cells = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
    counts = cells.iloc[1:, 1:].astype(int).to_numpy()
    return pd.DataFrame(counts, index=list(cells.iloc[1:, 0]), columns=list(cells.iloc[0, 1:]))


def _confusion(counts: pd.DataFrame) -> Any:
    """W&B's chart of a confusion matrix: one row a pair of classes."""
    import wandb

    columns = ["Actual", "Predicted", "nPredictions"]
    number = counts.to_numpy()
    rows = [
        [str(true), str(predicted), int(number[i, j])]
        for i, true in enumerate(counts.index)
        for j, predicted in enumerate(counts.columns)
    ]
    table = wandb.Table(dataframe=pd.DataFrame(rows, columns=columns))
    return wandb.plot_table(
        vega_spec_name="wandb/confusion_matrix/v1",
        data_table=table,
        fields={c: c for c in columns},
    )


def close_run(run: Any, exit_code: int = 0) -> None:
    """End a run; two runs of one process would otherwise be merged into one."""
    with tolerated():
        run.finish(exit_code=exit_code)
    if exit_code in LEAVING:
        wait_for_senders(0)


def publish(
    folder: Path,
    options: Mapping[str, Any] | None,
    *,
    name: str,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    job_type: str,
    tags: Sequence[str] = (),
) -> None:
    """The whole entry of a run in one call: what its folder and its score hold.

    What W&B cannot do is logged: the run stands without it.
    """
    if options is None or not is_on(options):
        return
    with tolerated():
        run = open_run(
            folder, options, group=name, name=name, config=config, job_type=job_type, tags=tags
        )
        log_result(run, folder, result)
        close_run(run)
