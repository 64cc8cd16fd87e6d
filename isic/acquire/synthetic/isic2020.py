"""A generated SIIM-ISIC 2020 archive in Kaggle's layout, with the extra tables of the ISIC site.

Writes train.csv, test.csv, sample_submission.csv, ISIC_2020_Training_GroundTruth_v2.csv (lesion_id)
and ISIC_2020_Training_Duplicates.csv; images as jpeg/{train,test}/*.jpg, {train,test}/*.dcm or
tfrecords/*.tfrec. Counts and vocabularies: the official tables (33,126 train and 10,982 test
images, 2,056 patients, 584 melanomas, 425 pairs of duplicates).
Row unit: image; a patient has 2 to 115.
Trap: the two images of a pair show one lesion, encoded twice; both are in train.csv.
"""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.acquire.synthetic.csv_text import decimal, masked, write_csv
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
)
from isic.acquire.synthetic.isic2020_images import write_form
from isic.acquire.synthetic.lesion_table import some_patients
from isic.acquire.synthetic.lesions import draw_targets
from isic.acquire.synthetic.looks import draw_lesions, draw_skins
from isic.acquire.synthetic.portraits import DERMATOSCOPE, frame_sizes, photograph
from isic.errors import ConfigError

TRAIN, PATIENTS, POSITIVES, PAIRS = 33_126, 2_056, 584, 425
FORMS = ("jpeg", "dicom", "tfrecord")
# Rows of each diagnosis that is benign, and the look of its class in ISIC 2019.
BENIGN = {
    "unknown": (27_124, "UNK"),
    "nevus": (5_193, "NV"),
    "seborrheic keratosis": (135, "BKL"),
    "lentigo NOS": (44, "BKL"),
    "lichenoid keratosis": (37, "BKL"),
    "solar lentigo": (7, "BKL"),
    "cafe-au-lait macule": (1, "UNK"),
    "atypical melanocytic proliferation": (1, "UNK"),
}
# Percent at each site: of benign rows, of melanomas.
SITES = {
    "torso": (51.0, 44.0),
    "lower extremity": (25.5, 21.2),
    "upper extremity": (15.0, 19.0),
    "head/neck": (5.5, 12.7),
    "palms/soles": (1.1, 0.9),
    "oral/genital": (0.4, 0.7),
    "": (1.6, 1.5),
}
# The commonest of the original's frames, shrunk tenfold: 6000x4000, 1872x1053, 640x480 ...
FRAMES = {"600x400": 18_100, "624x351": 7_500, "640x480": 7_500}
NAMES = (
    *("train.csv", "test.csv", "sample_submission.csv"),
    *("ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_Duplicates.csv"),
    *("jpeg", "train", "test", "tfrecords"),
)


def write_isic2020(
    root: Path,
    *,
    n_images: int,
    n_test: int | None = None,
    seed: int = 0,
    size_range: Size = None,
    n_patients: int | None = None,
    positives: int | None = None,
    form: Literal["jpeg", "dicom", "tfrecord"] = "jpeg",
    images: bool = True,
) -> Path:
    """Write the archive below `root` and return it; done already with these arguments: no work.

    n_test: Default a tenth of n_images, at least 3; 0: no test files.
    size_range: Side of square pictures in px, or its lowest and highest value; None: frames of 3:2,
        16:9 and 4:3 (squares of 256 px in TFRecords).
    n_patients: Default 2,056 at full size, falling with the square root of n_images.
    positives: Default the archive's 1.8 %, but 100 (at most 5 %) in a small archive.
    form: What the images are stored as.
    images: False writes the tables only.
    """
    arguments = {
        "archive": "isic2020",
        "n_images": n_images,
        "n_test": default_test(n_images, n_test),
        "seed": seed,
        "size_range": plain_size(size_range),
        "n_patients": default_patients(n_images) if n_patients is None else n_patients,
        "positives": default_positives(n_images) if positives is None else positives,
        "form": form,
        "images": images,
    }
    _check_arguments(arguments)
    return generate(Path(root), arguments, names=NAMES, write=_write)


