"""Images of an archive that show the same, as pairs of ids: equal files and near-duplicates.

Source: 14,310 copies among the ISIC challenges of 2016 to 2020 (Cassidy et al., Medical Image
Analysis 2022), which carry a label from training into validation.
Train and test images of every row are compared, whatever patient or lesion they are of; rows
without an image are not. Found once and kept under the cache root.
Trap: alike is what shows the same picture. Two photographs of one lesion are not, however close.
"""

import logging
from pathlib import Path

from isic.checksums import read_json, sealed_json
from isic.errors import IsicError
from isic.files import write_text
from isic.images.fingerprint import images_key, read_fingerprints
from isic.images.likeness import same_images
from isic.images.sources import Ref
from isic.index.schema import Index

log = logging.getLogger(__name__)

Pair = tuple[str, str, str]  # image_id, image_id, `bytes` or `near`
VERSION = 1  # of what counts as alike


def overlap_pairs(index: Index, *, cache_root: Path) -> list[Pair]:
    """(image_id, image_id, kind) of images that show the same, in the order of the table.

    Of k equal files each is named with the one before it. Files that do not decode are in none.

    Raises:
        DataError: A reference that leaves the root, or a store that does not open.
        IsicError: A cache root that cannot be written to.
    """
    rows = index.table[index.table["image"].notna()]
    refs: list[Ref] = rows["image"].astype("object").tolist()
    if not refs:
        return []
    ids = rows["image_id"].tolist()
    sources = index.sources
    path = Path(cache_root) / f"{sources.root.name}-alike-{images_key(sources, refs)}.json"
    found = _kept(path)
    if found is None:
        prints = read_fingerprints(sources, refs, cache_root=Path(cache_root))
        found = [(a, b, kind) for a, b, kind, _ in same_images(prints)]
        write_text(path, sealed_json({"version": VERSION, "pairs": found}))
        equal = sum(kind == "bytes" for _, _, kind in found)
        log.info(
            "%d pairs of equal files and %d of images that look the same among %d",
            equal, len(found) - equal, len(refs),
        )  # fmt: skip
    return [(ids[a], ids[b], kind) for a, b, kind in found]


def _kept(path: Path) -> list[tuple[int, int, str]] | None:
    """Row pairs found before; None where there are none, or those of other rules."""
    try:
        kept = read_json(path)
        # up to 0.1 a list without a checksum
        version, found = kept if isinstance(kept, list) else (kept["version"], kept["pairs"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is not whole, made again: %s", path, error)
        return None
    except OSError as error:
        raise IsicError(f"expected a readable file {path}, got {error}") from error
    return [(a, b, kind) for a, b, kind in found] if version == VERSION else None
