"""The check of an archive of ISIC 2024's size: seconds, against a plain loop and against a limit.

`plain loop` is what people write: one process, h5py's `file[id][()]`, Pillow, `load()`; timed on
`SAMPLE` ids in the middle of the file, as deep in its index as the rest, and compared by images a
second. The table is a generated one of 401,059 rows and 55 columns; the images are those that the
loader is measured on. Ours uses every core.
"""

import dataclasses
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import h5py
from PIL import Image

from benchmarks.tiles import HDF5, KEYS, archive, bench_root
from isic.acquire.synthetic.isic2024 import write_isic2024
from isic.audit.leaks import check_ids
from isic.audit.shortcuts import check_shortcuts
from isic.audit.tables import check_table
from isic.index.integrity import OK, read_images, read_with_prints
from isic.index.isic2024 import build_index
from isic.index.schema import Index

SAMPLE = 5_000
# Seconds for 401,059 rows on two cores; prints are what copies are found by.
IMAGES_WITHIN, PRINTS_WITHIN, TABLE_WITHIN = 60.0, 90.0, 5.0
TIMES_LOOP = 3.0


def indexed(keys: int) -> Index:
    """A generated table whose rows refer to the images of the loader's archive."""
    tables = bench_root() / f"tables{keys}"
    write_isic2024(tables, n_images=keys, n_test=3, images=False)
    index = build_index(tables)
    root, ids = archive(keys)
    table = index.table[index.table["split"] == "train"].assign(image=[f"{HDF5}#{i}" for i in ids])
    return dataclasses.replace(index, table=table, root=root)


def plain_loop(path: Path, ids: list[str]) -> int:
    """Decode each image and look at its size; the number of those that decode."""
    whole = 0
    with h5py.File(path, "r") as file:
        for image_id in ids:
            with Image.open(io.BytesIO(file[image_id][()])) as image:
                image.load()
                whole += image.width > 0
    return whole


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of a call, and what it gives."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def bar(name: str, ours: float, baseline: float, ratio: float, target: float) -> dict[str, Any]:
    """One line of the results."""
    return {
        "name": f"check: {name}",
        "ours": round(ours, 2),
        "baseline": round(baseline, 2),
        "ratio": round(ratio, 3),
        "target": target,
        "ok": ratio >= target,
    }


def run(*, keys: int = KEYS) -> list[dict[str, Any]]:
    """Measure every bar; each has name, ours, baseline, ratio, target and ok."""
    index = indexed(keys)
    ids = archive(keys)[1][keys // 2 : keys // 2 + SAMPLE]
    # Once to warm up, as the page cache is for ours after the loop.
    loop = min(seconds(lambda: plain_loop(index.root / HDF5, ids))[0] for _ in range(2))
    loop_rate = len(ids) / loop
    taken, files = seconds(lambda: read_images(index, progress=False))
    assert (files["status"] == OK).all()
    printed, _ = seconds(lambda: read_with_prints(index, progress=False))
    table, _ = seconds(lambda: (check_table(index), check_ids(index)))
    guesses, _ = seconds(lambda: check_shortcuts(index, files))
    share, rate = keys / KEYS, keys / taken
    within = {
        "images decoded": (taken, IMAGES_WITHIN * share),
        "images decoded and fingerprinted": (printed, PRINTS_WITHIN * share),
        "x 55: counts and ids": (table, TABLE_WITHIN),
        "x 55: shortcuts": (guesses, TABLE_WITHIN),
    }
    return [
        bar("images vs plain loop, img/s", rate, loop_rate, rate / loop_rate, TIMES_LOOP),
        *(
            bar(f"{keys:,} {name}, s", ours, limit, limit / ours, 1)
            for name, (ours, limit) in within.items()
        ),
    ]


if __name__ == "__main__":
    from benchmarks.run import line

    for found in run():
        print(line(found))
