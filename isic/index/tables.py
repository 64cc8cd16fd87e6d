"""What every reader does alike: find, read and join tables, bring rows to the standard columns.

Source: a folder with an archive's CSVs. Unit: one pandas row an image, ids without `.jpg`.
A reader collects in a `Reading` whatever is wrong (`faults`: all raised at once by `finish`) and
whatever it left aside (`notes`: logged and kept in the index).
Trap: two files of one archive are joined by id, never by order, and a row that only one of them
knows is said, since its lesion or its label would be missing silently.
"""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from isic.errors import DataError, first_five
from isic.index.image_files import zips_of
from isic.index.raw_csv import NO_ALIASES, read_csv, without_gaps
from isic.index.schema import (
    DatasetInfo,
    Index,
    faults_of,
    one_hot,
    raise_faults,
    standard_columns,
)
from isic.index.sites import canonical_site

log = logging.getLogger(__name__)

EXTENSION = r"(?i)\.(jpe?g|png|dcm)$"  # the official scorer strips it from ids, too
NUMBERS = ("age",)
# Here, in `sex` and in any site, words such as `nan` and `unknown` mean a gap.
GROUPS = ("patient_id", "lesion_id")
FEW = 15  # values that a message can list
OLDEST = 120
NO_ROWS = pd.DataFrame()


