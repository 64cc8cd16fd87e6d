"""ROC curve, precision-recall curve and confusion matrix, each as PNG and as CSV with its numbers.

| file | rows |
|---|---|
| `roc.csv` | class, threshold, fpr, tpr |
| `pr.csv` | class, threshold, recall, precision |
| `confusion.csv` | one true class a row, one predicted class (argmax) a column, counts |

Binary: the curve of class 1, with the area above a sensitivity of 0.80 shaded, which the ISIC 2024
score measures. More classes: one against the rest each. At most `MAX_POINTS` points a curve, its
ends and its corners first.
The trap: a class without rows has no curve; it is left out and logged, and none is invented.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.cells import spreadsheet_csv
from isic.files import whole_file, write_text
from isic.metrics import roc_auc
from isic.metrics.inputs import Floats, Ints, class_probs

log = logging.getLogger(__name__)

MAX_POINTS = 2000


def write_curves(
    folder: Path | str,
    target: npt.ArrayLike,
    probs: npt.ArrayLike,
    classes: Sequence[str],
    *,
    min_tpr: float = 0.80,
) -> list[Path]:
    """Write `{roc,pr,confusion}.{csv,png}` and return their paths.

    Args:
        folder: Where to; made if absent.
        target: Class numbers, (N,).
        probs: (N, C), or (N,) when binary; no NaN.
        classes: Names in the order of the columns.
        min_tpr: Lower edge of the shaded area of a binary ROC curve.
    """
    labels, columns = class_probs(target, probs)
    if len(classes) != columns.shape[1]:
        raise ValueError(
            f"{len(classes)} class names {list(classes)} for {columns.shape[1]} columns of probs"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shown = _shown(labels, classes)
    roc = _stacked({classes[c]: roc_curve(labels == c, columns[:, c]) for c in shown})
    pr = _stacked({classes[c]: pr_curve(labels == c, columns[:, c]) for c in shown})
    confusion = confusion_matrix(labels, columns, classes)
    write_text(folder / "roc.csv", spreadsheet_csv(roc))
    write_text(folder / "pr.csv", spreadsheet_csv(pr))
    write_text(folder / "confusion.csv", spreadsheet_csv(confusion, index=True))
    areas = {classes[c]: roc_auc(labels == c, columns[:, c]) for c in shown}
    shade = min_tpr if len(classes) == 2 else None
    labels_of = picture_labels(classes)
    _draw(folder / "roc.png", lambda axes: _draw_roc(axes, roc, areas, shade, labels_of))
    _draw(folder / "pr.png", lambda axes: _draw_pr(axes, pr, labels, classes))
    _draw(folder / "confusion.png", lambda axes: _draw_confusion(axes, confusion))
    return [
        folder / f"{name}.{kind}" for name in ("roc", "pr", "confusion") for kind in ("csv", "png")
    ]


def roc_curve(is_positive: npt.NDArray[np.bool_], score: Floats) -> pd.DataFrame:
    """Columns threshold, fpr, tpr from (0, 0) to (1, 1); a row counts from its threshold up."""
    threshold, hits, alarms = _cumulative(is_positive, score)
    # a point in the middle of a straight piece says nothing: both second differences are 0
    bend = np.diff(hits, 2).astype(bool) | np.diff(alarms, 2).astype(bool)
    kept = np.flatnonzero(np.r_[True, bend, True])
    tpr, fpr = hits[kept] / hits[-1], alarms[kept] / alarms[-1]
    return _thinned(pd.DataFrame({"threshold": threshold[kept], "fpr": fpr, "tpr": tpr}))


def pr_curve(is_positive: npt.NDArray[np.bool_], score: Floats) -> pd.DataFrame:
    """Columns threshold, recall, precision, from recall 0 (precision 1 by convention) to 1."""
    threshold, hits, alarms = _cumulative(is_positive, score)
    flagged = hits + alarms
    precision = np.divide(hits, flagged, out=np.ones(len(hits)), where=flagged > 0)
    last = int(np.argmax(hits == hits[-1])) + 1  # beyond full recall precision only falls
    frame = pd.DataFrame(
        {
            "threshold": threshold[:last],
            "recall": hits[:last] / hits[-1],
            "precision": precision[:last],
        }
    )
    return _thinned(frame)


def confusion_matrix(target: Ints, probs: Floats, classes: Sequence[str]) -> pd.DataFrame:
    """Counts of true class (row) against argmax (column)."""
    n_classes = len(classes)
    cells = np.bincount(target * n_classes + probs.argmax(axis=1), minlength=n_classes**2)
    names = list(classes)
    return pd.DataFrame(
        cells.reshape(n_classes, n_classes), index=pd.Index(names, name="true"), columns=names
    )


def picture_labels(classes: Sequence[str]) -> dict[str, str]:
    """Return the label of each class in a picture: its name, or its number if the font lacks it.

    A name may hold what matplotlib reads as a formula ($) or as not to be shown (_ in front).
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    labels = {}
    for number, name in enumerate(classes):
        shown = name.isprintable() and all(font.get_char_index(ord(c)) for c in name)
        text = name.replace("$", r"\$") if shown else f"class {number}"
        labels[name] = f" {text}" if text.startswith("_") else text
    return labels


