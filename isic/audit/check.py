"""One check of one archive: the table, the ids, every image, pairs that show the same, shortcuts.

Unit: row = image; 401,059 tiles take about a minute on two cores, each part says its seconds.
Trap: nothing is stopped by the first fault. What one part finds another may explain.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from isic.audit.duplicates import check_duplicates
from isic.audit.features import audited_features
from isic.audit.findings import ODD, WRONG, Finding, Part
from isic.audit.images import check_images
from isic.audit.leaks import check_ids, check_pairs
from isic.audit.lesions import check_lesions
from isic.audit.report import Report
from isic.audit.shortcuts import check_shortcuts
from isic.audit.tables import check_table
from isic.errors import DataError, IsicError
from isic.features.family import Family
from isic.images.fingerprint import has_fingerprints, keep_fingerprints
from isic.images.sources import Ref
from isic.index.integrity import OK, read_images, read_with_prints
from isic.index.schema import Index, archive_hash
from isic.split.overlap import Pair, overlap_pairs


def check_archive(
    index: Index,
    *,
    images: bool = True,
    overlap: bool = True,
    missing_images: str = "error",
    on_bad_image: str = "error",
    families: Mapping[str, Family] | None = None,
    cache_root: Path,
    progress: bool = True,
) -> Report:
    """Check an archive before training.

    images: False leaves the image files unopened.
    overlap: False looks for no pairs of images that show the same.
    missing_images, on_bad_image: The `data` keys; what training would tolerate is odd, not wrong.
    families: Whose features are searched for shortcuts beside the columns.
    """
    report = Report(index.info, index.root, archive_hash(index))
    files = prints = None
    with _timed(report, "table"):
        report.parts["table"] = check_table(index)
        report.parts["ids"] = check_ids(index)
        report.parts["lesions"] = check_lesions(index)
    if images:
        with _timed(report, "images"):
            new = overlap and not has_fingerprints(
                index.sources, _refs(index), cache_root=cache_root
            )
            files, prints = _files(report, index, progress=progress, prints=new)
    if files is not None:
        report.parts["images"] = check_images(
            index, files, missing_images=missing_images, on_bad_image=on_bad_image
        )
    pairs, read = None, None if files is None else files["status"] == OK
    if overlap and read is not None and read.any():
        with _timed(report, "copies"):
            pairs = _pairs(report, index, cache_root, prints)
            if pairs is not None:
                report.parts["copies"] = check_pairs(index, pairs, n_read=int(read.sum()))
    report.parts["duplicates"] = check_duplicates(
        index, pairs or (), read if pairs is not None else None
    )
    features = None
    if families and not index.untrained:
        with _timed(report, "features"):
            features, unmade = audited_features(index, families, cache_root=cache_root)
        report.parts["features"] = Part(unmade)
    with _timed(report, "shortcuts"):
        report.parts["shortcuts"] = check_shortcuts(index, files, features)
    return report


def _files(
    report: Report, index: Index, *, progress: bool, prints: bool
) -> tuple[pd.DataFrame | None, bytearray | None]:
    """The facts of the images; None, with the fault noted, where a store does not open.

    prints: Make fingerprints in the same pass.
    """
    try:
        if prints:
            return read_with_prints(index, progress=progress)
        return read_images(index, progress=progress), None
    except DataError as error:
        report.parts["images"] = Part([Finding(WRONG, "images", str(error))])
        return None, None


def _pairs(
    report: Report, index: Index, cache_root: Path, prints: bytearray | None
) -> list[Pair] | None:
    """Pairs that show the same; a cache that cannot be written to costs this part alone."""
    try:
        if prints is not None:
            keep_fingerprints(index.sources, _refs(index), prints, cache_root=cache_root)
        return overlap_pairs(index, cache_root=cache_root)
    except IsicError as error:
        text = f"not looked for: {error}"
        report.parts["copies"] = Part([Finding(ODD, "copies", text, "overlap=false goes without")])
        return None


def _refs(index: Index) -> list[Ref]:
    """The references that `overlap_pairs` compares."""
    return index.table["image"].dropna().astype("object").tolist()


@contextmanager
def _timed(report: Report, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    report.seconds[name] = time.monotonic() - start
