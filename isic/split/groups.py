"""Which rows belong together: a patient, a lesion, copies of one image, and what links them.

Groups are the connected components over patient_id, lesion_id, image_id (without `_downsampled`,
the mark of ISIC 2019 on images that other years hold in full), duplicate_of, parent_id and pairs of
images that show the same. Unit: row = image; 401,059 rows take about a second.
Trap: taking the patient where there is one, else the lesion, divides a lesion of which one row only
names the patient; following every link does not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import DataError

Ints = NDArray[np.int64]

SUFFIX = "_downsampled"
KINDS = ("patient_id", "lesion_id", "image_id")  # what names a group, first come first
TEXT: Any = "string[pyarrow]"  # pandas-stubs know no such name


@dataclass
class Groups:
    """The groups of some labelled rows, sorted by name.

    rows: Index labels of the rows.
    of_row: int64 (rows,), the position of each row's group.
    counts: int64 (groups, classes), rows of each class.
    classes: The target values that occur.
    titles: What people call each of `classes`.
    """

    rows: pd.Index
    names: list[str]
    of_row: Ints
    counts: Ints
    classes: list[int]
    titles: list[str]

    @property
    def size(self) -> Ints:
        """Rows of each group. (groups,)"""
        return np.asarray(self.counts.sum(axis=1), dtype=np.int64)

    def key_class(self) -> Ints:
        """Each group's rarest class, by the number of groups that hold it. (groups,)"""
        held = (self.counts > 0).sum(axis=0)
        # A class that a group lacks must never be its rarest.
        rank = np.where(self.counts > 0, held, np.iinfo(np.int64).max)
        return np.asarray(rank.argmin(axis=1), dtype=np.int64)


def group_of(table: pd.DataFrame, overlap: Iterable[tuple[str, str]] = ()) -> pd.Series:
    """Name each row's group after its smallest patient id, else its lesion, else its image.

    The names do not depend on the order of the rows; two groups never share one.

    overlap: Pairs of image ids that show the same; ids that the table lacks are passed over.
    """
    ids = {kind: _ids(table, kind) for kind in KINDS if kind in table}
    component = _components(ids, _links(table, ids["image_id"], overlap))
    names, kind_of = _names(component, ids)
    taken = pd.Index(names).duplicated(keep=False)
    if taken.any():  # a patient, a lesion and an image of one name, not linked to each other
        kinds = np.array(KINDS, dtype=object)[kind_of[taken]]
        names[taken] = kinds + ":" + names[taken]
    return pd.Series(names[component], index=table.index, name="group", dtype="object")


def bare(ids: pd.Series) -> pd.Series:
    """Image ids without `SUFFIX`: two of one bare id are one image."""
    cut: pd.Series = ids.str.removesuffix(SUFFIX)
    return cut


def count_groups(rows: pd.DataFrame, group: pd.Series) -> Groups:
    """Count the classes of each group among `rows`, which must all have a target.

    group: Name of each row's group, on index labels that include those of `rows`.
    """
    # Sorted names make the codes, and so every deal, independent of the row order.
    codes, names = pd.factorize(group.loc[rows.index].astype(TEXT), sort=True)
    target, classes = pd.factorize(rows["target"].to_numpy(dtype=np.int64), sort=True)
    shape = (len(names), len(classes))
    flat = np.bincount(codes * len(classes) + target, minlength=shape[0] * shape[1])
    return Groups(
        rows=rows.index,
        names=[str(n) for n in names],
        of_row=codes.astype(np.int64),
        counts=flat.reshape(shape).astype(np.int64),
        classes=[int(c) for c in classes],
        titles=_titles(rows, classes.tolist()),
    )


def _titles(rows: pd.DataFrame, classes: list[int]) -> list[str]:
    """`target 4 (BKL)`: an index has its class columns between `target` and `age`."""
    columns = list(rows.columns)
    names = columns[columns.index("target") + 1 :]
    names = names[: names.index("age")] if "age" in names else []
    return [f"target {c}" + (f" ({names[c]})" if c < len(names) else "") for c in classes]


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that a split names: train rows with a target. Raises DataError without any.

    A table without `split` is taken as train rows throughout.
    """
    usable = table["target"].notna()
    if "split" in table:
        usable &= table["split"] == "train"
    if not usable.any():
        raise DataError("a split needs labelled train rows, got none; check the train table")
    return table[usable]


def _ids(table: pd.DataFrame, column: str) -> pd.Series:
    """A column of ids as text on 0..n-1; empty cells are missing."""
    text = pd.Series(table[column].to_numpy(dtype=object), dtype=TEXT)
    return pd.Series(text.mask(text == ""))


def _links(
    table: pd.DataFrame, image: pd.Series, overlap: Iterable[tuple[str, str]]
) -> tuple[Ints, Ints]:
    """Row numbers and, for each, the number of an image name that the row hangs on.

    That is its own, those that it points to, and those that show the same.
    """
    rows, names = [np.arange(len(table))], [bare(image)]
    for column in ("duplicate_of", "parent_id"):
        if column in table:
            known = bare(_ids(table, column)).dropna()
            rows.append(known.index.to_numpy())
            names.append(known)
    codes = pd.factorize(pd.concat(names, ignore_index=True))[0]
    first, second = _pairs(image, overlap)
    return np.concatenate([*rows, first]), np.concatenate([codes, codes[second]])


def _pairs(image: pd.Series, overlap: Iterable[tuple[str, str]]) -> tuple[Ints, Ints]:
    """Row numbers of each pair whose images are both in the table."""
    pairs = np.array([(a, b) for a, b in overlap], dtype=object).reshape(-1, 2)
    if not len(pairs):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # Of a row that stands twice, the first; a reader refuses such a table later.
    at = pd.Index(image.drop_duplicates())
    rows = np.flatnonzero(~image.duplicated())
    first, second = (at.get_indexer(pd.Index(pairs[:, i], dtype=TEXT)) for i in (0, 1))
    both = (first >= 0) & (second >= 0)
    return rows[first[both]], rows[second[both]]


def _components(ids: dict[str, pd.Series], links: tuple[Ints, Ints]) -> Ints:
    """Number the connected components of the rows. (rows,)"""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(ids["image_id"])
    rows, nodes = [links[0]], [n + links[1]]
    n_nodes = n + int(links[1].max(initial=-1)) + 1
    for kind in KINDS[:-1]:
        if kind in ids:
            codes, found = pd.factorize(ids[kind])
            rows.append(np.flatnonzero(codes >= 0))
            nodes.append(n_nodes + codes[codes >= 0])
            n_nodes += len(found)
    left, right = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(n_nodes, n_nodes))
    _, label = connected_components(graph, directed=False)
    return np.asarray(pd.factorize(label[:n])[0], dtype=np.int64)


def _names(component: Ints, ids: dict[str, pd.Series]) -> tuple[NDArray[np.object_], Ints]:
    """The name of each component, and which of KINDS it is. (components,)"""
    n = int(component.max(initial=-1)) + 1
    names, kind_of = np.full(n, "", dtype=object), np.full(n, -1, dtype=np.int64)
    for number, kind in enumerate(KINDS):
        if kind not in ids:
            continue
        rows = np.flatnonzero(ids[kind].notna().to_numpy() & (kind_of[component] < 0))
        if not len(rows):
            continue
        codes, found = pd.factorize(ids[kind].iloc[rows], sort=True)
        smallest = np.full(n, len(found), dtype=np.int64)
        np.minimum.at(smallest, component[rows], codes)
        named = smallest < len(found)
        names[named] = np.asarray(found, dtype=object)[smallest[named]]
        kind_of[named] = number
    return names, kind_of