@dataclass
class Reading:
    """One archive being read: where, what it is, and what was met on the way.

    Raises DataError at once where there is no folder.
    """

    info: DatasetInfo
    root: Path
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: dict[str, Path] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a root that is no folder."""
        self.root = Path(self.root)
        if not self.root.is_dir():
            where = f"{self.info.name}: no such folder {self.root.absolute()}"
            raise DataError(f"{where}\n{how_to_get(self.info, self.root)}")
        # Listed once: a flat folder of images can hold 100,000 other names.
        names = (p for p in os.listdir(self.root) if p.lower().endswith(".csv"))
        self.tables = {name.lower(): self.root / name for name in sorted(names)}

    def find(self, *names: str) -> Path | None:
        """The first of these files that lies directly below the root, in upper or lower case."""
        found = (self.tables[n.lower()] for n in names if n.lower() in self.tables)
        return next(found, None)

    def require(self, *names: str) -> Path:
        """Like `find`; DataError with what is there instead and the next step where none is."""
        path = self.find(*names)
        if path is None:
            raise no_table(self.info, self.root, names)
        return path

    def csv(
        self,
        path: Path,
        columns: Mapping[str, str],
        *,
        id_column: str,
        optional: Collection[str] = (),
        aliases: Mapping[str, str] = NO_ALIASES,
        refuse_extra: bool = False,
    ) -> pd.DataFrame:
        """Read a table: ids without extension, each once; absent columns are null. See `read_csv`.

        A word that means a gap is null in ids, sex and site (`raw_csv.MISSING`).
        """
        raw = read_csv(
            path,
            columns=columns,
            id_column=id_column,
            optional=optional,
            aliases=aliases,
            refuse_extra=refuse_extra,
        )
        self.faults += raw.faults
        self.notes += raw.notes
        frame: pd.DataFrame = raw.table.to_pandas()
        for name in (c for c in columns if c not in frame and c not in optional):
            frame[name] = np.nan if columns[name] == "number" else None
        texts = [c for c in columns if c in frame and columns[c] == "text"]
        for name in (c for c in texts if c in (*GROUPS, "sex") or "site" in c):
            frame[name] = without_gaps(frame[name], group=name in GROUPS)
        frame[id_column] = without_gaps(bare_ids(frame[id_column]))
        twice = frame[id_column].notna() & frame[id_column].duplicated()
        if not twice.any():
            return frame
        ids = frame.loc[twice, id_column].unique()
        self.faults.append(f"{path.name}: {len(ids)} duplicate {id_column}: {first_five(ids)}")
        return frame[~twice]  # said once: joins would multiply them, and the index say it again

    def joined(
        self,
        left: pd.DataFrame,
        right: pd.DataFrame,
        *,
        on: str,
        names: tuple[str, str],
        needed: bool = True,
    ) -> pd.DataFrame:
        """Add the columns of `right` to the rows of `left` by id; rows of one only are said.

        names: Of the two files, for the messages.
        needed: Whether a row of `left` that `right` lacks is a fault; else it is noted.
        """
        lacking = left.loc[~left[on].isin(right[on]), on]
        if len(lacking):
            (self.faults if needed else self.notes).append(
                f"{names[1]}: lacks {len(lacking)} of the {len(left)} ids of {names[0]}: "
                f"{first_five(lacking)}"
            )
        spare = right.loc[~right[on].isin(left[on]), on]
        if len(spare):
            self.notes.append(
                f"{names[1]}: {len(spare)} rows that {names[0]} does not name are left out: "
                f"{first_five(spare)}"
            )
        return left.merge(right.drop_duplicates(on), on=on, how="left", validate="m:1")

    def in_splits(
        self, train: pd.DataFrame, test: pd.DataFrame, *, renamed: Mapping[str, str]
    ) -> pd.DataFrame:
        """Train rows, then test rows, with `split` and their columns under the standard names."""
        if train.empty:
            self.faults.append("no train row is left")
            self.refuse()
        parts = (("train", train), ("test", test))
        named = [rows.rename(columns=dict(renamed)).assign(split=split) for split, rows in parts]
        # An empty table would spoil the types of the other.
        return pd.concat([rows for rows in named if len(rows)], ignore_index=True)

    def refuse(self) -> None:
        """Raise DataError with all faults so far; do nothing where there is none."""
        raise_faults(
            list(dict.fromkeys(self.faults)),
            where=f"{self.info.name} in {self.root.absolute()}",
            next_step=how_to_get(self.info, self.root),
        )

    def finish(self, rows: pd.DataFrame, images: pd.Series) -> Index:
        """Bring rows (with `split` and as many standard columns as are known) to an index.

        Raises DataError with the list of all faults.
        """
        table = _standard(rows.assign(image=images.to_numpy()), self.info)
        self.notes += _without_image(table, self.root)
        return self.close(table)

    def close(self, table: pd.DataFrame) -> Index:
        """Name the sites canonically, check the table of standard columns, raise or return it."""
        table["site"], notes = canonical_site(table["site"])
        self.notes += notes
        self.faults += [*_odd_ages(table), *faults_of(table, self.info)]
        self.refuse()
        for note in self.notes:
            log.info("%s: %s", self.info.name, note)
        log.info("%s: %d rows read from %s", self.info.name, len(table), self.root)
        return Index(table, self.info, self.root, notes=self.notes)


def how_to_get(info: DatasetInfo, root: Path) -> str:
    """The next step for whoever has no archive, or the wrong one."""
    return (
        f"Set data.root to the folder that holds the tables, or download it:\n"
        f"  {info.download.replace('DATA_ROOT', str(root))}\n"
        f"or generate one to try: python -m isic synth data={info.name} data.root={root}"
    )


def no_table(info: DatasetInfo, root: Path, names: Sequence[str]) -> DataError:
    """Say which files were looked for, where they are instead, and what is not unpacked."""
    looked = ", ".join(str(root.absolute() / name) for name in names)
    lines = [f"{info.name}: no train table; looked for {looked}"]
    places = [p for name in names for pattern in ("*/", "*/*/") for p in root.glob(pattern + name)]
    places += [p for name in names for p in root.absolute().parent.glob(name)]
    if places:
        folders = list(dict.fromkeys(p.parent for p in places))
        one = f"={folders[0]}" if len(folders) == 1 else f" to the folder of {info.name}"
        lines.append(f"found {first_five(places)}: set data.root{one}")
    if zips := zips_of(root):
        lines.append(f"found {first_five(zips)}, not unpacked: unzip them in {root.absolute()}")
    return DataError("\n".join([*lines, how_to_get(info, root)]))


def bare_ids(ids: pd.Series) -> pd.Series:
    """Ids without blanks around them and without the extension of an image file."""
    return ids.str.strip().str.replace(EXTENSION, "", regex=True)


def one_hot_target(
    frame: pd.DataFrame, classes: Sequence[str], ids: pd.Series, *, what: str
) -> tuple[pd.Series, list[str]]:
    """Turn class columns of texts `0 1 0.0 1.0` into class numbers, Int64, and name bad rows.

    Each row must hold one 1 and otherwise 0; a class column that is absent counts as 0.
    """
    values = frame.reindex(columns=list(classes), fill_value="0")
    number = values.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    binary = pd.Series(np.isin(number, (0.0, 1.0)).all(axis=1), index=frame.index)
    sound = binary & (np.nansum(number, axis=1) == 1)
    wrong = (
        ("class columns must be 0 or 1, got others", ~binary),
        ("each row must have exactly one class, got none or several", binary & ~sound),
    )
    faults = [
        f"{what}: {why} in {int(rows.sum())} rows: {first_five(ids[rows])}"
        for why, rows in wrong
        if rows.any()
    ]
    code = pd.Series(np.argmax(np.nan_to_num(number), axis=1), index=frame.index, dtype="Int64")
    return code.mask(~sound), faults


def not_of(values: pd.Series, known: Collection[object], ids: pd.Series, *, what: str) -> list[str]:
    """A fault for values outside a closed vocabulary, empty cells included."""
    bad = ~values.isin(list(known))
    if not bad.any():
        return []
    got = first_five([_shown(v) for v in values[bad].unique()])
    few = len(known) <= FEW
    expected = f"one of {', '.join(map(str, known))}" if few else f"a published one ({len(known)})"
    ids = ids.loc[values.index[bad]]
    return [
        f"{what}: {values.name} must be {expected}, got {got} in {len(ids)} rows: {first_five(ids)}"
    ]


def _shown(value: Any) -> str:
    """A cell as a message shows it: text in quotes, a number as it was written, `empty`."""
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return "empty" if pd.isna(value) else text


def _odd_ages(table: pd.DataFrame) -> list[str]:
    """A fault for ages that nobody has: published ones are 0 to 90."""
    odd = table["age"].notna() & ~table["age"].between(0, OLDEST)
    if not odd.any():
        return []
    named = first_five(table.loc[odd, "image_id"])
    got = first_five(f"{age:g}" for age in table.loc[odd, "age"].unique())
    return [f"age must be 0..{OLDEST} years, got {got} in {int(odd.sum())} rows: {named}"]


def _standard(rows: pd.DataFrame, info: DatasetInfo) -> pd.DataFrame:
    """Order the standard columns first, add those that are missing, spread the classes."""
    known = {"archive": info.name, "view": info.views[0]}
    table = rows.assign(**{c: v for c, v in known.items() if c not in rows})
    table["target"] = table["target"].astype("Int64")
    classes = one_hot(table["target"], info.classes)
    own = [c for c in table.columns if c not in standard_columns(info)]
    columns: dict[str, object] = {}
    for name in standard_columns(info):
        if name in info.classes:
            columns[name] = classes[name]
        elif name in table:
            columns[name] = table[name]
        else:
            kind = pa.float64() if name in NUMBERS else pa.string()
            columns[name] = pa.nulls(len(table), kind).to_pandas().to_numpy()
    columns.update({c: table[c] for c in own})
    return pd.DataFrame(columns).reset_index(drop=True)


def _without_image(table: pd.DataFrame, root: Path) -> list[str]:
    """A note for each split whose rows have no image file, and for zips that may hold them."""
    notes = []
    for split, count in table["split"].value_counts(sort=False).items():
        lacking = table["image"].isna() & (table["split"] == split)
        if lacking.any():
            named = first_five(table.loc[lacking, "image_id"].tolist())  # a list: ten times faster
            notes.append(f"{lacking.sum()} of {count} {split} rows have no image file: {named}")
    if notes and (zips := zips_of(root)):
        notes.append(f"not unpacked: {first_five(zips)}")
    return notes
