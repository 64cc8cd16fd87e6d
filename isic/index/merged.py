"""Several archives as one table under shared labels: the first validates, the others only train.

Source: the readers of the parts; shared classes and malignancy are those of `diagnosis`. Licence
and citation are of the parts. Row unit: image, also of MILK10k, whose two views are two rows.
Targets: `diagnosis` (the shared classes that a label of any part can have) or `malignant`, which is
the archive's own target where its challenge has one.
Columns: the standard ones and those of use; an archive's own columns are kept where every part has
them and left out else. Images lie in one mount a part, `@isic2019/...`.
Trap: archives share images and patients. An id in two parts is kept in the first alone; one that is
a test image of the first part trains nowhere; what patients and lesions share is grouped by the
split, which therefore needs `patient_id` and `lesion_id` as the archives spell them.
"""

import importlib
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

import isic.index
from isic.errors import ConfigError, first_five
from isic.index.diagnosis import possible_classes
from isic.index.diagnosis_table import SHARED
from isic.index.folder.read import plain_text
from isic.index.id_spellings import IdSpellings
from isic.index.merged_rows import BINARY, Part, part_rows, without_twins
from isic.index.schema import (
    DatasetInfo,
    Index,
    faults_of,
    one_hot,
    raise_faults,
    refuse_untrained,
    standard_columns,
)
from isic.index.sites import coarse_site
from isic.index.unread_cells import together

log = logging.getLogger(__name__)

TARGETS = ("diagnosis", "malignant")
NO_PARTS = ("merged", "unlabelled")

INFO = DatasetInfo(
    name="merged",
    classes=SHARED,
    task="multiclass",
    views=("image",),
    row_unit="image",
    id_column="image_id",
    submission_columns=SHARED,
    official_metric="auc",
    license="of the parts",
    citation="of the parts",
    download="",
    published_counts={},
    train_only_columns=(),
)


def build_index(
    root: Path,
    *,
    parts: Sequence[str],
    target: str = "diagnosis",
    without: Sequence[str] = (),
    roots: Mapping[str, str | None] | None = None,
    ids: str | None = None,
) -> Index:
    """Read the parts and put them under one another.

    root: Holds each part in a folder of its name.
    parts: Names of reader modules, the validating one first.
    target: `diagnosis` or `malignant`.
    without: Shared classes that only the first part keeps; [UNK] leaves out the 27,124 lesions of
        SIIM-ISIC 2020 that nobody named.
    roots: Part -> another folder of it.
    ids: See `isic.index.id_spellings`; of each part, and among them.

    Raises:
        ConfigError: A part that has no reader, or an unknown target or class.
        DataError: What a reader is at fault for; labels without a shared class.
    """
    places = {k: v for k, v in (roots or {}).items() if v is not None}
    names = _checked(parts, target, places)
    spellings = IdSpellings(ids)
    read = [_read(name, Path(places.get(name, Path(root) / name)), ids) for name in names]
    classes = BINARY if target == "malignant" else _classes(read)
    if strange := sorted(set(without) - set(classes)):
        raise ConfigError(
            f"data.index.without: expected {', '.join(classes)}, got {first_five(strange)}"
        )
    notes, own_notes, frames, mounts = [], [], [], dict[str, Path]()
    for i, part in enumerate(read):
        rows, found = part_rows(part, classes, external=i > 0, without=without)
        mounts.update(_mounts(part))
        frames.append(spellings.take_all(rows))
        notes += [f"{part.name}: {note}" for note in part.index.notes]
        own_notes += [f"{part.name}: {note}" for note in found]
    raise_faults(spellings.faults(), where="the merged index", next_step="Correct the tables.")
    table, found = without_twins(frames)
    own_notes += [*spellings.notes(), *found]
    info = _info(read, classes, table)
    table = _in_order(table, info)
    # SIIM's `torso` says neither front nor back: archives meet at the coarse level only.
    table["site"] = coarse_site(table["site"])
    raise_faults(faults_of(table, info), where="the merged index", next_step="See the parts.")
    unread: dict[str, str] = {}
    for part in read:
        unread = together(unread, {c: t for c, t in part.index.unread.items() if c in table})
    notes += own_notes
    return Index(table, info, Path(root), mounts, notes, ids=ids, unread=unread)


