"""An index -> its split file: read where it was made before, made and logged where not.

Every consumer of folds goes through `make_split` and reads the same CSV, so that image models and
stackers cannot disagree. Unit: one line a labelled train sample (`sample_rows`); groups are made
over all train images, so that two views of a lesion, or copies of one of them, tie their samples.
Trap: the file's name holds a hash of all that decides the folds; test rows decide nothing.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from isic.index.schema import Index, index_hash, refuse_untrained, sample_rows
from isic.outputs import output_folder
from isic.split.given import Named, given_split
from isic.split.grouped import assign_folds, fixed_folds
from isic.split.groups import count_groups, group_of, labelled
from isic.split.hospital import ATTRIBUTION, hospital_folds, refuse_spellings
from isic.split.options import Split, SplitOptions
from isic.split.overlap import Pair, overlap_pairs
from isic.split.shares import held_out_groups, subsample_groups
from isic.split.split_file import (
    HELD_OUT,
    NEVER,
    TRAINS,
    read_split,
    refuse_changed,
    split_hash,
    split_path,
    write_split,
)

log = logging.getLogger(__name__)

VERSION = 1  # of the deal: another one makes other folds of the same rows
LINKS = ("image_id", "lesion_id", "patient_id", "duplicate_of", "parent_id")
SEEN = (*LINKS, "target", "split", "external", ATTRIBUTION)


@dataclass(frozen=True)
class _Samples:
    """The labelled train samples and the group of each."""

    rows: pd.DataFrame
    group: pd.Series


def make_split(
    index: Index,
    options: SplitOptions,
    *,
    runs_root: Path,
    cache_root: Path,
    fraction: float = 1.0,
) -> Split:
    """Read the split file of these rows and options, or make it.

    fraction: Share of groups to keep, stratified; kept rows have the folds of the full split.

    Raises:
        ConfigError: A share that is none.
        DataError: No train table, rows that give no sound folds, or a given file that does not
            fit them.
    """
    refuse_untrained(index)
    pairs = _train_pairs(index, cache_root) if options.overlap else []
    if options.file is not None:
        path = given_split(
            Path(options.file),
            _named(index),
            columns=options.columns,
            pairs=[(a, b) for a, b, _ in pairs],
            runs_root=runs_root,
            fraction=fraction,
        )
        return open_split(path)
    made = None
    if options.method == "hospital":  # how many folds there are is known afterwards
        refuse_spellings(_sample_table(index), index.ids)
        made = _made(index, pairs, options)
    path = split_path(
        runs_root,
        archive=index.info.name,
        method=options.method,
        n_folds=int(made[1].max()) + 1 if made else options.n_folds or 0,
        seed=options.seed,
        content=_content(index, pairs, options),
        holdout=options.holdout,
        fraction=fraction,
    )
    if not path.exists():
        samples, fold = made or _made(index, pairs, options)
        if fraction < 1:
            fold = _share(samples, fold, fraction=fraction, seed=options.seed)
        output_folder(path.parent)
        write_split(path, samples.rows, fold, samples.group)
        log.info("split: wrote %s", path)
    else:
        refuse_changed(path, _sample_table(index), whole=fraction == 1)
    return open_split(path)


def open_split(path: Path) -> Split:
    """Read a split file. Raises DataError with what is wrong."""
    table = read_split(path)
    out = table["fold"] == HELD_OUT
    parts = (table[~out].reset_index(drop=True), table[out].reset_index(drop=True))
    return Split(Path(path), split_hash(path), *parts)


def fold_rows(index: Index, split: Split, *, held_out: bool = False) -> pd.DataFrame:
    """The samples that the split names, or holds out, with their `group` and `fold`.

    In index order, without those that are never used (-1).
    """
    rows = sample_rows(index)
    named = split.held_out if held_out else split.table[split.table["fold"] != NEVER]
    rows = rows[rows["split"] == "train"]
    return rows.merge(named, on="image_id", how="inner").reset_index(drop=True)


def _train_pairs(index: Index, cache_root: Path) -> list[Pair]:
    """Pairs of train images that show the same.

    A test image may tie no two train rows: another test set would give other folds.
    """
    found = overlap_pairs(index, cache_root=cache_root)
    ids = set(_train(index)["image_id"]) if found else set()
    return [pair for pair in found if pair[0] in ids and pair[1] in ids]


def _train(index: Index) -> pd.DataFrame:
    """The train images with what ties them together."""
    columns = [c for c in LINKS if c in index.table]
    return index.table.loc[index.table["split"] == "train", columns]


def _sample_table(index: Index) -> pd.DataFrame:
    """The labelled train samples with what a split looks at."""
    samples = sample_rows(index)
    return labelled(samples[[c for c in SEEN if c in samples]])


def _named(index: Index) -> Named:
    """What a file of folds may call a sample: its images and, where it is one, its lesion."""
    images, rows = _train(index), _sample_table(index)
    if index.info.row_unit == "image":
        sample_of = pd.Series(rows["image_id"].to_numpy(), index=rows["image_id"].to_numpy())
        return Named(index.info.name, images, rows, sample_of)
    by_lesion = rows.set_index("lesion_id")["image_id"]
    views = images[images["lesion_id"].isin(by_lesion.index)]
    of_image = pd.Series(
        by_lesion.loc[views["lesion_id"]].to_numpy(), index=views["image_id"].to_numpy()
    )
    return Named(index.info.name, images, rows, pd.concat([of_image, by_lesion]))


def _content(index: Index, pairs: Sequence[Pair], options: SplitOptions) -> str:
    """Hash what decides the folds besides what the file's name says. Twelve hex digits."""
    decides: list[object] = [VERSION, index_hash(index.table, external=True), options.overlap]
    decides.append(sorted([min(a, b), max(a, b)] for a, b, _ in pairs))
    if index.info.row_unit != "image":
        decides.append(sorted(_sample_table(index)["image_id"]))
    if options.method == "hospital":
        rows = _sample_table(index).sort_values("image_id")
        decides.append(rows[ATTRIBUTION].astype("string").fillna("").tolist())
    text = json.dumps(decides)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _made(index: Index, pairs: Sequence[Pair], options: SplitOptions) -> tuple[_Samples, pd.Series]:
    """The samples, grouped over all train images, and the fold of each."""
    train, rows = _train(index), _sample_table(index)
    group = group_of(train, [(a, b) for a, b, _ in pairs])
    named = pd.Series(group.to_numpy(), index=train["image_id"].to_numpy())
    own = pd.Series(named.loc[rows["image_id"]].to_numpy(), index=rows.index, name="group")
    samples = _Samples(rows, own)
    return samples, _folds(samples, options)


