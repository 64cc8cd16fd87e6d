"""Features that compare a lesion with those of other patients: learned from training rows alone.

`LesionClusters` (1st place of ISIC 2024: k-means, 29 clusters of about 50 columns, z-scores inside
the cluster) and `GroupContext` (z-scores in groups of hospital, place and age). What they learn is
plain JSON. Rows are taken in order of their ids, so no order of the table changes a bit.
Trap: fitted on all rows, a cluster's mean knows the validation rows: fit inside the fold.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import ConfigError, DataError
from isic.features.family import State, frame_of, number
from isic.features.grouped import GUARD, Groups, group_rows, mean_of, sort_within, std_of
from isic.features.lesion_shape import MEASURED, PREFIX, LesionValues, columns_of
from isic.features.naming import ascii_name, unique_names
from isic.features.patient_context import resolve

log = logging.getLogger(__name__)

Points = npt.NDArray[np.float64]
CLUSTERED = (
    *MEASURED,
    *("lesion_size_ratio", "lesion_shape_index", "hue_contrast", "luminance_contrast"),
    *("lesion_color_difference", "border_complexity", "color_std_to_radial_std"),
    *("perimeter_to_area_ratio", "symmetry_border_product", "stdL_to_Lext", "color_contrast_index"),
    *("lesion_severity_index", "log_lesion_area", "color_shape_composite_index", "color_range"),
    *("comprehensive_lesion_index", "border_length_ratio"),
)
_CHUNK = 65_536  # rows x clusters of distances at a time
_FAR = 10.0  # deviations: one typing error must not be a cluster of its own
_FEWEST = 2  # rows that a deviation is defined for


@dataclass(frozen=True)
class LesionClusters:
    """z-scores within a k-means cluster, and the distance to its centre.

    clusters: Fewer where there are fewer different training rows, which is logged.
    columns: Measured columns and formulas; null means `CLUSTERED` (50).
    sample: Rows that k-means sees at most; means and deviations are of all training rows.
    """

    clusters: int = 29
    columns: Sequence[str] | None = None
    sample: int = 50_000
    seed: int = 0

    name: ClassVar[str] = "clusters"
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.clusters < 1 or self.sample < 1:
            raise ConfigError(
                f"features.clusters: clusters and sample are at least 1, "
                f"got {self.clusters} and {self.sample}"
            )

    @property
    def _chosen(self) -> tuple[str, ...]:
        return CLUSTERED if self.columns is None else tuple(self.columns)

    def needs(self, available: Sequence[str]) -> tuple[str, ...]:
        """Columns behind the distances, and the id."""
        return columns_of([*self._chosen, "image_id"])

    def sources(
        self, available: Sequence[str], kept: Collection[str], state: State
    ) -> tuple[str, ...]:
        """Every column makes the clusters, which each of the features depends on."""
        return columns_of(self._chosen) if {*self._names()} & {*kept} else ()

    def fit(self, rows: pd.DataFrame) -> State:
        """Scale of the columns, centres, and mean and deviation of each column in each cluster."""
        if not len(rows):
            raise DataError("features.clusters: no training rows to fit on")
        rows = rows.iloc[np.argsort(rows["image_id"].to_numpy(dtype=str), kind="stable")]
        values = self._values(rows)
        mean, std = _moments(values, np.ones(len(values), bool))
        points = _scaled(values, mean, std)
        centres = self._centres(points)
        cluster = nearest(points, centres)
        inside = [_moments(values, cluster == k) for k in range(len(centres))]
        return {
            "mean": mean.tolist(),
            "std": std.tolist(),
            "centres": centres.tolist(),
            "cluster_mean": [m.tolist() for m, _ in inside],
            "cluster_std": [s.tolist() for _, s in inside],
        }

    def transform(self, rows: pd.DataFrame, state: State) -> pd.DataFrame:
        """Features (N, columns + 1); NaN where the value is missing."""
        learned = {name: np.array(values, dtype=np.float64) for name, values in state.items()}
        values, centres = self._values(rows), learned["centres"]
        points = _scaled(values, learned["mean"], learned["std"])
        cluster = nearest(points, centres)
        distance = np.sqrt(((points - centres[cluster]) ** 2).sum(axis=1))
        made = [distance]
        for i in range(len(self._chosen)):
            mean, std = learned["cluster_mean"][:, i], learned["cluster_std"][:, i]
            made.append((values[:, i] - mean[cluster]) / (std[cluster] + GUARD))
        return frame_of(dict(zip(self._names(), made, strict=True)), rows)

    def _names(self) -> list[str]:
        """Of the features, in their order."""
        names = [f"{ascii_name(c.removeprefix(PREFIX))}_cluster_z" for c in self._chosen]
        return unique_names(["cluster_distance", *names], ["", *self._chosen])

    def _values(self, rows: pd.DataFrame) -> Points:
        values = LesionValues(rows)
        return np.stack([values[name] for name in self._chosen], axis=1)

    def _centres(self, points: Points) -> Points:
        """Centres (k, F) of k-means on one thread: more would add up in another order."""
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        rng = np.random.default_rng(self.seed)
        if len(points) > self.sample:
            points = points[np.sort(rng.choice(len(points), self.sample, replace=False))]
        different = len(np.unique(points, axis=0))
        k = min(self.clusters, different)
        if k < self.clusters:
            log.warning(
                "features.clusters: %d clusters, not %d: so many different training rows",
                *(k, self.clusters),
            )
        with threadpool_limits(1):
            fitted = KMeans(k, n_init=1, max_iter=100, random_state=self.seed).fit(points)
        centres: Points = fitted.cluster_centers_
        return centres


def _moments(values: Points, rows: npt.NDArray[np.bool_]) -> tuple[Points, Points]:
    """Mean and deviation (F,) of the known values of some rows; 0 where there are none."""
    known = ~np.isnan(values[rows])
    filled = np.where(known, values[rows], 0.0)
    n = np.maximum(known.sum(axis=0), 1)  # rows come in order of ids: sums are the same
    mean = filled.sum(axis=0) / n
    away = np.where(known, filled - mean, 0.0)
    return mean, np.sqrt((away * away).sum(axis=0) / n)


def _scaled(values: Points, mean: Points, std: Points) -> Points:
    """Deviations of training rows; 0 where missing."""
    return np.nan_to_num(np.clip((values - mean) / (std + GUARD), -_FAR, _FAR), nan=0.0)


def nearest(points: Points, centres: Points) -> npt.NDArray[np.int64]:
    """Number of the nearest centre of each point (N,)."""
    found = np.empty(len(points), np.int64)
    size = (centres * centres).sum(axis=1)
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = (size - 2.0 * points[part] @ centres.T).argmin(axis=1)
    return found


@dataclass(frozen=True)
class GroupContext:
    """z-scores of columns within groups of training rows: same hospital, place and age.

    columns: Names or patterns. by: What makes a group; a missing value is a value of its own.
    fewest: Training rows that a group needs; the rows of a smaller or unseen one are missing.
    """

    columns: Sequence[str] = ("score_*",)
    by: Sequence[str] = ("attribution", "tbp_lv_location", "age")
    fewest: int = 10

    name: ClassVar[str] = "group_context"
    learns: ClassVar[bool] = True

    def needs(self, available: Sequence[str]) -> tuple[str, ...]:
        """Columns to compare, and those that group."""
        return columns_of([*resolve(self.columns, available), *self.by])

    def sources(
        self, available: Sequence[str], kept: Collection[str], state: State
    ) -> tuple[str, ...]:
        """The columns that the features `kept` are made of, and those that group."""
        named = zip(self._names(state["columns"]), state["columns"], strict=True)
        used = [column for name, column in named if name in kept]
        return columns_of([*used, *self.by]) if used else ()

    def fit(self, rows: pd.DataFrame) -> State:
        """Mean and deviation of every column in every group that is large enough."""
        text = self._keys(rows, apart=True)
        groups = group_rows(text.to_frame("key"), ("key",))
        key = text.iloc[groups.order[groups.starts]].tolist()
        large = np.flatnonzero(groups.sizes >= max(self.fewest, _FEWEST)).tolist()
        values = LesionValues(rows)
        learned: dict[str, Any] = {
            "groups": [key[g] for g in large],
            "columns": {},
            "apart": True,
        }
        for column in resolve(self.columns, list(rows.columns)):
            learned["columns"][column] = _by_group(groups, values[column], large)
        return learned

    def transform(self, rows: pd.DataFrame, state: State) -> pd.DataFrame:
        """Features (N, columns)."""
        keys = self._keys(rows, apart=state.get("apart", False))
        place = pd.Index(state["groups"], dtype=object).get_indexer(pd.Index(keys))
        values, made = LesionValues(rows), []
        for column, learned in state["columns"].items():
            # the last place is that of groups which training rows did not show
            mean = np.array([*learned["mean"], np.nan], dtype=np.float64)[place]
            std = np.array([*learned["std"], np.nan], dtype=np.float64)[place]
            made.append((values[column] - mean) / (std + GUARD))
        return frame_of(dict(zip(self._names(state["columns"]), made, strict=True)), rows)

    def _names(self, columns: Iterable[str]) -> list[str]:
        """Of the features of some columns."""
        columns = list(columns)
        return unique_names(
            [f"{ascii_name(c.removeprefix(PREFIX))}_group_z" for c in columns], columns
        )

    def _keys(self, rows: pd.DataFrame, *, apart: bool) -> pd.Series:
        """The group of each row as text, numbers alike as int64 and float64.

        apart: Whether `nan` as a text and texts that hold ` | ` are told from what they look like;
            the states of earlier releases do not.
        """
        parts = []
        for name in self.by:
            if pd.api.types.is_numeric_dtype(rows[name]):
                known = number(rows, name)
                parts.append(pd.Series([f"{v:g}" for v in known.tolist()], index=rows.index))
            else:
                text = rows[name].astype("object")
                text = text.map(_as_group) if apart else text
                parts.append(text.where(rows[name].notna(), "nan"))
        joined = parts[0].astype(str)
        for part in parts[1:]:
            joined = joined + " | " + part.astype(str)
        return joined.astype(object)


def _as_group(value: Any) -> str:
    """A text as a part of a group's key."""
    text = str(value).replace("|", "||")
    return f"'{text}'" if text == "nan" else text


def _by_group(
    groups: Groups, column: Points, large: Sequence[int]
) -> dict[str, list[float | None]]:
    """Mean and deviation of the groups `large`; NaN is kept as JSON null."""
    ordered = sort_within(groups, column)
    found = {"mean": mean_of(ordered)[large], "std": std_of(ordered)[large]}
    return {k: [None if v != v else v for v in of.tolist()] for k, of in found.items()}
