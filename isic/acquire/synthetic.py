"""A generated ISIC 2024 archive in Kaggle's own layout, for demos, tests and benchmarks.

Writes train-metadata.csv (55 columns), test-metadata.csv (44), sample_submission.csv and, unless
told otherwise, train-image.hdf5 and test-image.hdf5 with one scalar `|S<n>` JPEG per id.
Row unit: image. The same arguments and library versions give the same bytes.
Trap: `synthetic.json` marks the folder as generated; without it a folder that holds tables is
taken for a real archive and left alone.
"""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from isic.acquire.diagnoses import diagnosis_columns
from isic.acquire.lesion_table import HOSPITALS, metadata_columns
from isic.acquire.lesions import Lesions, sample_lesions
from isic.acquire.tiles import SIDES, draw_sides, jpeg_tiles, make_bank
from isic.errors import ConfigError, DataError
from isic.images.progress import Progress
from isic.index.isic2024 import INFO
from isic.index.isic2024_columns import TEST_COLUMNS, TRAIN_COLUMNS

log = logging.getLogger(__name__)

MARK = "synthetic.json"
FILLER = 0.3  # what the official sample submission predicts for every row


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

    n_test: Default a tenth of n_images, at least 3.
    size_range: Tile side in px, or its lowest and highest value.
    n_patients: Default 1,042 at full size, falling with the square root of n_images.
    positives: Default the archive's 0.098 %, but 100 (at most 5 %) in a small archive.
    images: False writes the tables only.
    """
    root = Path(root)
    arguments = {
        "archive": INFO.name,
        "n_images": n_images,
        "n_test": max(3, n_images // 10) if n_test is None else n_test,
        "seed": seed,
        "size_range": size_range if isinstance(size_range, int) else list(size_range),
        "n_patients": n_patients or default_patients(n_images),
        "positives": default_positives(n_images) if positives is None else positives,
        "images": images,
    }
    _check_arguments(arguments)
    if _done_already(root, arguments):
        log.info("%s holds this generated archive already", root)
        return root
    _mark(root, arguments, complete=False)
    for split in ("train", "test"):
        _write_split(root, split, arguments)
    _mark(root, arguments, complete=True)
    log.info("%d train and %d test rows in %s", n_images, arguments["n_test"], root)
    return root


def default_patients(n_images: int) -> int:
    """Scale the archive's 1,042 patients by the square root, so that small ones can be split."""
    published = INFO.published_counts
    scale = math.sqrt(n_images / published["train"])
    return max(1, min(n_images, round(published["patients"] * scale)))


def default_positives(n_images: int) -> int:
    """Keep the published rate, or enough to learn from: 100, at most every twentieth row."""
    published = INFO.published_counts
    rate = published["malignant"] / published["train"]
    return max(round(n_images * rate), min(100, n_images // 20), min(4, n_images // 2))


def _check_arguments(arguments: dict[str, Any]) -> None:
    """Refuse sizes that cannot be met before anything is written."""
    n, patients, positives = (arguments[k] for k in ("n_images", "n_patients", "positives"))
    if n < 2 or not 1 <= patients <= n or not 0 <= positives < n or arguments["n_test"] < 0:
        raise ConfigError(
            f"a generated archive needs n_images >= 2, n_test >= 0, 1..n_images patients and "
            f"0..n_images-1 positives, got n_images={n}, n_test={arguments['n_test']}, "
            f"n_patients={patients}, positives={positives}"
        )


def _done_already(root: Path, arguments: dict[str, Any]) -> bool:
    """Whether the same archive lies there; refuses a folder that was not generated."""
    if (root / MARK).is_file():
        return bool(json.loads((root / MARK).read_text()) == {**arguments, "complete": True})
    taken = sorted(p.name for p in root.glob("*") if p.suffix in {".csv", ".hdf5"})
    if taken:
        raise DataError(
            f"{root.absolute()} must be empty or generated before (it would hold {MARK}), got "
            f"{', '.join(taken[:5])}; choose another data.root"
        )
    return False


def _mark(root: Path, arguments: dict[str, Any], *, complete: bool) -> None:
    """Say what lies here; marked before the first file, so that a broken-off run can go again."""
    root.mkdir(parents=True, exist_ok=True)
    (root / MARK).write_text(json.dumps({**arguments, "complete": complete}, indent=1) + "\n")


def _write_split(root: Path, split: str, arguments: dict[str, Any]) -> None:
    """Write the tables and images of `train` or `test`; each has seeds and patients of its own."""
    train = split == "train"
    n = arguments["n_images"] if train else arguments["n_test"]
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
    _write_csv(root / f"{split}-metadata.csv", {c: columns[c] for c in order})
    if not train:
        filler = pa.repeat(pa.scalar(FILLER), n)
        _write_csv(root / "sample_submission.csv", {"isic_id": ids, "target": filler})
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


# Arrow quotes every text cell or none; the official file quotes those that hold a comma. Control
# characters stand in for comma and quote until the text is written.
_STAND_INS = bytes.maketrans(b"\x1e\x1f", b',"')


def _quoted(values: Any) -> Any:
    """Mark the cells that need quotes, with stand-ins for quote and comma."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    if not pa.types.is_string(array.type):
        return array
    escaped = pc.replace_substring(array, ",", "\x1e")
    ends = pc.if_else(pc.match_substring(array, ","), "\x1f", "")
    return pc.binary_join_element_wise(ends, escaped, ends, "")


def _write_csv(path: Path, columns: dict[str, Any]) -> None:
    """Write in batches: 401,059 rows of text at once would take half a gigabyte."""
    from pyarrow import csv

    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write((",".join(columns) + "\n").encode())
        plain = pa.table({name: _quoted(values) for name, values in columns.items()})
        options = csv.WriteOptions(include_header=False, quoting_style="none")
        for batch in plain.to_batches(max_chunksize=50_000):
            text = pa.BufferOutputStream()
            csv.write_csv(batch, text, options)
            file.write(text.getvalue().to_pybytes().translate(_STAND_INS))
    os.replace(part, path)


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
    with h5py.File(part, "w") as file, Progress(f"writing {path.name}", total=len(ids)) as bar:
        for name, data in zip(ids.tolist(), tiles, strict=True):
            file.create_dataset(name, data=np.bytes_(data))
            bar.advance(1)
    os.replace(part, path)
