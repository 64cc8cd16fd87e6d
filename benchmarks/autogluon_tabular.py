"""AutoGluon Tabular on the metadata of MILK10k, on the columns and folds of one of our stacks.

Run by hand, in two environments, and not part of `make bench`: AutoGluon pins other versions than
ours of half the packages.

    .venv/bin/python benchmarks/autogluon_tabular.py export runs/STACK rows.csv
    OTHER/bin/python benchmarks/autogluon_tabular.py fit rows.csv oof.csv --seconds 60
    .venv/bin/python benchmarks/autogluon_tabular.py score runs/STACK oof.csv

`OTHER` needs autogluon.tabular with lightgbm, catboost and xgboost. Unit: row = lesion. AutoGluon
gets the columns as they are in the table, texts as texts, and splits its own validation rows off
each training fold. Trap: rows that AutoGluon validates on are of training, never of the held-out
fold, so its score is out of fold as ours is.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd


def export(stack: Path, out: Path) -> None:
    """Columns of the stack's metadata family, `target` and `fold`, of its out-of-fold rows."""
    import yaml
    from hydra.utils import instantiate

    from isic.features.patient_context import resolve
    from isic.index.schema import sample_rows
    from isic.predictions import read_predictions
    from isic.prepare import open_index

    config = yaml.safe_load((stack / "config.yaml").read_text())
    data = config["data"]
    cache = Path(config["paths"]["cache"])
    index = open_index(
        instantiate(data["index"]), data["root"], cache_root=cache, extra=data["extra"]
    )
    rows = sample_rows(index)
    (node,) = (n for n in config["features"].values() if n["_target_"].endswith("Metadata"))
    columns = resolve(node["columns"], list(rows.columns))
    folds = read_predictions(stack / "oof.parquet")[["image_id", "fold"]]
    rows[["image_id", "target", *columns]].merge(folds, on="image_id").to_csv(out, index=False)


def fit(table: Path, out: Path, *, seconds: int, presets: str, metric: str) -> None:
    """Out-of-fold probabilities, a column a class number, of one predictor a fold."""
    from autogluon.tabular import TabularPredictor  # type: ignore[import-not-found]

    rows = pd.read_csv(table)
    features = rows.drop(columns=["image_id", "fold"])
    made = []
    for fold in sorted(rows["fold"].unique()):
        held_out = rows["fold"] == fold
        with tempfile.TemporaryDirectory() as folder:
            predictor = TabularPredictor(
                "target", problem_type="multiclass", eval_metric=metric, path=folder, verbosity=1
            )
            predictor.fit(
                features[~held_out], presets=presets, time_limit=seconds, num_cpus=1, num_gpus=0
            )
            probs = predictor.predict_proba(features[held_out].drop(columns="target"))
            print(fold, predictor.leaderboard(silent=True)["model"].tolist(), flush=True)
        made.append(rows.loc[held_out, ["image_id", "target"]].join(probs))
    pd.concat(made).fillna(0.0).to_csv(out, index=False)


def score(stack: Path, table: Path) -> None:
    """Print the metrics of AutoGluon and of the stack on the same rows."""
    from isic.metrics.classification import accuracy, macro_auc, macro_dice, macro_f1_argmax
    from isic.predictions import read_predictions
    from isic.predictions.table import prob_columns

    ours = read_predictions(stack / "oof.parquet")
    columns = prob_columns(ours.attrs["classes"])
    rows = pd.read_csv(table).merge(ours, on="image_id")
    theirs = np.zeros((len(rows), len(columns)))
    for k in range(len(columns)):
        theirs[:, k] = rows.get(str(k), 0.0)  # a class that no training fold holds
    for name, probs in (("autogluon", theirs), ("stack", rows[columns].to_numpy())):
        values = [
            f"{metric.__name__} {metric(rows['target'].to_numpy(), probs):.4f}"
            for metric in (macro_dice, macro_f1_argmax, macro_auc, accuracy)
        ]
        print(name, len(rows), *values)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("step", choices=["export", "fit", "score"])
    parser.add_argument("source", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seconds", type=int, default=60, help="of each fold")
    parser.add_argument("--presets", default="medium_quality")
    parser.add_argument("--metric", default="f1_macro")
    given = parser.parse_args()
    if given.step == "export":
        export(given.source, given.table)
    elif given.step == "score":
        score(given.source, given.table)
    else:
        fit(
            given.source, given.table,
            seconds=given.seconds, presets=given.presets, metric=given.metric,
        )  # fmt: skip


if __name__ == "__main__":
    main()
