"""The train-only columns of generated lesions: diagnosis tree, lesion ids, melanoma measures.

Source of names and rates: ISIC 2024's train-metadata.csv. All malignant lesions have a lesion_id,
as do 5.4 % of the others; 675 of 400,666 non-malignant ones were cut out and named.
Unit: mel_thick_mm in mm.
Trap: every column here gives the label away; none is in the test file.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MELANOCYTIC = "Malignant melanocytic proliferations (Melanoma)"
INVASIVE = "Melanoma Invasive"
ADNEXAL = "Malignant adnexal epithelial proliferations - Follicular"
EPIDERMAL = "Malignant epidermal proliferations"
NEVUS = ("Benign", "Benign melanocytic proliferations", "Nevus")
UNSURE = ("Indeterminate", "Indeterminate melanocytic proliferations")

# weight, iddx_1 ... iddx_5
MALIGNANT = (
    (100, ("Malignant", ADNEXAL, "Basal cell carcinoma", "Basal cell carcinoma, Nodular")),
    (63, ("Malignant", ADNEXAL, "Basal cell carcinoma", "Basal cell carcinoma, Superficial")),
    (44, ("Malignant", EPIDERMAL, "Squamous cell carcinoma in situ")),
    (29, ("Malignant", EPIDERMAL, "Squamous cell carcinoma, Invasive")),
    (94, ("Malignant", MELANOCYTIC, "Melanoma in situ")),
    (63, ("Malignant", MELANOCYTIC, INVASIVE, f"{INVASIVE}, Superficial spreading")),
)
NAMED = (
    (330, (*NEVUS, "Nevus, Atypical, Dysplastic, or Clark")),
    (105, (*NEVUS, "Nevus, NOS, Compound")),
    (70, ("Benign", "Benign epidermal proliferations", "Seborrheic keratosis")),
    (50, ("Benign", "Benign epidermal proliferations", "Solar lentigo")),
    (85, (*UNSURE, "Atypical intraepithelial melanocytic proliferation")),
    (29, (*UNSURE, "Atypical melanocytic neoplasm")),
    (3, ("Benign", "Benign - Other")),
)
FIVE_LEVELS = (*NEVUS, "Blue nevus", "Blue nevus, Cellular")  # the one row with an iddx_5
MITOTIC = ("0/mm^2", "<1/mm^2", "1/mm^2", "2/mm^2", "3/mm^2", "4/mm^2", ">4/mm^2")

Bools = NDArray[np.bool_]


def diagnosis_columns(target: NDArray[np.int64], *, seed: int) -> dict[str, Any]:
    """Return the ten train-only columns besides the target, by name.

    target: (N,) 0 or 1. At most one row has five levels, as in the original.
    """
    rng = np.random.default_rng(seed)
    n, positive = len(target), target == 1
    has_id = positive | (rng.random(n) < (22_058 - 393) / 400_666)
    named = has_id & ~positive & (rng.random(n) < 675 / (22_058 - 393))
    # Most lesions were never cut out: their diagnosis is the bare first level.
    levels: list[tuple[str, ...]] = [("Benign",)] * n
    for rows, choices in ((positive, MALIGNANT), (named, NAMED)):
        for i, leaf in zip(np.flatnonzero(rows), _choose(rng, choices, rows.sum()), strict=True):
            levels[i] = leaf
    plain = np.flatnonzero(~positive)
    if len(plain):
        deepest = int(rng.choice(plain))
        levels[deepest], has_id[deepest] = FIVE_LEVELS, True
    invasive = np.array([len(path) > 2 and path[2] == INVASIVE for path in levels])
    counted = invasive & (rng.random(n) < 53 / 63)
    lesion = rng.choice(10_000_000, n, replace=False)
    # The detector is sure of nearly every lesion it cropped.
    confidence = 100 / (1 + np.exp(-(4.0 + 2.2 * rng.normal(size=n))))
    columns = {
        "lesion_id": _where(has_id, np.char.mod("IL_%07d", lesion)),
        "iddx_full": pa.array(["::".join(path) for path in levels]),
        "mel_mitotic_index": _where(counted, np.array(MITOTIC)[rng.integers(0, 7, n)]),
        "mel_thick_mm": pa.array(np.round(rng.gamma(1.2, 0.5, n) + 0.1, 1), mask=~invasive),
        "tbp_lv_dnn_lesion_confidence": confidence.astype(np.float32),
    }
    for k in range(5):
        names = [path[k] if len(path) > k else None for path in levels]
        columns[f"iddx_{k + 1}"] = pa.array(names, pa.string())
    return columns


def _choose(
    rng: np.random.Generator, choices: tuple[tuple[int, tuple[str, ...]], ...], n: int
) -> list[tuple[str, ...]]:
    """Draw n diagnosis paths by weight."""
    weight = np.array([w for w, _ in choices], dtype=float)
    drawn = rng.choice(len(choices), int(n), p=weight / weight.sum())
    return [choices[i][1] for i in drawn]


def _where(known: Bools, values: NDArray[np.str_]) -> Any:
    """Null where not known."""
    return pa.array(values.astype(object), pa.string(), mask=~known)
