"""A generated ISIC 2024 archive in Kaggle's own layout, for demos, tests and benchmarks.

Writes train-metadata.csv (55 columns), test-metadata.csv (44), sample_submission.csv and, unless
told otherwise, train-image.hdf5 and test-image.hdf5 with one scalar `|S<n>` JPEG per id.
Row unit: image. The same arguments and library versions give the same bytes.
Trap: rates of a small archive are not the published ones, or nothing could be learned from it.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from isic.acquire.synthetic.csv_text import write_csv
from isic.acquire.synthetic.diagnoses import diagnosis_columns
from isic.acquire.synthetic.generated import default_test, generate, plain_size, splits
from isic.acquire.synthetic.lesion_table import HOSPITALS, metadata_columns
from isic.acquire.synthetic.lesions import Lesions, sample_lesions
from isic.acquire.synthetic.tiles import SIDES, draw_sides, jpeg_tiles, make_bank
from isic.errors import ConfigError
from isic.images.progress import Progress
from isic.index.isic2024 import INFO
from isic.index.isic2024_columns import TEST_COLUMNS, TRAIN_COLUMNS

FILLER = 0.3  # what the official sample submission predicts for every row
NAMES = (
    *("train-metadata.csv", "test-metadata.csv", "sample_submission.csv"),
    *("train-image.hdf5", "test-image.hdf5"),
)


def write_isic2024(
    root: Path,
    *,
    n_images: int,
    n_test: int | None = None,
    seed: int = 0,
    size_range: int | tuple[int, int] = SIDES,
    n_patients: int | None = None,
    positives: int | None = None,
    images: bool = True,
) -> Path:
    """Write the archive below `root` and return it; done already with these arguments: no work.

    n_test: Default a tenth of n_images, at least 3; 0: no test files.
    size_range: Tile side in px, or its lowest and highest value.
    n_patients: Default 1,042 at full size, falling with the square root of n_images.
    positives: Default the archive's 0.098 %, but 100 (at most 5 %) in a small archive.
    images: False writes the tables only.
    """
    arguments = {
        "archive": INFO.name,
        "n_images": n_images,
        "n_test": default_test(n_images, n_test),
        "seed": seed,
        "size_range": plain_size(size_range),
        "n_patients": n_patients or default_patients(n_images),
        "positives": default_positives(n_images) if positives is None else positives,
        "images": images,
    }
    _check_arguments(arguments)
    return generate(Path(root), arguments, names=NAMES, write=_write)


def default_patients(n_images: int) -> int:
    """Scale the archive's 1,042 patients by the square root, so that small ones can be split."""
    published = INFO.published_counts
    scale = math.sqrt(n_images / published["train"])
    return max(1, min(n_images, round(published["patients"] * scale)))


def default_positives(n_images: int) -> int:
    """Keep the published rate, or enough to learn from: 100, at most every twentieth row.

    The smallest archives get 12, at most every fourth row: five folds need positives each.
    """
    published = INFO.published_counts
    rate = published["malignant"] / published["train"]
    return max(round(n_images * rate), min(100, n_images // 20), min(12, n_images // 4))


def _check_arguments(arguments: dict[str, Any]) -> None:
    """Refuse sizes that cannot be met before anything is written."""
    n, patients, positives = (arguments[k] for k in ("n_images", "n_patients", "positives"))
    if n < 2 or not 1 <= patients <= n or not 0 <= positives < n or arguments["n_test"] < 0:
        raise ConfigError(
            f"a generated archive needs n_images >= 2, n_test >= 0, 1..n_images patients and "
            f"0..n_images-1 positives, got n_images={n}, n_test={arguments['n_test']}, "
            f"n_patients={patients}, positives={positives}"
        )


def _write(root: Path, arguments: dict[str, Any]) -> None:
    for split, n in splits(arguments):
        _write_split(root, split, n, arguments)


def _write_split(root: Path, split: str, n: int, arguments: dict[str, Any]) -> None:
    """Write the tables and images of `train` or `test`; each has seeds and patients of its own."""
    train = split == "train"
    share = n / arguments["n_images"]
    seeds = np.random.SeedSequence([arguments["seed"], int(train)]).generate_state(6).tolist()
    patients = arguments["n_patients"] if train else round(arguments["n_patients"] * share)
    lesions = sample_lesions(
        seeds[0],
        n_lesions=n,
        n_patients=min(n, max(1, patients)),
        n_positives=arguments["positives"] if train else round(arguments["positives"] * share),
        hospitals=len(HOSPITALS) + (not train),
    )
    ids, patient_ids = _ids(arguments, split, len(lesions.patients))
    columns = metadata_columns(lesions, ids=ids, patient_ids=patient_ids, seed=seeds[1])
    if train:
        target = lesions.frame["target"].to_numpy()
        columns |= {"target": target, **diagnosis_columns(target, seed=seeds[2])}
    order = TRAIN_COLUMNS if train else TEST_COLUMNS
    write_csv(root / f"{split}-metadata.csv", {c: columns[c] for c in order})
    if not train:
        filler = pa.repeat(pa.scalar(FILLER), n)
        write_csv(root / "sample_submission.csv", {"isic_id": ids, "target": filler})
    if arguments["images"]:
        _write_images(root / f"{split}-image.hdf5", ids, lesions, arguments, seeds[3:])


def _ids(
    arguments: dict[str, Any], split: str, n_patients: int
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Ids that no other row or patient of the archive has; rows ascend by id as in the original."""
    rng = np.random.default_rng(arguments["seed"])
    n_train, n_test = arguments["n_images"], arguments["n_test"]
    images = rng.choice(10_000_000, n_train + n_test, replace=False)
    patients = 10_000 + rng.choice(9_990_000, arguments["n_patients"] + n_test, replace=False)
    if split == "train":
        images, patients = images[:n_train], patients[:n_patients]
    else:
        first = arguments["n_patients"]
        images, patients = images[n_train:], patients[first : first + n_patients]
    return np.char.mod("ISIC_%07d", np.sort(images)), np.char.mod("IP_%07d", patients)


def _write_images(
    path: Path, ids: NDArray[np.str_], lesions: Lesions, arguments: dict[str, Any], seeds: list[int]
) -> None:
    """Write one root-level scalar per id, a fixed-length byte string as in the original."""
    import h5py

    size = arguments["size_range"]
    size = size if isinstance(size, int) else (size[0], size[1])
    sides = draw_sides(seeds[0], len(ids), size_range=size)
    # One bank for train and test: textures are the camera's, not the split's.
    tiles = jpeg_tiles(lesions.frame, bank=make_bank(arguments["seed"]), seed=seeds[1], sides=sides)
    part = path.with_name(f".{path.name}.part")
    # nobody else knows this name: no lock is needed, and some file systems have none
    with (
        h5py.File(part, "w", locking=False) as file,
        Progress(f"writing {path.name}", total=len(ids)) as bar,
    ):
        for name, data in zip(ids.tolist(), tiles, strict=True):
            file.create_dataset(name, data=np.bytes_(data))
            bar.advance(1)
    os.replace(part, path)
