"""A generated MILK10k archive in the organisers' layout: two pictures a lesion, four tables.

Writes MILK10k_{Training,Test}_Input/<lesion_id>/<isic_id>.jpg, both metadata files (17 columns),
ground truth, supplement and a sample submission. Form and rates: the official files (5,240 train
and 479 test lesions; doi 10.34970/648456).
Row unit: lesion in ground truth and submission, image elsewhere: `n_images` counts LESIONS.
Trap: which of a lesion's two isic_ids is the dermoscopic one says `image_type` alone; ages are
`50.0` in the train table and `50` in the test's.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from isic.acquire.synthetic.csv_text import decimal, masked, one_hot_cells, write_csv
from isic.acquire.synthetic.generated import (
    Size,
    class_counts,
    default_test,
    generate,
    numbers,
    own_rng,
    plain_size,
    seeds_of,
    splits,
    spread,
    weighted,
    write_images,
)
from isic.acquire.synthetic.looks import draw_lesions, draw_skins
from isic.acquire.synthetic.milk10k_lesions import (
    AGES,
    CLASSES,
    CLINICAL,
    DIAGNOSES,
    INVASIVE,
    LESIONS,
    LOOK_OF,
    MONET,
    SITE_NAMES,
    SITES,
    TEST_SHIFT,
    THICKNESS,
    THICKNESS_KNOWN,
    TONES,
    monet_scores,
)
from isic.acquire.synthetic.portraits import CLOSE_UP, DERMATOSCOPE, frame_sizes, jpegs, photograph
from isic.acquire.synthetic.tiles import make_bank

SMALLEST = 2  # lesions of a class in a small archive, for two folds
FRAME = (600, 450)
VIEWS = {"clinical: close-up": CLOSE_UP, "dermoscopic": DERMATOSCOPE}
NAMES = (
    *("MILK10k_Training_Input", "MILK10k_Test_Input", "sample_submission.csv"),
    *("MILK10k_Training_GroundTruth.csv", "MILK10k_Training_Supplement.csv"),
    *("MILK10k_Training_Metadata.csv", "MILK10k_Test_Metadata.csv"),
)


def write_milk10k(
    root: Path,
    *,
    n_images: int,
    n_test: int | None = None,
    seed: int = 0,
    size_range: Size = None,
    images: bool = True,
) -> Path:
    """Write the archive below `root` and return it; done already with these arguments: no work.

    n_images: Train lesions, of two images each. n_test: Test lesions; default a tenth, at least 3;
        0: no test files.
    size_range: Side of square pictures in px, or its lowest and highest value; None: 600x450.
    images: False writes the tables only.
    """
    arguments = {
        "archive": "milk10k",
        "n_images": n_images,
        "n_test": default_test(n_images, n_test),
        "seed": seed,
        "size_range": plain_size(size_range),
        "images": images,
    }
    return generate(Path(root), arguments, names=NAMES, write=_write)


def _write(root: Path, arguments: dict[str, Any]) -> None:
    rng = own_rng(arguments)
    total = arguments["n_images"] + arguments["n_test"]
    # Even numbers: those of 2020 are odd, and archives that are merged share no image, no lesion.
    lesion_ids = np.char.mod("IL_%07d", numbers(rng, 4_000, 10_000_000, total, step=2))
    isic_ids = np.char.mod("ISIC_%07d", numbers(rng, 80_000, 10_000_000, 2 * total, step=2))
    for split, n in splits(arguments):
        train = split == "train"
        of_lesions, of_images = map(np.random.default_rng, seeds_of(arguments, split, 2))
        first = 0 if train else arguments["n_images"]
        lesions = _lesions(of_lesions, n, train=train)
        lesions["lesion_id"] = np.sort(lesion_ids[first : first + n])
        table, frame = _images(of_images, lesions, arguments)
        table["isic_id"] = isic_ids[2 * first : 2 * (first + n)]
        name = "MILK10k_Training" if train else "MILK10k_Test"
        _write_metadata(root / f"{name}_Metadata.csv", table, train=train)
        (_write_labels if train else _write_sample)(root, lesions, table)
        if arguments["images"]:
            folder = f"{name}_Input/" + table["lesion_id"] + "/"
            names = (folder + table["isic_id"] + ".jpg").tolist()
            write_images(root, names, jpegs(frame, make_bank(arguments["seed"])))


def _lesions(rng: np.random.Generator, n: int, *, train: bool) -> pd.DataFrame:
    """One row a lesion: class, diagnosis, age, sex, site, skin tone."""
    name = rng.permutation(spread(class_counts(n, LESIONS, floor=SMALLEST)))
    lesions = pd.DataFrame({"class": name})
    age = lesions["class"].map(AGES).to_numpy(dtype=float) + 14 * rng.normal(size=n)
    lesions["age"] = np.clip(5 * np.round(age / 5), 5, 85).astype(np.int64)
    missing = max(1, round(n * 20 / 5_240)) if train else 0
    lesions["no_age"] = rng.permutation(np.arange(n) < missing)
    lesions["sex"] = np.where(rng.random(n) < 0.6, "male", "female")
    tones = TONES if train else {k: v for k, v in TONES.items() if k != "0"}
    lesions["tone"] = weighted(rng, tones, n)
    lesions["confirmed"] = rng.random(n) >= lesions["class"].map(CLINICAL).to_numpy(dtype=float)
    lesions["thickness"] = ""
    for key, rows in lesions.groupby("class").groups.items():
        shift = (1.0,) * len(SITE_NAMES) if train else TEST_SHIFT
        shares = [a * b for a, b in zip(SITES[str(key)], shift, strict=True)]
        sites = dict(zip(SITE_NAMES, shares, strict=True))
        lesions.loc[rows, "site"] = weighted(rng, sites, len(rows))
        lesions.loc[rows, "diagnosis"] = weighted(rng, DIAGNOSES[str(key)], len(rows))
    lesions.loc[rng.integers(n), "site"] = ""  # one at least, in a small archive too
    deep = (lesions["diagnosis"] == INVASIVE) & (rng.random(n) < THICKNESS_KNOWN)
    lesions.loc[deep, "thickness"] = weighted(rng, THICKNESS, int(deep.sum()))
    return lesions


def _images(
    rng: np.random.Generator, lesions: pd.DataFrame, arguments: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row an image, clinical before dermoscopic: its metadata, and what it shows."""
    tables, frames = [], []
    names = lesions["class"].replace(LOOK_OF).to_numpy(dtype=str)
    looks = draw_lesions(rng, names, draw_skins(rng, len(lesions)))
    altered = rng.random(len(lesions)) < 327 / 5_240
    for view, camera in VIEWS.items():
        native = np.tile(FRAME, (len(lesions), 1)).astype(np.int64)
        frame = photograph(rng, looks, frame_sizes(rng, native, arguments["size_range"]), camera)
        dermoscopic = view == "dermoscopic"
        frame["glare"] = rng.poisson(2.0 if dermoscopic else 0.3, len(frame))
        frame["pen"] = 3 * (rng.random(len(frame)) < 0.2) + rng.poisson(0.2, len(frame))
        scores = monet_scores(rng, frame, dermoscopic=dermoscopic)
        # Most of the altered pictures are close-ups, cut so that no face is seen.
        here = altered & (rng.random(len(lesions)) < (0.05 if dermoscopic else 0.97))
        manipulation = np.where(here, "altered", "instrument only")
        tables.append(lesions.assign(view=view, manipulation=manipulation, **scores))
        frames.append(frame)
    order = np.arange(2 * len(lesions)).reshape(2, -1).T.ravel()
    both = (pd.concat(parts, ignore_index=True).iloc[order] for parts in (tables, frames))
    table, frame = (part.reset_index(drop=True) for part in both)
    return table, frame


