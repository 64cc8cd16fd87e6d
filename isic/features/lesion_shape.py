"""ISIC 2024's measured columns, and the formulas that its winners made of them. Row by row.

Source: the public notebooks of the 1st and 2nd place, which share an ancestor. Units: mm, mm2, CIE
Lab, degrees, years. A division by 0 (an age of 0, a lesion without a border) is missing.
In the formulas `tbp_lv_` is dropped; D is clin_size_long_diam_mm, s symm_2axis, b norm_border,
c norm_color, dA, dB, dL the differences between lesion and skin; e keeps a divisor above 0.
Trap: several published names say what the formula is not; those stand in `PUBLISHED_AS` and have an
honest name here. In the three public test rows `stdLExt` repeats `Lext`, in train rows it does not.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import CodeType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from isic.errors import ConfigError, first_five
from isic.features.family import State, frame_of, number, without_infinities

PREFIX = "tbp_lv_"
_SHORT = """
A Aext B Bext C Cext H Hext L Lext areaMM2 area_perim_ratio color_std_mean deltaA deltaB deltaL
deltaLB deltaLBnorm eccentricity minorAxisMM nevi_confidence norm_border norm_color perimeterMM
radial_color_std_max stdL stdLExt symm_2axis symm_2axis_angle x y z
"""
MEASURED = ("clin_size_long_diam_mm", *(PREFIX + name for name in _SHORT.split()))
_NAMES = {
    **{name: PREFIX + name for name in _SHORT.split()},
    "D": "clin_size_long_diam_mm",
    "age": "age",
    "s": "tbp_lv_symm_2axis",
    "b": "tbp_lv_norm_border",
    "c": "tbp_lv_norm_color",
    "dA": "tbp_lv_deltaA",
    "dB": "tbp_lv_deltaB",
    "dL": "tbp_lv_deltaL",
}
_FUNCTIONS: Mapping[str, Any] = {
    "sqrt": np.sqrt,
    "log": np.log,
    "atan2": np.arctan2,
    "abs": np.abs,
    "pi": np.pi,
    "e": 1e-5,
}

FORMULAS: Mapping[str, str] = {
    # 1st place and the public notebook before it
    "lesion_size_ratio": "minorAxisMM / D",
    "lesion_shape_index": "areaMM2 / perimeterMM**2",
    "hue_contrast": "abs(H - Hext)",
    "luminance_contrast": "abs(L - Lext)",
    "lesion_color_difference": "sqrt(dA**2 + dB**2 + dL**2)",
    "border_complexity": "b + s",
    "color_std_to_radial_std": "color_std_mean / (radial_color_std_max + e)",
    "position_distance_3d": "sqrt(x**2 + y**2 + z**2)",
    "perimeter_to_area_ratio": "perimeterMM / areaMM2",
    "area_to_perimeter_ratio": "areaMM2 / perimeterMM",
    "lesion_visibility_score": "deltaLBnorm + c",
    "symmetry_border_product": "s * b",
    "symmetry_border_harmonic": "s * b / (s + b)",
    "stdL_to_Lext": "stdL / Lext",
    "stdL_Lext_harmonic": "stdL * Lext / (stdL + Lext)",
    "size_age_interaction": "D * age",
    "hue_color_std_interaction": "H * color_std_mean",
    "lesion_severity_index": "(b + c + eccentricity) / 3",
    "shape_complexity_index": "border_complexity + lesion_shape_index",
    "color_contrast_index": "dA + dB + dL + deltaLBnorm",
    "log_lesion_area": "log(areaMM2 + 1)",
    "size_to_age": "D / age",
    "hue_mean": "(H + Hext) / 2",
    "color_difference_rms": "sqrt((dA**2 + dB**2 + dL**2) / 3)",
    "color_shape_composite_index": "(color_std_mean + area_perim_ratio + s) / 3",
    "position_angle_xy": "atan2(y, x)",
    "color_difference_mean": "(dA + dB + dL) / 3",
    "symmetry_perimeter_interaction": "s * perimeterMM",
    "comprehensive_lesion_index": "(area_perim_ratio + eccentricity + c + s) / 4",
    "color_variance_ratio": "color_std_mean / stdLExt",
    "border_color_interaction": "b * c",
    "border_color_harmonic": "b * c / (b + c)",
    "size_color_contrast_ratio": "D / deltaLBnorm",
    "nevi_confidence_to_age": "nevi_confidence / age",
    "size_age_norm": "sqrt(D**2 + age**2)",
    "color_asymmetry_index": "radial_color_std_max * s",
    "area_position_product": "areaMM2 * sqrt(x**2 + y**2 + z**2)",
    "color_range": "abs(L - Lext) + abs(A - Aext) + abs(B - Bext)",
    "eccentricity_color_std": "eccentricity * color_std_mean",
    "border_length_ratio": "perimeterMM / (2 * pi * sqrt(areaMM2 / pi))",
    "age_size_symmetry_index": "age * D * s",
    "age_area_symmetry_index": "age * areaMM2 * s",
    # added by the 2nd place
    "asymmetry_ratio": "s / (perimeterMM + e)",
    "asymmetry_area_ratio": "s / (areaMM2 + e)",
    "color_variation_intensity": "c * deltaLBnorm",
    "color_contrast_ratio": "deltaLBnorm / (L + e)",
    "shape_irregularity": "perimeterMM / (2 * sqrt(pi * areaMM2 + e))",
    "border_density": "b / (perimeterMM + e)",
    "size_age_ratio": "D / (age + e)",
    "area_diameter_ratio": "areaMM2 / (D**2 + e)",
    "position_angle_xz": "atan2(z, x)",
    "lab_chroma": "sqrt(A**2 + B**2)",
    "lab_hue": "atan2(B, A)",
    "texture_contrast": "stdL / (L + e)",
    "texture_uniformity": "1 / (1 + color_std_mean)",
    "color_difference_AB": "sqrt(dA**2 + dB**2)",
}
PUBLISHED_AS: Mapping[str, str] = {
    "color_std_to_radial_std": "color_uniformity",  # large where colour is not uniform
    "symmetry_border_product": "symmetry_border_consistency",
    "symmetry_border_harmonic": "consistency_symmetry_border",
    "stdL_to_Lext": "color_consistency",  # large where colour is not consistent
    "stdL_Lext_harmonic": "consistency_color",
    "size_to_age": "normalized_lesion_size",
    "hue_mean": "mean_hue_difference",  # a mean, no difference
    "color_difference_rms": "std_dev_contrast",  # no deviation from any mean
    "position_angle_xy": "lesion_orientation_3d",  # where on the body, in two dimensions
    "color_difference_mean": "overall_color_difference",  # signed: differences cancel out
    "border_color_harmonic": "border_color_interaction_2",
    "nevi_confidence_to_age": "age_normalized_nevi_confidence",
    "size_age_norm": "age_normalized_nevi_confidence_2",  # has no nevi confidence in it
    "area_position_product": "volume_approximation_3d",  # of no volume
    "eccentricity_color_std": "shape_color_consistency",
    "age_area_symmetry_index": "index_age_size_symmetry",
    "position_angle_xz": "position_angle_3d_xz",
}


@dataclass(frozen=True)
class LesionShape:
    """The measured columns under their own names, and formulas.

    formulas: Names of FORMULAS; null means all. measured: Whether the columns themselves go in.
    """

    formulas: Sequence[str] | None = None
    measured: bool = True

    name: ClassVar[str] = "lesion_shape"
    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse a name that is none of FORMULAS, which would be taken for a column."""
        for odd in [f for f in self.formulas or () if f not in FORMULAS]:
            near = ", ".join(get_close_matches(odd, FORMULAS, n=5)) or first_five(FORMULAS)
            raise ConfigError(f"lesion_shape.formulas: no formula {odd!r}; there are {near}")

    @property
    def _chosen(self) -> tuple[str, ...]:
        made = tuple(FORMULAS) if self.formulas is None else tuple(self.formulas)
        return (*(MEASURED if self.measured else ()), *made)

    def needs(self, available: Sequence[str]) -> tuple[str, ...]:
        """The columns of the table behind every formula."""
        return columns_of(self._chosen)

    def sources(
        self, available: Sequence[str], kept: Collection[str], state: State
    ) -> tuple[str, ...]:
        """The columns that the features `kept` are made of."""
        return columns_of([name for name in self._chosen if name in kept])

    def fit(self, rows: pd.DataFrame) -> State:
        """Nothing."""
        return {}

    def transform(self, rows: pd.DataFrame, state: State) -> pd.DataFrame:
        """Features (N, 33 + 56)."""
        values = LesionValues(rows)
        return frame_of({name: values[name] for name in self._chosen}, rows)


class LesionValues(dict[str, npt.NDArray[np.float64]]):
    """Columns of a table and formulas on them as float64 (N,), each made when first asked for.

    Infinite is NaN, also in the result of a formula.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        super().__init__()
        self.rows = rows

    def __missing__(self, name: str) -> npt.NDArray[np.float64]:
        if name in FORMULAS:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                # The texts are this module's own: the table above is code and documentation.
                value: npt.NDArray[np.float64] = eval(_code(name), dict(_FUNCTIONS), self)
            value = without_infinities(value)
        elif name in _FUNCTIONS:
            raise KeyError(name)
        else:
            value = number(self.rows, _NAMES.get(name, name))
        self[name] = value
        return value


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """The columns of the table that columns and formulas are made of, each once."""
    found: dict[str, None] = {}
    for name in names:
        inner = _code(name).co_names if name in FORMULAS else ()
        if inner:
            found |= dict.fromkeys(columns_of([n for n in inner if n not in _FUNCTIONS]))
        else:
            found[_NAMES.get(name, name)] = None
    return tuple(found)


@cache
def _code(name: str) -> CodeType:
    return compile(FORMULAS[name], f"formula {name}", "eval")
