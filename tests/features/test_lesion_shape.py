"""The formulas against the published ones, written out a second time for one row at a time."""

import math

import numpy as np
import pytest

from isic.errors import DataError
from isic.features.lesion_shape import (
    FORMULAS,
    MEASURED,
    PUBLISHED_AS,
    LesionShape,
    LesionValues,
    columns_of,
)
from isic.index.isic2024_columns import TEST_COLUMNS, column_kinds

E = 1e-5


def published(r):
    """The winners' columns under their own names, of one row `r` (prefix dropped), by hand."""
    size, age, area, perimeter = (
        r["clin_size_long_diam_mm"],
        r["age"],
        r["areaMM2"],
        r["perimeterMM"],
    )
    symm, border, colour = r["symm_2axis"], r["norm_border"], r["norm_color"]
    d = [r["deltaA"], r["deltaB"], r["deltaL"]]
    distance = math.hypot(r["x"], r["y"], r["z"])
    complexity, index = border + symm, area / (perimeter * perimeter)
    return {
        "lesion_size_ratio": r["minorAxisMM"] / size,
        "lesion_shape_index": index,
        "hue_contrast": abs(r["H"] - r["Hext"]),
        "luminance_contrast": abs(r["L"] - r["Lext"]),
        "lesion_color_difference": math.hypot(*d),
        "border_complexity": complexity,
        "color_uniformity": r["color_std_mean"] / (r["radial_color_std_max"] + E),
        "position_distance_3d": distance,
        "perimeter_to_area_ratio": perimeter / area,
        "area_to_perimeter_ratio": area / perimeter,
        "lesion_visibility_score": r["deltaLBnorm"] + colour,
        "symmetry_border_consistency": symm * border,
        "consistency_symmetry_border": 1 / (1 / symm + 1 / border),
        "color_consistency": r["stdL"] / r["Lext"],
        "consistency_color": 1 / (1 / r["stdL"] + 1 / r["Lext"]),
        "size_age_interaction": size * age,
        "hue_color_std_interaction": r["H"] * r["color_std_mean"],
        "lesion_severity_index": (border + colour + r["eccentricity"]) / 3,
        "shape_complexity_index": complexity + index,
        "color_contrast_index": sum(d) + r["deltaLBnorm"],
        "log_lesion_area": math.log1p(area),
        "normalized_lesion_size": size / age,
        "mean_hue_difference": r["H"] / 2 + r["Hext"] / 2,
        "std_dev_contrast": math.hypot(*d) / math.sqrt(3),
        "color_shape_composite_index": (r["color_std_mean"] + r["area_perim_ratio"] + symm) / 3,
        "lesion_orientation_3d": math.atan2(r["y"], r["x"]),
        "overall_color_difference": sum(d) / 3,
        "symmetry_perimeter_interaction": symm * perimeter,
        "comprehensive_lesion_index": (r["area_perim_ratio"] + r["eccentricity"] + colour + symm)
        / 4,
        "color_variance_ratio": r["color_std_mean"] / r["stdLExt"],
        "border_color_interaction": border * colour,
        "border_color_interaction_2": border * colour / (border + colour),
        "size_color_contrast_ratio": size / r["deltaLBnorm"],
        "age_normalized_nevi_confidence": r["nevi_confidence"] / age,
        "age_normalized_nevi_confidence_2": math.hypot(size, age),
        "color_asymmetry_index": r["radial_color_std_max"] * symm,
        "volume_approximation_3d": area * distance,
        "color_range": sum(abs(r[c] - r[f"{c}ext"]) for c in "LAB"),
        "shape_color_consistency": r["eccentricity"] * r["color_std_mean"],
        "border_length_ratio": perimeter / math.sqrt(4 * math.pi * area),
        "age_size_symmetry_index": age * size * symm,
        "index_age_size_symmetry": age * area * symm,
        "asymmetry_ratio": symm / (perimeter + E),
        "asymmetry_area_ratio": symm / (area + E),
        "color_variation_intensity": colour * r["deltaLBnorm"],
        "color_contrast_ratio": r["deltaLBnorm"] / (r["L"] + E),
        "shape_irregularity": perimeter / math.sqrt(4 * (math.pi * area + E)),
        "border_density": border / (perimeter + E),
        "size_age_ratio": size / (age + E),
        "area_diameter_ratio": area / (size * size + E),
        "position_angle_3d_xz": math.atan2(r["z"], r["x"]),
        "lab_chroma": math.hypot(r["A"], r["B"]),
        "lab_hue": math.atan2(r["B"], r["A"]),
        "texture_contrast": r["stdL"] / (r["L"] + E),
        "texture_uniformity": 1 / (1 + r["color_std_mean"]),
        "color_difference_AB": math.hypot(d[0], d[1]),
    }


def short(row):
    return {str(k).removeprefix("tbp_lv_"): v for k, v in row.items()}


def check(rows):
    frame = LesionShape().transform(rows, {})
    compared = 0
    for at, row in enumerate(rows.to_dict("records")):
        try:
            wanted = published(short(row))
        except ZeroDivisionError:
            continue
        assert {PUBLISHED_AS.get(name, name) for name in FORMULAS} == set(wanted)
        for name in FORMULAS:
            value = wanted[PUBLISHED_AS.get(name, name)]
            assert frame[name].iloc[at] == pytest.approx(value, rel=1e-6, nan_ok=True), name
        compared += 1
    return compared


def test_every_formula_is_the_published_one(train):
    assert check(train.iloc[:60]) > 40


def test_every_formula_on_real_rows(real_rows):
    assert check(real_rows) >= 2  # others have a symmetry or border of exactly 0


def test_measured_columns_go_in_under_their_own_names(train):
    frame = LesionShape(formulas=[]).transform(train, {})
    assert list(frame.columns) == list(MEASURED)
    assert len(MEASURED) == 33
    np.testing.assert_array_equal(frame, train[list(MEASURED)].astype(np.float32))
    kinds = column_kinds()
    numbers = [c for c in TEST_COLUMNS if kinds[c] == "number" and c != "age_approx"]
    assert sorted(MEASURED) == sorted(numbers)


def test_an_age_of_zero_is_missing_and_nothing_else_is(train):
    rows = train.assign(age=0.0)
    values = LesionShape(formulas=["size_to_age", "size_age_norm"], measured=False)
    frame = values.transform(rows, {})
    assert frame["size_to_age"].isna().all()
    np.testing.assert_allclose(frame["size_age_norm"], rows["clin_size_long_diam_mm"], rtol=1e-6)


def test_only_the_columns_of_the_chosen_formulas_are_needed(train):
    one = LesionShape(formulas=["shape_complexity_index"], measured=False)
    needed = set(one.needs([]))
    assert needed == {
        *("tbp_lv_norm_border", "tbp_lv_symm_2axis", "tbp_lv_areaMM2", "tbp_lv_perimeterMM"),
    }
    one.transform(train[sorted(needed)], {})
    assert columns_of(["age", "D"]) == ("age", "clin_size_long_diam_mm")


def test_an_unknown_formula_is_a_missing_column(train):
    with pytest.raises(DataError, match="no column lesion_shpe"):
        LesionValues(train)["lesion_shpe"]
