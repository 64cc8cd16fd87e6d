"""Auxiliary targets: columns of the table that extra heads learn, and the network never sees.

Train-only columns are welcome here, since nothing of them is asked for when predicting: the
diagnosis behind a binary label, whether ISIC 2024 knows a `lesion_id`. A name is a column, or
`<column>_present`: whether it is filled. Text and yes/no are classes, learnt from the fold's
training rows; numbers are standardised by them. What is missing, or a class that only other rows
have, is left out of the loss.
Trap: a column that says the label in other words teaches nothing new; it is allowed, and said.
"""

import difflib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import ConfigError
from isic.index.schema import DatasetInfo

log = logging.getLogger(__name__)

PRESENT = "_present"
MOST = 256  # classes of a head; the finest taxonomy here, ISIC 2024's iddx_full, has about 50
# Columns of the label itself, and those that a split or a reader made.
REFUSED = ("target", "image_id", "image", "split", "group", "fold", "weight")


@dataclass(frozen=True)
class AuxiliaryOptions:
    """The keys of conf/auxiliary.

    columns: Of the index, or `<column>_present`.
    weight: Of the mean of their losses beside the main one; 2nd of ISIC 2024 had 0.3.
    """

    columns: Sequence[str]
    weight: float = 0.3

    def __post_init__(self) -> None:
        """Refuse no column, one named twice, and a weight that is no share of anything."""
        given = self.columns
        listed = isinstance(given, Sequence) and all(isinstance(name, str) for name in given)
        if isinstance(given, str) or not listed or not given or len(set(given)) < len(given):
            raise ConfigError(
                f"auxiliary.columns: expected a list of columns, each once, got {given!r}; "
                "say auxiliary.columns=[diagnosis]"
            )
        if not isinstance(self.weight, int | float) or not self.weight >= 0:
            raise ConfigError(f"auxiliary.weight: expected 0 or more, got {self.weight!r}")


@dataclass(frozen=True)
class Head:
    """What one extra head learns: `fit_heads` makes it.

    name: As asked for; a batch holds its targets as `aux_<name>`.
    classes: In alphabetical order; empty for a number.
    mean, std: Of a number's training rows, in its own unit.
    """

    name: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @property
    def key(self) -> str:
        """Of its targets in a batch."""
        return f"aux_{self.name}"

    @property
    def n_outputs(self) -> int:
        """One logit a class, or the standardised number."""
        return len(self.classes) or 1

    def encode(self, rows: pd.DataFrame) -> NDArray[Any]:
        """Targets (N,): int64 class, -1 where unknown; or float32 number, NaN where missing."""
        if not self.classes:
            number = rows[self.name].to_numpy(np.float64, na_value=np.nan)
            return ((number - self.mean) / self.std).astype(np.float32)
        code = {name: i for i, name in enumerate(self.classes)}
        return _values(rows, self.name).map(code).fillna(-1).to_numpy(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain types: safe in a checkpoint read with `weights_only=True`."""
        numbers = {"mean": self.mean, "std": self.std}
        return {"name": self.name, "classes": list(self.classes), **numbers}


def fit_heads(
    rows: pd.DataFrame, names: Sequence[str], *, info: DatasetInfo, inputs: Sequence[str] = ()
) -> tuple[Head, ...]:
    """Learn classes, means and deviations from training rows, and from nothing else.

    inputs: Columns that the network sees.

    Raises:
        ConfigError: An unknown column, the label, an input, an id, or a column of one value.
    """
    check_names(rows, names, info=info, inputs=inputs)
    heads = tuple(_fitted(rows, name) for name in names)
    for head in heads:
        if head.classes and _is_label(_values(rows, head.name), rows["target"]):
            log.warning("auxiliary: %s says the same as the label on the training rows", head.name)
    return heads


def check_names(
    rows: pd.DataFrame, names: Sequence[str], *, info: DatasetInfo, inputs: Sequence[str] = ()
) -> None:
    """Raise ConfigError for a name that can be no auxiliary target of these rows."""
    no_target = (*REFUSED, *info.classes)
    allowed = [c for c in rows.columns if c not in no_target and not c.endswith("_id")]
    for name in names:
        column = _column(rows, name)
        if name in info.classes or name == "target":
            raise ConfigError(f"auxiliary.columns: {name} is the label itself, learnt as it is")
        if name.endswith("_id") and name in rows:
            raise ConfigError(
                f"auxiliary.columns: {name} is an id, which new patients do not share; learn "
                f"whether it is there: {name}{PRESENT}"
            )
        if column not in allowed and not (name.endswith(PRESENT) and column in rows):
            known = [*allowed, *(f"{c}{PRESENT}" for c in rows.columns if c.endswith("_id"))]
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else ", ".join(allowed)
            raise ConfigError(
                f"auxiliary.columns: {name} is no column of {info.name} that can be learnt; {hint}"
            )
        if column in inputs:
            raise ConfigError(
                f"auxiliary.columns: the network sees {column} already (data.metadata); a target "
                "that is an input is copied, not learnt"
            )


def values_hash(rows: pd.DataFrame, names: Sequence[str]) -> str:
    """Hash of what some rows say in named columns, in any row order. Twelve hex digits."""
    columns = list(dict.fromkeys(_column(rows, name) for name in names))
    lines = rows[["image_id", *columns]].sort_values("image_id").to_csv(index=False)
    return hashlib.blake2b(lines.encode(), digest_size=6).hexdigest()


def _column(rows: pd.DataFrame, name: str) -> str:
    """The column that a name is about."""
    return name if name in rows else name.removesuffix(PRESENT)


def _values(rows: pd.DataFrame, name: str) -> pd.Series:
    """A class's name for each row, missing where it has none."""
    if name in rows:
        return rows[name].astype("string")
    filled = rows[name.removesuffix(PRESENT)].notna()
    return filled.map({False: "absent", True: "present"}).astype("string")


def _fitted(rows: pd.DataFrame, name: str) -> Head:
    numeric = name in rows and pd.api.types.is_numeric_dtype(rows[name])
    if numeric and rows[name].nunique() > 2:  # a number of two values is a yes or a no
        known = rows[name].dropna().astype("float64")
        return Head(name, mean=float(known.mean()), std=float(known.std(ddof=0)))
    values = _values(rows, name)
    classes = tuple(sorted(values.dropna().unique()))
    if not 2 <= len(classes) <= MOST:
        raise ConfigError(
            f"auxiliary.columns: {name} has {len(classes)} values in {len(rows)} training rows, "
            f"expected 2 to {MOST}; of an id, learn whether it is there: {name}{PRESENT}"
        )
    return Head(name, classes)


def _is_label(values: pd.Series, target: pd.Series) -> bool:
    """Whether value and label follow from each other wherever both are known."""
    pairs = pd.DataFrame({"value": values, "target": target}).dropna().drop_duplicates()
    return bool(len(pairs)) and pairs["value"].is_unique and pairs["target"].is_unique
