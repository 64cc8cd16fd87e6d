"""How far a lesion lies from the others of its patient: the local outlier factor, a number a row.

Source: 1st place of ISIC 2024 (at most 30 neighbours, 17 columns; pAUC .18149 -> .18185 there);
Breunig et al. 2000. Which 17 is our choice: size, shape and colour, not the place on the body. Each
column is a z-score within the patient, so that mm2 do not drown ratios; a missing value is the
patient's mean. About 1 = as dense as its neighbours, larger = more apart; the same sums as
scikit-learn's LocalOutlierFactor.
Cost: the squares of patients' sizes, so linear in patients. Fewer than three lesions: missing.
Trap: many equal lesions make the density beside them infinite: the factor is cut at 100.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import ConfigError
from isic.features.family import State, frame_of
from isic.features.grouped import group_rows, statistics_within
from isic.features.lesion_shape import LesionValues, columns_of

COLUMNS = (
    *("clin_size_long_diam_mm", "tbp_lv_minorAxisMM", "tbp_lv_areaMM2", "tbp_lv_perimeterMM"),
    *("tbp_lv_eccentricity", "tbp_lv_symm_2axis", "tbp_lv_norm_border", "tbp_lv_norm_color"),
    *("tbp_lv_color_std_mean", "tbp_lv_radial_color_std_max", "tbp_lv_stdL", "tbp_lv_deltaLBnorm"),
    *("tbp_lv_deltaA", "tbp_lv_deltaB", "tbp_lv_deltaL", "tbp_lv_H", "tbp_lv_L"),
)
FEWEST = 3  # lesions: with two, each is the other's only neighbour and the factor is 1
LARGEST = 100.0


@dataclass(frozen=True)
class Outliers:
    """`lof_patient`: local outlier factor among the patient's lesions.

    neighbours: At most; a patient with fewer lesions uses half of the others.
    columns: Measured columns or formulas of `lesion_shape`.
    """

    neighbours: int = 30
    columns: Sequence[str] = COLUMNS

    name: ClassVar[str] = "outliers"
    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ConfigError(f"features.outliers.neighbours: at least 1, got {self.neighbours}")

    def needs(self, available: Sequence[str]) -> tuple[str, ...]:
        """Columns behind the distances, the patient, and the id that orders equal lesions."""
        return columns_of([*self.columns, "patient_id", "image_id"])

    def sources(
        self, available: Sequence[str], kept: Collection[str], state: State
    ) -> tuple[str, ...]:
        """Columns behind the distances and the patient; the id only orders equal lesions."""
        return columns_of([*self.columns, "patient_id"]) if "lof_patient" in kept else ()

    def fit(self, rows: pd.DataFrame) -> State:
        """Nothing."""
        return {}

    def transform(self, rows: pd.DataFrame, state: State) -> pd.DataFrame:
        """One feature (N, 1)."""
        # Neighbours at equal distance depend on the order of rows; ids give every order the same.
        by_id = np.argsort(rows["image_id"].to_numpy(dtype=str), kind="stable")
        ordered = rows.iloc[by_id]
        groups, values = group_rows(ordered, ("patient_id",)), LesionValues(ordered)
        z = np.empty((len(rows), len(self.columns)), np.float32, order="F")
        statistics_within(groups, [values[c] for c in self.columns], ["z"], z)
        points = np.nan_to_num(z, nan=0.0).astype(np.float64, order="C")
        factor = np.full(len(rows), np.nan)
        for start, size in zip(groups.starts.tolist(), groups.sizes.tolist(), strict=True):
            if size >= FEWEST:
                mine = groups.order[start : start + size]
                factor[by_id[mine]] = local_outlier_factor(points[mine], self.neighbours)
        return frame_of({"lof_patient": factor}, rows)


def local_outlier_factor(
    points: npt.NDArray[np.float64], neighbours: int
) -> npt.NDArray[np.float64]:
    """Factor of each of the points (n, F); at most `LARGEST`."""
    from sklearn.neighbors import NearestNeighbors

    # with all others as neighbours, every lesion of a small patient would have the factor 1
    k = min(neighbours, max(1, (len(points) - 1) // 2))
    found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)
    distance, neighbour = found.kneighbors()  # (n, k), without the point itself
    reach = np.maximum(distance, distance[neighbour, -1])
    density = 1.0 / (reach.mean(axis=1) + 1e-10)
    factor = density[neighbour].mean(axis=1) / density
    bounded: npt.NDArray[np.float64] = np.minimum(factor, LARGEST)
    return bounded
