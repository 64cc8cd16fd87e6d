"""Which features a stack uses, and whether one family of them carries its score.

Method: 500 held-out rows a fold are predicted again with the features of one family dealt to other
rows, and with those of all other families; AUC by fold, one class against the rest. The best single
features are found as `python -m isic check` finds columns (`isic.audit.shortcuts`): each guesses
alone, in bins, its absence too, on patients that it has not seen.
Why: where every malignant row had a patient of its own, a z-score within the patient was missing
for these alone, and a stack had an AUC of 0.9994 without a warning.
Trap: neither of two families that say the same is missed: compare `alone` with `without`.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.audit.shortcuts import LIMIT, Guess, known_shortcuts
from isic.errors import first_five
from isic.features.family import Family, used_columns
from isic.features.image_scores import ImageScores
from isic.metrics import roc_auc
from isic.stack import CrossFit
from isic.stack.combine import Mean
from isic.stack.feature_inputs import States
from isic.stack.inputs import Floats, Fold, FoldInputs, Ints, Samples
from isic.stages.stack_rows import Request

log = logging.getLogger(__name__)

IDS = ("image_id", "lesion_id", "patient_id")  # they order and group rows; none is a feature
N_ROWS = 500  # a fold, alike of each class
N_DEALS = 2
MOST_ROWS = 20_000  # that single features are tried on
SKILL = 0.05  # AUC above a half, below which nothing can be said to carry it
CARRIES = 0.5  # share of that skill which is lost with one family
MORE = 0.05  # AUC that a feature must have beyond the columns it is made of, to be named
FEATURE, COLUMN = "feature ", "column "


class Families:
    """The features of a stack by the family that made them.

    owner: Feature -> family. made, used, blank: Family -> its features in any fold, those that some
    fold's models see, and those that no fold's training rows have two values of.
    """

    def __init__(
        self,
        families: Mapping[str, Family],
        rows: pd.DataFrame,
        inputs: Mapping[Fold, FoldInputs],
        states: Mapping[Fold, States],
    ) -> None:
        self.families, self._available = families, list(rows.columns)
        self.owner: dict[str, str] = {}
        self._states = states
        for state in states.values():
            for key, family in families.items():
                made = family.transform(rows.iloc[:1], state.get(key, {}))
                self.owner |= dict.fromkeys(map(str, made.columns), key)
        used = {name for source in inputs.values() for name in source.columns}
        blank = set.intersection(*(set(source.blank) for source in inputs.values()))
        self.made = self._by_family(self.owner)
        self.used = self._by_family(used)
        self.blank = self._by_family(blank)

    def _by_family(self, names: Any) -> dict[str, list[str]]:
        return {
            key: [name for name, owner in self.owner.items() if owner == key and name in names]
            for key in self.families
        }

    def columns(self, names: Sequence[str] | None = None) -> list[str]:
        """The columns of the table that used features, or some of them, are made of; no ids."""
        found = dict[str, None]()
        for key, family in self.families.items():
            kept = {*self.used[key]} if names is None else {*self.used[key]} & {*names}
            for state in self._states.values() if kept else ():
                given = used_columns(family, self._available, kept, state.get(key, {}))
                found |= dict.fromkeys(given)
        return sorted(c for c in found if c in self._available and c not in IDS)

    def plain(self) -> dict[str, dict[str, int]]:
        """Numbers of features by family, for `score.json`."""
        return {
            key: {"made": len(self.made[key]), "used": len(self.used[key])} for key in self.families
        }

    def text(self) -> str:
        """`lesion_shape 2 of 89, image_scores 1`."""
        counts = {key: (len(self.used[key]), len(self.made[key])) for key in self.families}
        return ", ".join(
            f"{k} {n}" if n == m else f"{k} {n} of {m}" for k, (n, m) in counts.items()
        )


def blank_warnings(parts: Families, rows: pd.DataFrame) -> list[str]:
    """At most one sentence on features that say nothing, where that is more than a category or two.

    A family without any, half of all features, or columns without a value are worth it.
    """
    blank = [name for names in parts.blank.values() for name in names]
    idle = [key for key in parts.families if parts.blank[key] and not parts.used[key]]
    trained = rows[rows["fold"] >= 0]
    needed = {c for f in parts.families.values() for c in f.needs(list(rows.columns)) if c in rows}
    empty = sorted(c for c in needed - {*IDS} if trained[c].isna().all())
    if not blank or not (idle or empty or 2 * len(blank) > len(parts.owner)):
        return []
    shares = ", ".join(
        f"{key} {len(parts.blank[key])} of {len(parts.made[key])}"
        for key in parts.families
        if parts.blank[key]
    )
    behind = f"; no row has a value in {first_five(empty)}" if empty else ""
    return [
        f"{len(blank)} of {len(parts.owner)} features have no value, or a single one, in the rows "
        f"that train and are left out ({shares}): {first_five(blank)}{behind}. Bring the whole "
        "metadata, or leave those families out with features=[...]"
    ]


def reliance(
    request: Request,
    samples: Samples,
    inputs: Mapping[Fold, FoldInputs],
    result: CrossFit,
    parts: Families,
) -> dict[str, Any]:
    """`auc` of held-out rows, and of each family `without` it and `alone`; empty for one family."""
    keys = [key for key in parts.families if parts.used[key]]
    if len(keys) < 2:
        return {}
    aucs = [
        _fold_aucs(request, samples, inputs[fold], result, parts, fold, keys)
        for fold in samples.folds
    ]
    mean = np.nanmean(np.array(aucs), axis=0).round(4).tolist()
    pairs = zip(keys, mean[1::2], mean[2::2], strict=True)
    return {
        "auc": mean[0],
        "families": {key: {"without": out, "alone": own} for key, out, own in pairs},
    }


def rests_on(told: Mapping[str, Any]) -> str | None:
    """The family that carries more than half of the skill, from `reliance`; None: no single one."""
    skill = told["auc"] - 0.5 if told else 0.0
    if not skill >= SKILL:
        return None
    lost = {k: (told["auc"] - f["without"]) / skill for k, f in told["families"].items()}
    most = max(lost, key=lambda key: lost[key])
    return most if lost[most] >= CARRIES else None


def reliance_warnings(
    request: Request,
    rows: pd.DataFrame,
    inputs: Mapping[Fold, FoldInputs],
    parts: Families,
    told: Mapping[str, Any],
) -> list[str]:
    """The family that carries the score, and the single features that tell a class alone.

    Scores of image runs may carry a stack: they are what it is made of. It is not warned of.
    """
    features, columns = _single_guesses(request, rows, inputs, parts)
    warnings, carrier = [], rests_on(told)
    if carrier and not isinstance(parts.families[carrier], ImageScores):
        own = [g for g in features if parts.owner[g.column] == carrier]
        single = f"; its best single feature (AUC) is {own[0]}" if own else ""
        warnings.append(
            f"the stack rests on one feature family, {carrier}: AUC {told['auc']:.4f} falls to "
            f"{told['families'][carrier]['without']:.4f} where its features are shuffled{single}; "
            "is that medicine, or how the data came together?"
        )
    by_family: dict[str, list[Guess]] = {}
    for guess in features:
        known = [columns[c] for c in parts.columns([guess.column]) if c in columns]
        if guess.auc > max([LIMIT, *(auc + MORE for auc in known)]):
            by_family.setdefault(parts.owner[guess.column], []).append(guess)
    return warnings + [
        f"features of {key} tell a class alone (AUC > {LIMIT:.2f}), and better than the columns "
        f"behind them: {first_five(some)}; is that medicine, or how the data came together?"
        for key, some in by_family.items()
    ]


def _single_guesses(
    request: Request, rows: pd.DataFrame, inputs: Mapping[Fold, FoldInputs], parts: Families
) -> tuple[list[Guess], dict[str, float]]:
    """Return each used feature's best guess, best first, and the AUC of each column behind them."""
    tables = []
    for fold, source in inputs.items():
        own = np.flatnonzero((rows["fold"] == fold).to_numpy()) if fold != "all" else np.arange(0)
        tables.append(pd.DataFrame(source.take(own), index=own, columns=list(source.columns)))
    table = pd.concat(tables)
    if len(table) > MOST_ROWS:
        target = rows["target"].iloc[table.index].to_numpy()
        table = table.loc[alike(table.index.to_numpy(), target, most=MOST_ROWS, seed=0)]
    about = rows.iloc[table.index]
    # a feature may be called as a label or an id is, which are passed over
    marked = [table.add_prefix(FEATURE), about[parts.columns()].add_prefix(COLUMN)]
    ids = about[["split", "target", *IDS]]
    joined = pd.concat([ids, *(part.set_axis(ids.index) for part in marked)], axis=1)
    names = [str(name) for part in marked for name in part]
    found = known_shortcuts(request.index, joined, names, limit=0.0)
    features = [
        g._replace(column=g.column.removeprefix(FEATURE))
        for g in found
        if g.column.startswith(FEATURE)
    ]
    columns: dict[str, float] = {}
    for guess in reversed(found):  # the best of a column comes first, so stays last
        if guess.column.startswith(COLUMN):
            columns[guess.column.removeprefix(COLUMN)] = guess.auc
    return features, columns