def _checked(parts: Sequence[str], target: str, places: Mapping[str, str]) -> list[str]:
    """The parts as a list, each with a reader."""
    names = parts.split(",") if isinstance(parts, str) else [str(p) for p in parts]
    names = [n.strip() for n in names]
    if target not in TARGETS:
        raise ConfigError(f"data.index.target: expected {' or '.join(TARGETS)}, got {target!r}")
    choices = _readers()
    wrong = [n for n in names if n not in choices]
    if not names or wrong or len(set(names)) < len(names):
        raise ConfigError(
            f"data.parts: expected different ones of {', '.join(choices)}, got {', '.join(names)}"
        )
    if strange := sorted(set(places) - set(choices)):
        raise ConfigError(
            f"data.index.roots: expected {', '.join(choices)}, got {first_five(strange)}"
        )
    return names


def _readers() -> list[str]:
    """Modules of this package with a `build_index` of one archive with labels."""
    names = [m.name for m in pkgutil.iter_modules(isic.index.__path__) if m.name not in NO_PARTS]
    return [n for n in names if hasattr(importlib.import_module(f"isic.index.{n}"), "build_index")]


def _read(name: str, root: Path, ids: str | None) -> Part:
    """Read one part with its reader's own options."""
    builder = importlib.import_module(f"isic.index.{name}").build_index
    log.info("merged: reading %s from %s", name, root)
    index = builder(root, ids=ids)
    refuse_untrained(index)
    return Part(name, index)


def _classes(parts: Sequence[Part]) -> tuple[str, ...]:
    """The shared classes that a label of any part can have."""
    found = {c for part in parts for c in possible_classes(part.name)}
    return tuple(c for c in SHARED if c in found)


def _mounts(part: Part) -> dict[str, Path]:
    """The part's root under its name, and what it has mounted itself."""
    inner = {f"{part.name}.{name}": path for name, path in part.index.mounts.items()}
    return {part.name: part.index.root, **inner}


def _info(parts: Sequence[Part], classes: tuple[str, ...], table: pd.DataFrame) -> DatasetInfo:
    """What the merged table is, submitted as the first part where its columns can be filled."""
    infos = [part.index.info for part in parts]
    first = infos[0]
    wanted = first.submission_classes or first.classes
    if len(first.submission_columns) == 1 and first.classes == BINARY:
        wanted = ("MEL",) if classes != BINARY and parts[0].name == "isic2020" else BINARY[1:]
    fits = first.row_unit == "image" and set(wanted) <= set(classes)
    fits = fits and len(wanted) == len(first.submission_columns)
    leaks = dict.fromkeys(c for info in infos for c in info.train_only_columns if c in table)
    return replace(
        INFO,
        classes=classes,
        task="binary" if classes == BINARY else "multiclass",
        views=tuple(dict.fromkeys(v for info in infos for v in info.views)),
        id_column=first.id_column if fits else INFO.id_column,
        submission_columns=first.submission_columns if fits else _own_columns(classes),
        submission_classes=tuple(wanted) if fits else (),
        license="; ".join(f"{info.name}: {info.license}" for info in infos),
        citation="; ".join(info.citation for info in infos),
        download="; ".join(f"{p.name}: {p.index.download}" for p in parts),
        train_only_columns=tuple(leaks),
    )


def _own_columns(classes: tuple[str, ...]) -> tuple[str, ...]:
    return ("target",) if classes == BINARY else classes


def _in_order(table: pd.DataFrame, info: DatasetInfo) -> pd.DataFrame:
    """Standard columns first, train rows first."""
    classes = one_hot(table["target"], info.classes)
    table = pd.concat([table, classes], axis=1)
    # A column that one part lacks is no longer of the text type.
    for name in (c for c in table.columns if table[c].dtype == object):
        table[name] = plain_text(table[name])
    standard = [*standard_columns(info)]
    table = table[[*standard, *(c for c in table.columns if c not in standard)]]
    order = (table["split"] == "test").argsort(kind="stable")
    return table.iloc[order].reset_index(drop=True)
