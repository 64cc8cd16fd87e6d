"""What a generated MILK10k archive is drawn from: diagnoses, sites, and the seven MONET scores.

Source: counted in the official ground truth, metadata and supplement (5,240 train lesions; rarer
diagnoses from a part of 4,143). Unit: lesions; scores 0..1.
Trap: the scores are made from what a picture shows (darkness, redness, hairs, pen), not from the
class, so that they say less than the class does and agree with the pixels.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.acquire.synthetic.tiles import LEVELS

CLASSES = tuple("AKIEC BCC BEN_OTH BKL DF INF MAL_OTH MEL NV SCCKA VASC".split())


def _by_class(*values: float) -> dict[str, float]:
    return dict(zip(CLASSES, values, strict=True))


LESIONS = _by_class(303, 2522, 44, 544, 52, 50, 9, 450, 746, 473, 47)
LOOK_OF = {"AKIEC": "AK", "SCCKA": "SCC"}  # under which name `looks` knows them
INVASIVE = "Melanoma Invasive"
DIAGNOSES = {
    "AKIEC": {
        "Squamous cell carcinoma in situ, Bowens disease": 148,
        "Solar or actinic keratosis": 99,
    },
    "BCC": {"Basal cell carcinoma": 1},
    "BEN_OTH": {
        "Benign - Other": 7,
        "Collision - Only benign proliferations": 5,
        "Exogenous": 4,
        "Mucosal melanotic macule": 4,
        "Trichoblastoma": 3,
        "Sebaceous hyperplasia": 2,
    },
    "BKL": {
        "Seborrheic keratosis": 257,
        "Lichen planus like keratosis": 108,
        "Solar lentigo": 49,
        "Clear cell acanthoma": 4,
        "Ink-spot lentigo": 1,
    },
    "DF": {"Dermatofibroma": 1},
    "INF": {"Inflammatory or infectious diseases": 34, "Molluscum": 1, "Porokeratosis": 1},
    "MAL_OTH": {"Collision - At least one malignant proliferation": 1},
    "MEL": {INVASIVE: 206, "Melanoma in situ": 144, "Melanoma metastasis": 12},
    "NV": {
        "Nevus, NOS, Compound": 159,
        "Nevus": 132,
        "Nevus, NOS, Junctional": 79,
        "Nevus, NOS, Dermal": 52,
        "Nevus, Congenital": 44,
        "Nevus, Reed": 32,
        "Nevus, Acral": 31,
        "Blue nevus": 28,
        "Nevus, Combined": 16,
        "Nevus, Spitz": 10,
    },
    "SCCKA": {"Squamous cell carcinoma, Invasive": 250, "Keratoacanthoma": 128},
    "VASC": {"Hemangioma": 26, "Angiokeratoma": 7, "Pyogenic granuloma": 5},
}
# Share of a class that no histopathology confirmed.
CLINICAL = _by_class(0.09, 0.001, 0.18, 0.09, 0.3, 0.14, 0.0, 0.005, 0.15, 0.0, 0.16)
THICKNESS = {
    "<0.8": 132,
    ">0.8-1.0": 19,
    ">1.0-2.0": 27,
    ">2.0-3.0": 10,
    ">3.0-4.0": 5,
    ">4.0-Inf": 6,
}
THICKNESS_KNOWN = 199 / 206  # of invasive melanomas
AGES = _by_class(66, 65, 59, 63, 51, 55, 65, 62, 42, 70, 53)
SITE_NAMES = (
    *("trunk", "head_neck_face", "lower_extremity", "upper_extremity", "hand", "foot", "genital"),
    "",
)
# Percent at each site; the test has fewer trunks and more hands. "" is missing.
SITES = {
    "AKIEC": (12.1, 52.6, 12.1, 16.2, 6.1, 0.4, 0.4, 0),
    "BCC": (38.2, 30.0, 17.3, 13.2, 0.5, 0.6, 0, 0.2),
    "BEN_OTH": (39, 42, 18, 0, 0, 0, 0, 0),
    "BKL": (35.8, 31.3, 18.1, 12.2, 1.4, 0, 0.5, 0.7),
    "DF": (20, 0, 65, 15, 0, 0, 0, 0),
    "INF": (33, 44, 17, 0, 0, 0, 3, 3),
    "MAL_OTH": (62, 13, 25, 0, 0, 0, 0, 0),
    "MEL": (44.8, 27.1, 18.2, 8.6, 0, 0, 0, 1.4),
    "NV": (53.1, 12.3, 23.0, 9.6, 0, 0, 0.3, 1.7),
    "SCCKA": (10.8, 34.1, 28.0, 18.5, 7.4, 1.1, 0, 0),
    "VASC": (58, 13, 21, 8, 0, 0, 0, 0),
}
TEST_SHIFT = (0.76, 1.0, 1.08, 1.05, 3.3, 0.6, 1.4, 2.1)
TONES = {"0": 6, "1": 105, "2": 506, "3": 3174, "4": 1066, "5": 383}  # 0 is in the train only
MONET = (
    *("MONET_ulceration_crust", "MONET_hair", "MONET_vasculature_vessels", "MONET_erythema"),
    *("MONET_pigmented", "MONET_gel_water_drop_fluid_dermoscopy_liquid"),
    "MONET_skin_markings_pen_ink_purple_pen",
)


def monet_scores(
    rng: np.random.Generator, frame: pd.DataFrame, *, dermoscopic: bool
) -> dict[str, NDArray[np.float64]]:
    """The seven scores of each picture, (N,) each; means as published for the kind of picture.

    frame: As `photograph` gives it, `glare` and `pen` drawn.
    """
    dark = (frame["skin_L"] - frame["lesion_L"]).to_numpy() / 10
    red = (frame["lesion_A"] - frame["skin_A"]).to_numpy() / 10
    pale = frame["pigment_R"].to_numpy() / 50
    ragged = frame["level"].to_numpy() / LEVELS
    hairs = frame["skin"].to_numpy() % 4  # how the bank numbers its skins
    glare, pen = frame["glare"].to_numpy(), frame["pen"].to_numpy()
    view = float(dermoscopic)
    logits = (
        -1.3 + 0.5 * pale + 1.5 * ragged,
        -2.2 + 0.45 * hairs + 1.1 * view,
        -5.0 + 0.9 * red + 2.6 * view,
        -1.6 + 0.9 * red - 0.15 * dark,
        -2.0 + 0.9 * dark - 0.4 * red + 0.4 * view,
        -2.0 + 0.35 * glare + 0.4 * view,
        -2.6 + 0.9 * pen + 0.5 * view,
    )
    noise = 0.6 * rng.normal(size=(len(MONET), len(frame)))
    pairs = zip(MONET, logits, noise, strict=True)
    return {name: 1 / (1 + np.exp(-(mean + spread))) for name, mean, spread in pairs}
