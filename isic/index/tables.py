"""What every reader does alike: find, read and join tables, bring rows to the standard columns.

Source: a folder with an archive's CSVs. Unit: one pandas row an image, ids without `.jpg`.
A reader collects in a `Reading` whatever is wrong (`faults`: all raised at once by `finish`) and
whatever it left aside (`notes`: kept in the index, logged by whoever opens it).
Trap: two files of one archive are joined by id, never by order, and a row that only one of them
knows is said, since its lesion or its label would be missing silently.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isic.errors import DataError, first_five
from isic.index.id_spellings import HOSPITAL, IdSpellings
from isic.index.image_files import EXTENSIONS, Folders, find_images
from isic.index.passed_over import UNREAD
from isic.index.raw_csv import NO_ALIASES, read_csv, without_gaps
from isic.index.record_files import find_records
from isic.index.schema import (
    DatasetInfo,
    Index,
    faults_of,
    raise_faults,
)
from isic.index.sites import canonical_site
from isic.index.standard import empty_table, standard_table, without_image
from isic.index.table_files import NoTrainTable, how_to_get, no_table, tables_of
from isic.index.unread_cells import Unread, standard_names, together, unread_notes, without_odd_ages

log = logging.getLogger(__name__)

# The official scorer strips it from ids, too.
EXTENSION = rf"(?i)\.({'|'.join(e[1:] for e in (*EXTENSIONS, *UNREAD))})$"
# Here, in `sex` and in any site, words such as `nan` and `unknown` mean a gap.
GROUPS = ("patient_id", "lesion_id")
IMAGES = ("image", "image_name", "image_name_1", "image_name_2", "isic_id")
FEW = 15  # values that a message can list
NO_ROWS = pd.DataFrame()


@dataclass
class Reading:
    """One archive being read: where, what it is, and what was met on the way.

    ids: How spellings of one id are taken, `exact` or `normalised`; None refuses them.
    read: Names of the tables that were read, in order. untrained: See `Index`.

    Raises DataError at once where there is no folder.
    """

    info: DatasetInfo
    root: Path
    ids: str | None = None
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    untrained: str = ""
    unread: Unread = field(default_factory=dict)
    tables: dict[str, Path] = field(init=False, repr=False)
    spellings: IdSpellings = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a root that is no folder."""
        self.root = Path(self.root)
        self.spellings = IdSpellings(self.ids)
        if not self.root.is_dir():
            where = f"{self.info.name}: no such folder {self.root.absolute()}"
            raise DataError(f"{where}\n{how_to_get(self.info, self.root)}")
        self.tables, self.notes = tables_of(self.root)

    def find(self, *names: str) -> Path | None:
        """The first of these files that is among the tables, in upper or lower case."""
        found = (self.tables[n.lower()] for n in names if n.lower() in self.tables)
        return next(found, None)

    def require(self, *names: str) -> Path:
        """Like `find`; NoTrainTable with what is there instead and the next step where none is."""
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
        self.read.append(path.name)
        self.faults += raw.faults
        self.notes += raw.notes
        self.unread = together(self.unread, raw.unread)
        frame: pd.DataFrame = raw.table.to_pandas()
        for name in (c for c in columns if c not in frame and c not in optional):
            frame[name] = np.nan if columns[name] == "number" else None
        texts = [c for c in columns if c in frame and columns[c] == "text"]
        for name in (c for c in texts if c in (*GROUPS, "sex") or "site" in c):
            frame[name] = without_gaps(frame[name], group=name in GROUPS)
        for name in (c for c in (id_column, *IMAGES) if c in frame):
            frame[name] = without_gaps(bare_ids(frame[name]))
        # Of every table: what one of them spells otherwise would not be joined.
        for name in (c for c in (*GROUPS, *IMAGES, HOSPITAL) if c in texts):
            kind = "image_id" if name in IMAGES else name
            frame[name] = self.spellings.take(kind, frame[name])
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
        self,
        train: Callable[["Reading"], pd.DataFrame],
        test: Callable[["Reading"], pd.DataFrame],
        *,
        renamed: Mapping[str, str],
        columns: Mapping[str, str],
    ) -> pd.DataFrame:
        """Train rows, then test rows, with `split` and their columns under the standard names.

        Test rows alone where there is no train table: such a download can be predicted.

        columns: Of the official train table, with their kinds; test rows alone have them as well.

        Raises NoTrainTable where there is no test row either.
        """
        absent = None
        try:
            first = train(self)
        except NoTrainTable as error:
            first, absent = empty_table(columns), error
        before = len(self.read)
        second = test(self)
        if absent is not None:
            self._go_on_without(absent, self.read[before:], n_rows=len(second))
        elif first.empty:
            self.faults.append("no train row is left")
            self.refuse()
        parts = [("train", first), ("test", second)]
        named = [rows.rename(columns=dict(renamed)).assign(split=split) for split, rows in parts]
        # A table without columns would spoil the types of the other; one without rows has types.
        return pd.concat([rows for rows in named if len(rows.columns) > 1], ignore_index=True)

    def _go_on_without(self, absent: NoTrainTable, tables: Sequence[str], *, n_rows: int) -> None:
        """Note that test rows are all there is; raise what is absent where there are none."""
        if not n_rows:
            raise absent
        found = f"found {first_five(tables)}: its {n_rows} test rows can be predicted, and"
        self.untrained = (
            f"{absent.said}\n{found} nothing can be trained, split or stacked without the other\n"
            f"{how_to_get(self.info, self.root)}"
        )
        first = absent.said.splitlines()[0].removeprefix(f"{self.info.name}: ")
        self.notes.append(f"{first}; the test rows of {first_five(tables)} stand alone")

    def refuse(self) -> None:
        """Raise DataError with all faults so far; do nothing where there is none."""
        faults = [*self.spellings.faults(), *self.faults]
        faults += unread_notes(self.unread) if faults else []  # no faults by themselves
        raise_faults(
            list(dict.fromkeys(faults)),
            where=f"{self.info.name} in {self.root.absolute()}",
            next_step=how_to_get(self.info, self.root),
        )

    def images_of(
        self, ids: pd.Series, *, official: Sequence[str], within: Folders = None
    ) -> pd.Series:
        """The reference of each image, a file or a TFRecord; null where there is neither.

        official, within: As `find_images` takes them.
        """
        refs, notes = find_images(self.root, ids, official=official, within=within)
        if refs.isna().any():
            records, found = find_records(self.root, ids, within=within)
            refs, notes = refs.fillna(records), notes + found
        self.notes += notes
        return refs

    def finish(self, rows: pd.DataFrame, images: pd.Series) -> Index:
        """Bring rows (with `split` and as many standard columns as are known) to an index.

        Raises DataError with the list of all faults.
        """
        table = standard_table(rows.assign(image=images.to_numpy()), self.info)
        self.notes += without_image(table, self.root)
        return self.close(table)

    def close(self, table: pd.DataFrame) -> Index:
        """Name the sites canonically, check the table of standard columns, raise or return it."""
        table["site"], notes = canonical_site(table["site"])
        self.notes += notes
        table["age"], unread = without_odd_ages(table, standard_names(self.unread))
        self.faults += faults_of(table, self.info)
        self.refuse()
        self.notes += [*self.spellings.notes(), *unread_notes(unread)]
        log.info("%s: %d rows read from %s", self.info.name, len(table), self.root)
        index = Index(table, self.info, self.root, notes=self.notes, untrained=self.untrained)
        return replace(index, ids=self.spellings.choice, unread=unread)


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
