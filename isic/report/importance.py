"""Feature importance as a bar chart, beside the table it is drawn from.

Unit: one bar a feature, the `MOST` most useful ones, share of gain and mean |SHAP| side by side.
Trap: bars are means over models; the table says how many models were given a feature at all.
"""

from pathlib import Path

import pandas as pd

from isic.cells import spreadsheet_csv
from isic.files import whole_file, write_text

MOST = 25


def write_importance(folder: Path, table: pd.DataFrame) -> list[Path]:
    """Write `importance.csv` and `importance.png`; returns their paths.

    table: `feature, gain, shap, models`, the most useful first.
    """
    paths = [folder / "importance.csv", folder / "importance.png"]
    text = spreadsheet_csv(table, float_format="%.6g", lineterminator="\n")
    write_text(paths[0], text)
    _draw(paths[1], table.head(MOST).iloc[::-1])
    return paths


def _draw(path: Path, table: pd.DataFrame) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.22 * len(table)), layout="constrained")
    for axes, (column, label) in zip(
        figure.subplots(1, 2, sharey=True),
        (("shap", "mean |SHAP|, log-odds"), ("gain", "share of gain")),
        strict=True,
    ):
        axes.barh(table["feature"], table[column].fillna(0.0))
        axes.set_xlabel(label)
        axes.tick_params(axis="y", labelsize=7)
    FigureCanvasAgg(figure)
    with whole_file(path) as file:
        figure.savefig(file, format="png")