def _folds(samples: _Samples, options: SplitOptions) -> pd.Series:
    """What is fixed, what is held out, then the rest dealt."""
    rows, group = samples.rows, samples.group
    fold = fixed_folds(rows)
    if options.holdout:
        groups = count_groups(rows[fold == 0], group)
        out = held_out_groups(
            groups,
            share=options.holdout,
            seed=options.seed,
            n_folds=options.n_folds or 2,
        )
        fold.loc[groups.rows] = out[groups.of_row] * HELD_OUT
        # What is not the archive's own but of a held-out patient must not train either.
        seen = group.isin(group[fold == HELD_OUT]) & (fold == TRAINS)
        fold[seen] = NEVER
    free = rows[fold == 0]
    if options.method == "hospital":
        fold.loc[free.index] = hospital_folds(free, group)
    else:
        assert options.n_folds is not None  # SplitOptions refuses it
        fold.loc[free.index] = assign_folds(
            free, n_folds=options.n_folds, seed=options.seed, group=group
        )
    return fold


def _share(samples: _Samples, fold: pd.Series, *, fraction: float, seed: int) -> pd.Series:
    """The kept part of the folds; what is held out stays whole, so that scores can be compared."""
    dealt = fold[fold != HELD_OUT]
    kept = subsample_groups(samples.rows, dealt, fraction=fraction, seed=seed, group=samples.group)
    return pd.Series(pd.concat([dealt[kept], fold[fold == HELD_OUT]]))