def _shown(target: Ints, classes: Sequence[str]) -> list[int]:
    """Classes with a curve: class 1 when binary, else all that have rows and are not alone."""
    counts = np.bincount(target, minlength=len(classes))
    wanted = [1] if len(classes) == 2 else range(len(classes))
    shown = [c for c in wanted if 0 < counts[c] < len(target)]
    if len(shown) < len(wanted):
        missing = [classes[c] for c in wanted if c not in shown]
        log.warning("no curve of %s: only one class, or no rows of it", ", ".join(missing))
    return shown


def _cumulative(is_positive: npt.NDArray[np.bool_], score: Floats) -> tuple[Floats, Ints, Ints]:
    """Thresholds falling from infinity, and the positives and negatives at or above each."""
    order = np.argsort(-score, kind="stable")
    ranked, hit = score[order], is_positive[order]
    last_of_tie = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    hits = np.r_[0, np.cumsum(hit)[last_of_tie]]
    alarms = np.r_[0, np.cumsum(~hit)[last_of_tie]]
    return np.r_[np.inf, ranked[last_of_tie]], hits, alarms


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """Keep at most MAX_POINTS points, evenly along the curve's length, both ends among them."""
    if len(curve) <= MAX_POINTS:
        return curve
    x, y = curve.iloc[:, 1].to_numpy(), curve.iloc[:, 2].to_numpy()
    length = np.r_[0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
    at = np.searchsorted(length, np.linspace(0.0, length[-1], MAX_POINTS))
    kept = np.unique(np.r_[0, np.clip(at[1:-1], 0, len(curve) - 1), len(curve) - 1])
    return curve.iloc[kept].reset_index(drop=True)


def _stacked(curves: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of all curves, the class named in the first column."""
    named = [curve.assign(**{"class": name}) for name, curve in curves.items()]
    if not named:
        return pd.DataFrame({"class": []})
    table = pd.concat(named, ignore_index=True)
    return table[["class", *[c for c in table.columns if c != "class"]]]


def _draw(path: Path, paint: Any) -> None:
    """Paint one square axes into a PNG, without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 5.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    paint(figure.add_subplot())
    with whole_file(path) as file:
        figure.savefig(file, format="png")


def _draw_roc(
    axes: Any,
    roc: pd.DataFrame,
    areas: dict[str, float],
    min_tpr: float | None,
    labels: Mapping[str, str],
) -> None:
    for name, area in areas.items():
        curve = roc[roc["class"] == name]
        axes.plot(curve["fpr"], curve["tpr"], label=f"{labels[name]}, AUC {area:.3f}")
        if min_tpr is not None:
            axes.fill_between(
                curve["fpr"],
                min_tpr,
                curve["tpr"].clip(lower=min_tpr),
                alpha=0.25,
                label=f"above {min_tpr:.0%} sensitivity",
            )
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    if areas:
        axes.legend(loc="lower right", fontsize="small")


def _draw_pr(axes: Any, pr: pd.DataFrame, target: Ints, classes: Sequence[str]) -> None:
    share = np.bincount(target, minlength=len(classes)) / len(target)
    labels = picture_labels(classes)
    for name, curve in pr.groupby("class", sort=False):
        prevalence = share[list(classes).index(str(name))]
        axes.plot(
            curve["recall"],
            curve["precision"],
            label=f"{labels[str(name)]} ({prevalence:.2%} of rows)",
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    if len(pr):
        axes.legend(loc="best", fontsize="small")


def _draw_confusion(axes: Any, confusion: pd.DataFrame) -> None:
    """Colour by share of the true class: counts would leave a rare class black."""
    counts = confusion.to_numpy()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            f"{count}",
            ha="center",
            va="center",
            color="white" if share[row, column] > 0.5 else "black",
        )
    names = list(picture_labels(list(confusion.columns)).values())
    axes.set(xlabel="predicted (argmax)", ylabel="true")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