def default_patients(n_images: int) -> int:
    """Scale the archive's 2,056 patients by the square root; two images each at least."""
    return max(1, min(n_images // 2, round(PATIENTS * math.sqrt(n_images / TRAIN))))


def default_positives(n_images: int) -> int:
    """Keep the published rate, or enough to learn from: 100, at most every twentieth row."""
    rate = POSITIVES / TRAIN
    return max(round(n_images * rate), min(100, n_images // 20), min(4, n_images // 2))


def _check_arguments(arguments: dict[str, Any]) -> None:
    n, patients, positives = (arguments[k] for k in ("n_images", "n_patients", "positives"))
    if n < 2 or not 1 <= patients <= n or not 0 <= positives < n:
        raise ConfigError(
            f"a generated archive needs n_images >= 2, 1..n_images patients and 0..n_images-1 "
            f"positives, got n_images={n}, n_patients={patients}, positives={positives}"
        )
    if arguments["form"] not in FORMS:
        raise ConfigError(f"form: expected {', '.join(FORMS)}, got {arguments['form']}")


def _write(root: Path, arguments: dict[str, Any]) -> None:
    rng = own_rng(arguments)
    total = arguments["n_images"] + arguments["n_test"]
    # Odd numbers above those of 2019: archives that are merged share no image and no lesion.
    names = np.char.mod("ISIC_%07d", numbers(rng, 80_001, 10_000_000, total, step=2))
    people = np.char.mod("IP_%07d", numbers(rng, 10_000, 10_000_000, total))
    lesions = np.char.mod("IL_%07d", numbers(rng, 1, 10_000_000, total, step=2))
    for split, n in splits(arguments):
        first = 0 if split == "train" else arguments["n_images"]
        seeds = seeds_of(arguments, split, 2)
        table = _rows(np.random.default_rng(seeds[0]), arguments, split, n)
        table["image_name"] = names[first : first + n]
        table["patient_id"] = people[first + table["patient"].to_numpy()]
        table["lesion_id"] = lesions[first + table["lesion"].to_numpy()]
        table = table.sort_values("image_name", ignore_index=True)
        (_write_train if split == "train" else _write_test)(root, table)
        if arguments["images"]:
            frame = _pictures(np.random.default_rng(seeds[1]), table, arguments)
            write_form(root, split, table, frame, arguments)


def _rows(rng: np.random.Generator, arguments: dict[str, Any], split: str, n: int) -> pd.DataFrame:
    """One row an image: first a row a lesion, then those that are encoded twice again."""
    train, share = split == "train", n / arguments["n_images"]
    patients = arguments["n_patients"] if train else round(arguments["n_patients"] * share)
    patients = min(n, max(1, patients))
    positives = arguments["positives"] if train else round(arguments["positives"] * share)
    pairs = max(round(n * PAIRS / TRAIN), 2 if n >= 20 else 0) if train else 0
    pairs = min(pairs, n - patients, (n - positives) // 2)
    ill_pairs = min(round(pairs * 3 / PAIRS), positives // 2)  # three of the 425 are melanomas
    lesions = _lesions(rng, n - pairs, patients, positives - ill_pairs, floor=2 * (n < TRAIN))
    lesions["copy"] = False
    ill = rng.permutation(np.flatnonzero(lesions["target"] == 1))[:ill_pairs]
    well = rng.permutation(np.flatnonzero(lesions["target"] == 0))[: pairs - ill_pairs]
    copies = lesions.iloc[[*ill, *well]].assign(copy=True)
    both = pd.concat([lesions, copies], ignore_index=True)
    return both.iloc[rng.permutation(len(both))].reset_index(drop=True)


def _lesions(
    rng: np.random.Generator, n: int, n_patients: int, positives: int, *, floor: int
) -> pd.DataFrame:
    """One row a lesion: patient, target, diagnosis, age, sex, site.

    floor: Rows that a rare diagnosis has at least.
    """
    age = np.clip(5 * np.round(rng.normal(49.0, 14.0, n_patients) / 5), 10, 90)
    male = rng.random(n_patients) < 17_080 / 33_061
    weight = np.minimum(rng.lognormal(0.0, 0.8, n_patients), 8.0)  # median 12, mean 16 images
    # Everyone has two images at least, as published, where there are enough.
    own = np.repeat(np.arange(n_patients), 2 if n >= 2 * n_patients else 1)
    spare = rng.choice(n_patients, n - len(own), p=weight / weight.sum())
    patient = rng.permutation(np.concatenate([own, spare]))
    target = draw_targets(rng, patient, pd.DataFrame({"age": age}), positives)
    table = pd.DataFrame({"lesion": np.arange(n), "patient": patient, "target": target})
    _diagnose(rng, table, floor=floor)
    # Half of the patients were photographed over several years.
    later = 5 * ((rng.random(n_patients) < 0.5)[patient] & (rng.random(n) < 0.4))
    table["age"] = np.minimum(age[patient] + later, 90).astype(np.int64)
    table["sex"] = np.where(male[patient], "male", "female")
    table["nameless"] = some_patients(rng, patient, share=65 / TRAIN)  # no age, no sex
    return table


def _diagnose(rng: np.random.Generator, table: pd.DataFrame, *, floor: int) -> None:
    """Add diagnosis and site; rare diagnoses go to different patients, so that folds share them."""
    n, target = len(table), table["target"].to_numpy()
    shuffled = table.iloc[rng.permutation(n)]
    turn = shuffled.groupby("patient").cumcount()  # first lesions of all patients, then second ...
    well = turn[target[turn.index] == 0].sort_values(kind="stable").index
    counts = class_counts(len(well), {k: v for k, (v, _) in BENIGN.items()}, floor=floor)
    table["diagnosis"], table["site"] = "melanoma", ""
    table.loc[well, "diagnosis"] = spread(dict(sorted(counts.items(), key=lambda item: item[1])))
    for k in (0, 1):
        shares = {site: share[k] for site, share in SITES.items()}
        table.loc[target == k, "site"] = weighted(rng, shares, int((target == k).sum()))


def _write_train(root: Path, table: pd.DataFrame) -> None:
    """Write the three train tables; ages are `45.0` in Kaggle's and `45` in the ISIC site's."""
    columns = _columns(table, missing=table["nameless"].to_numpy())
    label = {
        "diagnosis": table["diagnosis"].to_numpy(dtype=str),
        "benign_malignant": np.where(table["target"] == 1, "malignant", "benign"),
        "target": table["target"].to_numpy(),
    }
    write_csv(root / "train.csv", {**columns, **label})
    columns["age_approx"] = masked(table["age"].to_numpy(), table["nameless"].to_numpy())
    first = {c: columns.pop(c) for c in ("image_name", "patient_id")}
    path = root / "ISIC_2020_Training_GroundTruth_v2.csv"
    lesion = {"lesion_id": table["lesion_id"].to_numpy(dtype=str)}
    second = {**first, **lesion, **columns, **label}
    write_csv(path, second, newline="\r\n", last_newline=False)
    twice = table[table["lesion"].duplicated(keep=False)].groupby("lesion")["image_name"]
    pairs = pd.DataFrame({"image_name_1": twice.min(), "image_name_2": twice.max()})
    pairs = pairs.sort_values("image_name_1")
    text = {str(c): pairs[c].to_numpy(dtype=str) for c in pairs}
    path = root / "ISIC_2020_Training_Duplicates.csv"
    write_csv(path, text, newline="\r\n", last_newline=False)


def _write_test(root: Path, table: pd.DataFrame) -> None:
    """Write the test table, where only sites are missing, and the sample submission."""
    columns = _columns(table, missing=np.zeros(len(table), dtype=bool))
    write_csv(root / "test.csv", columns)
    zeros = np.zeros(len(table), dtype=np.int64)
    sample = {"image_name": columns["image_name"], "target": zeros}
    write_csv(root / "sample_submission.csv", sample)


def _columns(table: pd.DataFrame, *, missing: NDArray[np.bool_]) -> dict[str, Any]:
    """The five columns of the test table; missing: rows without age and sex."""
    site = table["site"].to_numpy(dtype=str)
    return {
        "image_name": table["image_name"].to_numpy(dtype=str),
        "patient_id": table["patient_id"].to_numpy(dtype=str),
        "sex": masked(table["sex"].to_numpy(), missing),
        "age_approx": masked(decimal(table["age"].to_numpy()), missing),
        "anatom_site_general_challenge": masked(site, site == ""),
    }


def _pictures(
    rng: np.random.Generator, table: pd.DataFrame, arguments: dict[str, Any]
) -> pd.DataFrame:
    """What each image shows; a copy differs from its original by a breath of light alone."""
    skins = draw_skins(rng, int(table["patient"].max()) + 1)
    single = table.drop_duplicates("lesion").sort_values("lesion")
    looks = single["diagnosis"].map({"melanoma": "MEL", **{k: v for k, (_, v) in BENIGN.items()}})
    lesions = draw_lesions(rng, looks.to_numpy(dtype=str), skins.iloc[single["patient"]])
    frames = [name.split("x") for name in weighted(rng, FRAMES, len(lesions))]
    native = np.array(frames, dtype=np.int64).reshape(-1, 2)
    squares = arguments["size_range"] or (256 if arguments["form"] == "tfrecord" else None)
    frame = photograph(rng, lesions, frame_sizes(rng, native, squares), DERMATOSCOPE)
    frame = frame.iloc[np.searchsorted(single["lesion"], table["lesion"])].reset_index(drop=True)
    copy = table["copy"].to_numpy()
    frame.loc[copy, ["light_R", "light_G", "light_B"]] *= 1.01
    frame.loc[copy, "quality"] = 75
    return frame
