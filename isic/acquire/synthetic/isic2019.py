"""A generated ISIC 2019 archive in the organisers' layout: two tables and a folder a split.

Form of names and cells: the official ground truth and metadata; the facts are in
`isic.acquire.synthetic.isic2019_sources`. Row unit: image; 65 % of the published train images
share their lesion with another.
Trap: as in the original, the source of an image goes with its class and its frame, and a name may
end in `_downsampled`; UNK has no train image, and the test table has no lesions.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.acquire.synthetic.csv_text import masked, one_hot_cells, write_csv
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
from isic.acquire.synthetic.isic2019_sources import (
    AGES,
    ALL,
    CLASSES,
    SITE_SHARES,
    SITES,
    SOURCES,
    TEST,
    TRAIN_IMAGES,
    Source,
)
from isic.acquire.synthetic.looks import draw_lesions, draw_skins
from isic.acquire.synthetic.portraits import DERMATOSCOPE, frame_sizes, jpegs, photograph
from isic.acquire.synthetic.tiles import make_bank

SMALLEST = 4  # images of a class in a small archive: two lesions, for two folds
NAMES = (
    *("ISIC_2019_Training_Input", "ISIC_2019_Test_Input"),
    *("ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv"),
    *("ISIC_2019_Test_GroundTruth.csv", "ISIC_2019_Test_Metadata.csv"),
)


def write_isic2019(
    root: Path,
    *,
    n_images: int,
    n_test: int | None = None,
    seed: int = 0,
    size_range: Size = None,
    images: bool = True,
) -> Path:
    """Write the archive below `root` and return it; done already with these arguments: no work.

    n_test: Default a tenth of n_images, at least 3; 0: no test files.
    size_range: Side of square pictures in px, or its lowest and highest value; None: each source's
        own frame, 600x450 to 1024x1024.
    images: False writes the tables only.
    """
    arguments = {
        "archive": "isic2019",
        "n_images": n_images,
        "n_test": default_test(n_images, n_test),
        "seed": seed,
        "size_range": plain_size(size_range),
        "images": images,
    }
    return generate(Path(root), arguments, names=NAMES, write=_write)


def _write(root: Path, arguments: dict[str, Any]) -> None:
    builds = {"train": ("Training", _train_table), "test": ("Test", _test_table)}
    tables = []
    for split, n in splits(arguments):
        name, build = builds[split]
        rng = np.random.default_rng(seeds_of(arguments, split, 2)[0])
        tables.append(build(rng, n).assign(split=name))
    both = pd.concat(tables, ignore_index=True)
    both["image"] = _names(own_rng(arguments), both)
    for split, _ in splits(arguments):
        name = builds[split][0]
        table = both[both["split"] == name].sort_values("image", ignore_index=True)
        _write_tables(root, name, table)
        if arguments["images"]:
            _write_images(root, name, table, arguments, seeds_of(arguments, split, 2)[1])


def _train_table(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """One row an image: class, source, lesion and what the metadata say of it."""
    published = {name: sum(source.classes[name] for source in SOURCES.values()) for name in CLASSES}
    parts = []
    for name, count in class_counts(n, published, floor=SMALLEST).items():
        of = {key: source.classes[name] for key, source in SOURCES.items()}
        for key, images in class_counts(count, of).items():
            # Two lesions of a class at least, so that two folds can hold it.
            most = max(1, count // 2)
            sizes = _lesion_sizes(rng, SOURCES[key].lesions, images, at_most=most)
            parts.append(pd.DataFrame({"class": name, "source": key, "images": sizes}))
    lesions = _described(rng, pd.concat(parts, ignore_index=True), SOURCES)
    lesions["lesion_id"] = ""
    for key, source in SOURCES.items():
        rows = np.flatnonzero(lesions["source"] == key)
        number = source.lesion + rng.permutation(len(rows))
        if source.lesions:
            lesions.loc[rows, "lesion_id"] = np.char.mod(f"{key}_%07d", number)
    return lesions.loc[lesions.index.repeat(lesions["images"])].reset_index(drop=True)


def _lesion_sizes(
    rng: np.random.Generator, published: dict[int, int], n: int, *, at_most: int
) -> NDArray[np.int64]:
    """Cut n images into lesions of sizes drawn as published; without lesion ids: one each."""
    if not published or n == 0:
        return np.ones(n, dtype=np.int64)
    sizes = rng.choice(
        list(published), n, p=np.array(list(published.values())) / sum(published.values())
    )
    ends = np.minimum(np.cumsum(np.minimum(sizes, at_most)), n)
    kept = np.diff(ends, prepend=0)
    return np.asarray(kept[kept > 0])


def _test_table(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """One row an image, each a lesion of its own: who shares one was never published."""
    table = pd.DataFrame({"class": spread(class_counts(n, TEST.classes, floor=1))})
    table = table.assign(source="test", images=1, lesion_id="")
    table = _described(rng, table, {"test": TEST})
    return table.replace({"site": "lateral torso"}, "posterior torso")  # the test has none


def _described(
    rng: np.random.Generator, lesions: pd.DataFrame, sources: Mapping[str, Source]
) -> pd.DataFrame:
    """Add age, sex, site and `gap`, what of them is missing: one row a lesion."""
    n = len(lesions)
    age = lesions["class"].map(AGES).to_numpy(dtype=float) + 15 * rng.normal(size=n)
    lesions["age"] = np.clip(5 * np.round(age / 5), 0, 85).astype(np.int64)
    lesions["sex"] = np.where(rng.random(n) < 13_286 / 24_947, "male", "female")
    lesions["site"], lesions["gap"] = "", ""
    for name, rows in lesions.groupby("class").groups.items():
        shares = dict(zip(SITES, SITE_SHARES[str(name)], strict=True))
        lesions.loc[rows, "site"] = weighted(rng, shares, len(rows))
    for name, rows in lesions.groupby("source").groups.items():
        gaps = sources[str(name)].gaps
        whole = sum(sources[str(name)].classes.values()) - sum(gaps.values())
        gap = spread(class_counts(len(rows), {"": whole, **gaps}))
        lesions.loc[rows, "gap"] = rng.permutation(gap)
    return lesions


def _names(rng: np.random.Generator, table: pd.DataFrame) -> NDArray[np.object_]:
    """Image names within the range of their source; train and test share no number."""
    names = np.empty(len(table), dtype=object)
    # A larger archive than the original needs wider ranges.
    n_test = int((table["split"] == "Test").sum())
    wider = max(1, math.ceil(max(len(table) - n_test, 3 * n_test) / TRAIN_IMAGES))
    of = table["source"].map(lambda s: ALL[s].numbers)
    for low, high in sorted(set(of)):
        rows = np.flatnonzero(of == (low, high))
        drawn = numbers(rng, low * wider, high * wider, len(rows))
        names[rows] = np.char.mod("ISIC_%07d", drawn).astype(object)
    share = table["source"].map(lambda s: ALL[s].downsampled).to_numpy()
    smaller = rng.random(len(table)) < share
    names[smaller] += "_downsampled"
    return names


def _write_tables(root: Path, split: str, table: pd.DataFrame) -> None:
    """Write ground truth and metadata, rows in the order of the names, CRLF as the originals."""
    train, image = split == "Training", table["image"].to_numpy(dtype=str)
    code = table["class"].to_numpy(dtype=str)
    cells = one_hot_cells(code, CLASSES, integers=not train)
    path = root / f"ISIC_2019_{split}_GroundTruth.csv"
    write_csv(path, {"image": image, **cells}, newline="\r\n")
    gone = {c: table["gap"].str.contains(c).to_numpy() for c in ("age", "sex", "site")}
    columns = {
        "image": image,
        "age_approx": masked(table["age"].to_numpy(), gone["age"]),
        "anatom_site_general": masked(table["site"].to_numpy(), gone["site"]),
    }
    if train:
        lesion = table["lesion_id"].to_numpy(dtype=str)
        columns["lesion_id"] = masked(lesion, lesion == "")
    columns["sex"] = masked(table["sex"].to_numpy(), gone["sex"])
    write_csv(root / f"ISIC_2019_{split}_Metadata.csv", columns, newline="\r\n")


def _write_images(
    root: Path, split: str, table: pd.DataFrame, arguments: dict[str, Any], seed: int
) -> None:
    """Write a JPEG an image; images of a lesion show the same lesion again."""
    rng = np.random.default_rng(seed)
    single = table["lesion_id"].where(table["lesion_id"] != "", table["image"])
    lesion, first = np.unique(single.to_numpy(dtype=str), return_index=True)
    looks = table["class"].to_numpy(dtype=str)[first]
    lesions = draw_lesions(rng, looks, draw_skins(rng, len(lesion)))
    native = np.array([ALL[s].frame for s in table["source"]]).reshape(-1, 2)
    sizes = frame_sizes(rng, native, arguments["size_range"])
    frame = photograph(rng, lesions.iloc[np.searchsorted(lesion, single)], sizes, DERMATOSCOPE)
    names = [f"ISIC_2019_{split}_Input/{name}.jpg" for name in table["image"]]
    write_images(root, names, jpegs(frame, make_bank(arguments["seed"])))
