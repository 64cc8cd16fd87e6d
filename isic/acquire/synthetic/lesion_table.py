"""Generated lesions -> the metadata columns of ISIC 2024, as an Arrow table.

Source of vocabularies, rates and of how columns hang together: train-metadata.csv of the Kaggle
challenge (C = hypot(A, B), H = atan2(B, A), delta = inside - outside, area_perim_ratio =
perimeter^2 / area, deltaLB about 1.5 % above hypot(deltaL, deltaB)).
Units: mm, mm2, CIE Lab, years, degrees.
Trap: age is text here (`45.0`), since Arrow would write the float 45.0 as 45.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from isic.acquire.synthetic.lesions import REGIONS, Floats, Lesions

HOSPITALS = (
    ("Memorial Sloan Kettering Cancer Center", "CC-BY"),
    ("Department of Dermatology, Hospital Clínic de Barcelona", "CC-BY-NC"),
    ("University Hospital of Basel", "CC-BY-NC"),
    ("Frazer Institute, The University of Queensland, Dermatology Research Centre", "CC-BY"),
    ("ACEMID MIA", "CC-0"),
    ("ViDIR Group, Department of Dermatology, Medical University of Vienna", "CC-BY-NC"),
    (
        "Department of Dermatology, University of Athens, Andreas Syggros Hospital of Skin and "
        "Venereal Diseases, Alexander Stratigos, Konstantinos Liopyris",
        "CC-0",
    ),
)
UNSEEN_HOSPITAL = ("FNQH Cairns", "CC-BY")  # only in the public test rows

# Parts of each region: (tbp_lv_location, height y in mm); 21 values with the bare region.
PARTS = {
    "Torso Back": (("Top Third", 1400), ("Middle Third", 1220), ("Bottom Third", 1050)),
    "Torso Front": (("Top Half", 1330), ("Bottom Half", 1080)),
    "Left Leg": (("- Upper", 720), ("- Lower", 330)),
    "Right Leg": (("- Upper", 720), ("- Lower", 330)),
    "Left Arm": (("- Upper", 1300), ("- Lower", 1050)),
    "Right Arm": (("- Upper", 1300), ("- Lower", 1050)),
    "Head & Neck": (("", 1560),),
    "Unknown": (("", 1000),),
}
MISSING_AGE = (401_059 - 398_261) / 401_059
MISSING_SEX = (401_059 - 389_542) / 401_059


def metadata_columns(
    lesions: Lesions, *, ids: NDArray[np.str_], patient_ids: NDArray[np.str_], seed: int
) -> dict[str, Any]:
    """Return the 44 columns of the test file by name; a train file adds its own.

    ids: One per lesion. patient_ids: One per patient, indexed by `frame.patient`.
    """
    rng = np.random.default_rng(seed)
    frame, patient = lesions.frame, lesions.frame["patient"].to_numpy()
    # Age, sex and hospital belong to the patient: all of one patient's rows agree.
    person = lesions.patients.iloc[patient]
    hospital = person["hospital"].to_numpy()
    names = [*HOSPITALS, UNSEEN_HOSPITAL]
    age = np.char.add(person["age"].to_numpy().astype(np.int64).astype(str), ".0")
    sex = np.where(person["male"], "male", "female")
    white = person["white_light"].to_numpy(dtype=bool)
    measured = {
        **_colour_columns(rng, frame, white),
        **_shape_columns(rng, frame),
        **_texture_columns(rng, frame),
        **_place_columns(rng, frame),
    }
    return {
        "isic_id": ids,
        "patient_id": patient_ids[patient],
        "age_approx": _masked(age, some_patients(rng, patient, share=MISSING_AGE)),
        "sex": _masked(sex, some_patients(rng, patient, share=MISSING_SEX)),
        "image_type": _constant("TBP tile: close-up", len(frame)),
        "tbp_tile_type": np.where(white, "3D: white", "3D: XP"),
        "attribution": np.array([name for name, _ in names])[hospital],
        "copyright_license": np.array([license for _, license in names])[hospital],
        **{name: _single(values) for name, values in measured.items()},
    }


def _single(values: Any) -> Any:
    """Seven digits are what the measurements carry, and halve the file."""
    numbers = isinstance(values, np.ndarray) and values.dtype == np.float64
    return values.astype(np.float32) if numbers else values


def _constant(value: str, n: int) -> Any:
    return pa.repeat(pa.scalar(value), n)


def _masked(values: NDArray[np.str_], missing: NDArray[np.bool_]) -> Any:
    """Null where missing, an empty cell in the file."""
    return pa.array(values.astype(object), pa.string(), mask=missing)


def some_patients(
    rng: np.random.Generator, patient: NDArray[np.int64], *, share: float
) -> NDArray[np.bool_]:
    """Mark all rows of a few patients, as near to the share of rows as fits, at least one row."""
    size = np.bincount(patient)
    order = rng.permutation(len(size))
    left = share * len(patient)
    chosen = []
    for p in order:
        if size[p] <= left:
            chosen.append(p)
            left -= size[p]
    return np.isin(patient, chosen or [size.argmin()])


def _colour_columns(
    rng: np.random.Generator, frame: pd.DataFrame, white: NDArray[np.bool_]
) -> dict[str, Floats]:
    """Lab inside and around the lesion, as the two kinds of tile report them.

    Derived columns follow the definitions in the module's docstring exactly, up to rounding.
    """
    inside = {c: frame[f"lesion_{c}"].to_numpy().copy() for c in "LAB"}
    outside = {c: frame[f"skin_{c}"].to_numpy().copy() for c in "LAB"}
    # Cross-polarised tiles are reported darker than white-light ones.
    for side in (inside, outside):
        side["L"] = np.where(white, side["L"] + 2.0, side["L"] - 8.0)
    columns: dict[str, Floats] = {}
    for side, tail in ((inside, ""), (outside, "ext")):
        columns |= {f"tbp_lv_{c}{tail}": side[c] for c in "LAB"}
        columns[f"tbp_lv_C{tail}"] = np.hypot(side["A"], side["B"])
        columns[f"tbp_lv_H{tail}"] = np.degrees(np.arctan2(side["B"], side["A"]))
    delta = {c: inside[c] - outside[c] for c in "LAB"}
    columns |= {f"tbp_lv_delta{c}": delta[c] for c in "LAB"}
    # The official column is a mean over pixels, a little above that of the means.
    delta_lb = np.hypot(delta["L"], delta["B"]) * (1.015 + 0.01 * rng.random(len(frame)))
    columns["tbp_lv_deltaLB"] = delta_lb
    columns["tbp_lv_deltaLBnorm"] = delta_lb * rng.uniform(0.66, 1.06, len(frame))
    return columns


def _shape_columns(rng: np.random.Generator, frame: pd.DataFrame) -> dict[str, Any]:
    """Length, area and outline: an ellipse with a border that is rougher along the table axis."""
    n, t = len(frame), frame["by_table"].to_numpy()
    diameter, minor = frame["diameter"].to_numpy(), frame["minor"].to_numpy()
    area = np.pi / 4 * diameter * minor * rng.uniform(0.8, 1.0, n)
    ellipse = np.pi * (1.5 * (diameter + minor) - np.sqrt(diameter * minor)) / 2
    rough = 1.02 + 0.05 * np.exp(0.35 * t + 0.5 * rng.normal(size=n))
    # No outline is shorter than the circle of its area.
    perimeter = np.maximum(ellipse * rough, np.sqrt(4 * np.pi * area) * 1.02)
    angle = 5 * rng.integers(0, 36, n)
    return {
        "clin_size_long_diam_mm": np.round(diameter, 2),
        "tbp_lv_areaMM2": area,
        "tbp_lv_area_perim_ratio": perimeter**2 / area,
        "tbp_lv_eccentricity": frame["eccentricity"].to_numpy(),
        "tbp_lv_minorAxisMM": minor,
        "tbp_lv_perimeterMM": perimeter,
        "tbp_lv_symm_2axis": np.clip(0.3 + 0.05 * t + 0.1 * rng.normal(size=n), 0.05, 1.0),
        "tbp_lv_symm_2axis_angle": angle,
    }


def _texture_columns(rng: np.random.Generator, frame: pd.DataFrame) -> dict[str, Floats]:
    """Irregularity scores: mostly the table axis, a little of what the tile shows."""
    n = len(frame)
    t, m = frame["by_table"].to_numpy(), frame["by_image"].to_numpy()

    def score(mean: float, slope: float, noise: float) -> Floats:
        return np.asarray(mean + slope * (0.95 * t + 0.15 * m) + noise * rng.normal(size=n))

    # nevi_confidence is 0-100, and yet tiny for most non-nevi.
    nevus = 100 / (1 + np.exp(-(1.5 - 1.2 * t + 5.0 * rng.normal(size=n))))
    return {
        "tbp_lv_color_std_mean": np.maximum(score(1.0, 0.5, 0.5), 0.0),
        "tbp_lv_norm_border": np.clip(score(3.6, 0.9, 0.8), 0.0, 10.0),
        "tbp_lv_norm_color": np.clip(score(2.6, 1.2, 1.3), 0.0, 10.0),
        "tbp_lv_radial_color_std_max": np.maximum(score(0.8, 0.4, 0.45), 0.0),
        "tbp_lv_nevi_confidence": nevus,
        "tbp_lv_stdL": np.exp(0.6 + 0.2 * t + 0.3 * rng.normal(size=n)),
        "tbp_lv_stdLExt": np.exp(0.7 + 0.35 * rng.normal(size=n)),
    }


def _place_columns(rng: np.random.Generator, frame: pd.DataFrame) -> dict[str, Any]:
    """Site, its two finer names, and a point on the body in mm that lies there."""
    region, n = frame["region"].to_numpy(), len(frame)
    simple = np.array([row[1] for row in REGIONS])
    site = np.array([row[0] or "" for row in REGIONS])[region]
    location = simple[region].astype(object)
    height = np.full(n, 1200.0)
    for r, (_, name, _, _) in enumerate(REGIONS):
        rows = np.flatnonzero(region == r)
        part = rng.integers(0, len(PARTS[name]), len(rows))
        # A few rows of each region carry its bare name.
        bare = rng.random(len(rows)) < 0.01
        full = np.array([f"{name} {p}".strip() for p, _ in PARTS[name]])[part]
        location[rows] = np.where(bare, name, full)
        height[rows] = np.array([y for _, y in PARTS[name]])[part]
    left = np.char.startswith(simple, "Left")[region].astype(float)
    right = np.char.startswith(simple, "Right")[region].astype(float)
    # z points out of the chest; 1 and 6 are the front and the head.
    front = np.where(np.isin(region, [1, 6]), 110.0, -40.0)
    return {
        "anatom_site_general": _masked(site, site == ""),
        "tbp_lv_location": location,
        "tbp_lv_location_simple": simple[region],
        "tbp_lv_x": 190.0 * (left - right) + 80.0 * rng.normal(size=n),
        "tbp_lv_y": height + 60.0 * rng.normal(size=n),
        "tbp_lv_z": front + 60.0 * rng.normal(size=n),
    }