def _fold_aucs(
    request: Request,
    samples: Samples,
    source: FoldInputs,
    result: CrossFit,
    parts: Families,
    fold: int,
    keys: Sequence[str],
) -> list[float]:
    """AUC of one fold's rows as they are, then without and with nothing but each family."""
    number, seed = samples.table["fold"].to_numpy(), request.plan.seeds[0]
    labelled = np.flatnonzero((number == fold) & (samples.target >= 0))
    rows = alike(labelled, samples.target[labelled], most=N_ROWS, seed=seed)
    target, matrix = samples.target[rows], source.take(rows)
    if len(np.unique(target)) < 2:
        return [np.nan] * (1 + 2 * len(keys))
    models = [m for t, m in result.models.items() if (t.fold, t.seed) == (fold, seed)]
    rng = np.random.default_rng(seed)

    def auc(dealt: npt.NDArray[np.bool_]) -> float:
        values = []
        for _ in range(N_DEALS if dealt.any() else 1):
            given = matrix.copy()
            given[:, dealt] = matrix[rng.permutation(len(rows))][:, dealt]
            mean = Mean(request.plan.combine, (len(rows), len(samples.classes)))
            for model in models:
                mean.add(model.predict(given))
            values.append(mean_auc(target, mean.value))
        return float(np.mean(values))

    owner = np.array([parts.owner[name] for name in source.columns])
    aucs = [auc(np.zeros(len(owner), dtype=bool))]
    for key in keys:
        aucs += [auc(owner == key), auc(owner != key)]
    return aucs


def mean_auc(target: Ints, probs: Floats) -> float:
    """Mean AUC of the classes that the rows hold, one against the rest; NaN for a single one."""
    present = np.unique(target)
    if len(present) < 2:
        return float("nan")
    return float(np.mean([roc_auc(target == c, probs[:, c]) for c in present]))


def alike(rows: Ints, target: Any, *, most: int, seed: int) -> Ints:
    """Draw at most `most` of some rows, as many of each class; `target` belongs to these rows."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(pd.Series(target).astype("Int64").fillna(-1), dtype=np.int64)
    share = most // len(np.unique(labels)) if len(labels) else 0
    return np.concatenate(
        [rng.permutation(rows[labels == c])[:share] for c in np.unique(labels)] or [rows]
    )
