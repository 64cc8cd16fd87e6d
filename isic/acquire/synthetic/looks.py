"""What a lesion of each diagnosis looks like: colour against the skin, pigment, border, size.

Names: ISIC 2019's classes and those that MILK10k adds. Unit: one lesion a row; colours in CIE Lab,
pigment in RGB steps, size as a share of the picture's short side.
Source of the values: the diagnoses as textbooks put them (nevi brown and round, melanomas dark,
blue-grey and ragged, basal cell carcinomas pink with blue-grey nests, vascular lesions red); the
spread within a class is chosen so that neighbours overlap and no classifier is perfect.
Trap: nothing here is measured on real lesions; a score on generated archives says that the code
works, not how well a network does.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.acquire.synthetic.tiles import LEVELS, SKINS, VARIANTS


@dataclass(frozen=True)
class Look:
    """Means of a class.

    lab: The lesion's colour minus the skin's.
    pigment: What the pigment adds to red, green and blue where it is densest.
    ragged: Of the border, 0 round to 1 notched.
    size: Diameter as a share of the short side.
    """

    lab: tuple[float, float, float]
    pigment: tuple[float, float, float]
    ragged: float
    size: float


LOOKS = {
    "MEL": Look((-30, 3, -3), (-100, -75, -25), 0.80, 0.50),
    "NV": Look((-22, 6, 7), (-50, -45, -35), 0.20, 0.36),
    "BCC": Look((-6, 13, 0), (-45, -35, 5), 0.50, 0.42),
    "AK": Look((-3, 10, 7), (45, 40, 25), 0.65, 0.36),
    "BKL": Look((-15, 4, 13), (-30, -30, -50), 0.35, 0.46),
    "DF": Look((-11, 7, 4), (70, 60, 55), 0.10, 0.28),
    "VASC": Look((-20, 26, 4), (-20, -65, -45), 0.25, 0.28),
    "SCC": Look((-9, 17, 8), (60, 15, 5), 0.75, 0.52),
    "INF": Look((-3, 20, 3), (10, -30, -25), 0.55, 0.64),
    "BEN_OTH": Look((4, 4, 10), (30, 20, -10), 0.15, 0.32),
    "MAL_OTH": Look((-24, 16, -6), (-70, -30, 30), 0.90, 0.60),
    "UNK": Look((-14, -3, -5), (-20, 15, 20), 0.50, 0.40),
}
LAB_SPREAD = (6.0, 3.5, 3.5)
PIGMENT_SPREAD = 16.0
RAGGED_SPREAD = 0.18
ATYPICAL = 0.06  # share of lesions that look like another class, as an amelanotic melanoma does


def draw_skins(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Skin colour of n people, Lab."""
    return pd.DataFrame(
        {
            "skin_L": np.clip(rng.normal(68.0, 6.0, n), 40.0, 80.0),
            "skin_A": rng.normal(14.0, 2.5, n),
            "skin_B": rng.normal(20.0, 3.0, n),
        }
    )


def draw_lesions(
    rng: np.random.Generator, looks: NDArray[np.str_], skins: pd.DataFrame
) -> pd.DataFrame:
    """One row a lesion: its skin, colour, pigment and which blob of the bank it is.

    looks: (N,) names of LOOKS. skins: As `draw_skins` gives them, one row a lesion.
    """
    n = len(looks)
    names, code = np.unique(looks, return_inverse=True)
    code = np.where(rng.random(n) < ATYPICAL, rng.integers(0, len(names), n), code)
    chosen = [LOOKS[str(name)] for name in names]
    frame = skins.reset_index(drop=True).copy()
    lab = np.array([look.lab for look in chosen]).reshape(-1, 3)[code]
    lab = lab + rng.normal(size=(n, 3)) * LAB_SPREAD
    for k, axis in enumerate("LAB"):
        frame[f"lesion_{axis}"] = frame[f"skin_{axis}"] + lab[:, k]
    pigment = np.array([look.pigment for look in chosen]).reshape(-1, 3)[code]
    strength = rng.lognormal(0.0, 0.3, (n, 1))  # of all three at once, as layers of skin give it
    pigment = pigment * strength + PIGMENT_SPREAD * rng.normal(size=(n, 3))
    for k, axis in enumerate("RGB"):
        frame[f"pigment_{axis}"] = pigment[:, k]
    ragged = np.array([look.ragged for look in chosen])[code] + RAGGED_SPREAD * rng.normal(size=n)
    frame["level"] = np.clip(np.round(ragged * (LEVELS - 1)), 0, LEVELS - 1).astype(np.int64)
    frame["variant"] = rng.integers(0, VARIANTS, n)
    size = np.array([look.size for look in chosen])[code] * rng.lognormal(0.0, 0.22, n)
    frame["size"] = np.clip(size, 0.12, 0.85)
    frame["aspect"] = rng.uniform(0.6, 1.0, n)
    frame["skin"] = rng.integers(0, SKINS, n)  # which texture: hairs belong to the place
    return frame
