"""What a generated lesion is: patients, targets and the hidden numbers that table and tile share.

Rates and vocabularies: ISIC 2024's train-metadata.csv (401,059 rows, 393 malignant, 1,042
patients, median 241 lesions each). Lengths in mm, colours in CIE Lab, ages in years.
A malignant lesion is shifted against its own patient's others along three axes: `shared` (size and
darkness, seen by table and tile), `by_image` (border and colour of the tile) and `by_table`
(measured columns). Each patient has own levels, so that the odd one out says more than the value.
Trap: the axes are drawn given the target; no column or pixel holds the target itself.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Patients = dict[str, NDArray[np.generic]]

# Mean shift of a malignant lesion, in standard deviations. Along one axis alone a shift d gives
# AUC Phi(d / sqrt 2): chosen so that tile and table reach about 0.85 each and 0.91 together.
SHIFT = {"shared": 0.6, "by_image": 1.9, "by_table": 1.35}
# Patients differ by this much from each other along the same axes.
PATIENT_SPREAD = {"shared": 0.4, "by_image": 0.35, "by_table": 0.5}

# site, location_simple, share of the benign, share of the malignant (counted in the train table)
REGIONS = (
    ("posterior torso", "Torso Back", 121_799, 103),
    ("anterior torso", "Torso Front", 87_688, 82),
    ("lower extremity", "Left Leg", 53_031, 37),
    ("lower extremity", "Right Leg", 49_924, 36),
    ("upper extremity", "Left Arm", 36_314, 29),
    ("upper extremity", "Right Arm", 34_186, 28),
    ("head/neck", "Head & Neck", 11_968, 78),
    (None, "Unknown", 5_756, 0),
)


@dataclass
class Lesions:
    """`frame`: one row per lesion; `patients`: one row per patient, by `frame.patient`."""

    frame: pd.DataFrame
    patients: pd.DataFrame


def sample_lesions(
    seed: int, *, n_lesions: int, n_patients: int, n_positives: int, hospitals: int
) -> Lesions:
    """Draw patients and their lesions; the same arguments give the same numbers.

    hospitals: How many to draw from; the first patient always is at the last one.
    """
    rng = np.random.default_rng(seed)
    patients = _patients(rng, n_patients, hospitals=hospitals)
    weight = rng.lognormal(0.0, 0.97, n_patients)  # median 241, mean 385 lesions in the archive
    # Everyone has at least one lesion; the rest fall to patients by weight.
    spare = rng.choice(n_patients, n_lesions - n_patients, p=weight / weight.sum())
    patient = np.concatenate([np.arange(n_patients), spare])
    # Rows are sorted by random ids in the original: neighbours are strangers.
    rng.shuffle(patient)
    target = draw_targets(rng, patient, patients, n_positives)
    frame = pd.DataFrame({"patient": patient, "target": target})
    for axis, shift in SHIFT.items():
        own = rng.normal(0.0, PATIENT_SPREAD[axis], n_patients)[patient]
        frame[axis] = own + rng.normal(0.0, 1.0, n_lesions) + shift * target
    frame["region"] = _regions(rng, target)
    _shape(rng, frame)
    _colour(rng, frame, patients)
    return Lesions(frame, patients)


def _patients(rng: np.random.Generator, n: int, *, hospitals: int) -> pd.DataFrame:
    """Age, sex, hospital, camera light and skin colour of each patient."""
    hospital = rng.integers(0, hospitals, n)
    hospital[0] = hospitals - 1  # in a test file the one that no train row has
    age = np.clip(5 * np.round(rng.normal(58.0, 13.5, n) / 5), 5, 85)
    return pd.DataFrame(
        {
            "age": age,
            "male": rng.random(n) < 0.66,
            "hospital": hospital,
            "white_light": rng.random(n) < 115_156 / 401_059,
            "skin_L": np.clip(rng.normal(64.0, 6.0, n), 38.0, 78.0),
            "skin_A": rng.normal(15.0, 2.5, n),
            "skin_B": rng.normal(25.0, 3.0, n),
        }
    )


def draw_targets(
    rng: np.random.Generator, patient: Ints, patients: pd.DataFrame, n_positives: int
) -> Ints:
    """Give about n / 1.5 patients one malignant lesion and a few of them more, the old first."""
    n_lesions = np.bincount(patient, minlength=len(patients))
    risk = np.exp((patients["age"].to_numpy() - 60.0) / 14.0) * np.sqrt(n_lesions)
    n_ill = min(len(patients), -(-2 * n_positives // 3))
    ill = rng.choice(len(patients), n_ill, replace=False, p=risk / risk.sum())
    target = np.zeros(len(patient), dtype=np.int64)
    order = rng.permutation(len(patient))
    first = order[np.unique(patient[order], return_index=True)[1]]  # one lesion of each patient
    target[first[ill][:n_positives]] = 1
    others = order[np.isin(patient[order], ill) & (target[order] == 0)]
    missing = n_positives - int(target.sum())
    target[others[:missing]] = 1
    return target


def _regions(rng: np.random.Generator, target: Ints) -> Ints:
    """Positions in REGIONS; malignant lesions crowd on head and neck, as published."""
    region = np.empty(len(target), dtype=np.int64)
    for value, column in ((0, 2), (1, 3)):
        share = np.array([row[column] for row in REGIONS], dtype=float)
        rows = target == value
        region[rows] = rng.choice(len(REGIONS), int(rows.sum()), p=share / share.sum())
    return region


def _shape(rng: np.random.Generator, frame: pd.DataFrame) -> None:
    """Add `diameter` and `minor` (mm), and `eccentricity`; median 3.4 mm as in the archive."""
    n = len(frame)
    size = np.log(3.4) + 0.26 * rng.normal(size=n) + 0.22 * frame["shared"].to_numpy()
    frame["diameter"] = np.clip(np.exp(size), 1.0, 13.5)
    frame["eccentricity"] = np.clip(rng.beta(5.5, 2.2, n), 0.1, 0.98)
    frame["minor"] = frame["diameter"] * np.sqrt(1 - frame["eccentricity"] ** 2)


def _colour(rng: np.random.Generator, frame: pd.DataFrame, patients: pd.DataFrame) -> None:
    """Add Lab of the skin (`skin_*`) and of the lesion (`lesion_*`)."""
    n, patient = len(frame), frame["patient"].to_numpy()
    dark = 6.5 + 1.6 * frame["shared"].to_numpy() + 2.2 * rng.normal(size=n)
    delta = {
        "L": -np.maximum(dark, 1.0),
        "A": 3.2 + 1.7 * rng.normal(size=n),
        "B": 0.8 + 1.9 * rng.normal(size=n),
    }
    for axis, spread in (("L", 3.0), ("A", 1.2), ("B", 1.4)):
        own = patients[f"skin_{axis}"].to_numpy()[patient]
        frame[f"skin_{axis}"] = own + rng.normal(0.0, spread, n)
        frame[f"lesion_{axis}"] = frame[f"skin_{axis}"] + delta[axis]


def to_rgb(lab: Floats) -> NDArray[np.float32]:
    """Convert Lab (N, 3) to RGB 0..255 (N, 3), clipped into the gamut."""
    pixels = lab.astype(np.float32)[:, None]
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_Lab2RGB)[:, 0] * 255.0, dtype=np.float32)