def _write_metadata(path: Path, table: pd.DataFrame, *, train: bool) -> None:
    """Write the 17 columns of an image."""
    n, age, site = len(table), table["age"].to_numpy(), table["site"].to_numpy(dtype=str)
    columns = {
        "lesion_id": table["lesion_id"].to_numpy(dtype=str),
        "image_type": table["view"].to_numpy(dtype=str),
        "isic_id": table["isic_id"].to_numpy(dtype=str),
        "attribution": pa.repeat(pa.scalar("MILK study team"), n),
        "copyright_license": pa.repeat(pa.scalar("CC-BY-NC"), n),
        "image_manipulation": table["manipulation"].to_numpy(dtype=str),
        "age_approx": masked(decimal(age), table["no_age"].to_numpy()) if train else age,
        "sex": table["sex"].to_numpy(dtype=str),
        "skin_tone_class": table["tone"].to_numpy(dtype=str),
        "site": masked(site, site == ""),
    }
    scores = {c: table[c].to_numpy() for c in MONET}
    write_csv(path, {**columns, **scores})


def _write_labels(root: Path, lesions: pd.DataFrame, table: pd.DataFrame) -> None:
    """Write the ground truth, a row a lesion, and the supplement, a row an image by its id."""
    cells = one_hot_cells(lesions["class"].to_numpy(dtype=str), CLASSES)
    truth = {"lesion_id": lesions["lesion_id"].to_numpy(dtype=str), **cells}
    write_csv(root / "MILK10k_Training_GroundTruth.csv", truth)
    by_id = table.sort_values("isic_id")
    confirm = np.where(
        by_id["confirmed"], "histopathology", "single contributor clinical assessment"
    )
    thickness = by_id["thickness"].to_numpy(dtype=str)
    columns = {
        "isic_id": by_id["isic_id"].to_numpy(dtype=str),
        "diagnosis_full": by_id["diagnosis"].to_numpy(dtype=str),
        "diagnosis_confirm_type": confirm,
        "invasion_thickness_interval": masked(thickness, thickness == ""),
    }
    write_csv(root / "MILK10k_Training_Supplement.csv", columns)


def _write_sample(root: Path, lesions: pd.DataFrame, table: pd.DataFrame) -> None:
    """Write the sample submission: one lesion a row, zeros."""
    nothing = np.full(len(lesions), "")
    cells = one_hot_cells(nothing, CLASSES)
    ids = lesions["lesion_id"].to_numpy(dtype=str)
    write_csv(root / "sample_submission.csv", {"lesion_id": ids, **cells})
