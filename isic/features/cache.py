"""A feature table kept as parquet by its content: the rows' values, the families, the code.

Nothing has to be told that something changed: another row, another option of a family, another
fitted state, another line of this package or of a family of the user's own, another version of the
libraries that calculate makes another file. Order of rows counts, since it is the order of the
result. Unit: one file a table, `<cache>/features/<hash>.parquet`.
Trap: the hash must see missing values and dtypes, and be cheap: numbers by their bytes, texts by
their codes and values.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from isic.checksums import BLANK, check, fill_in
from isic.code_hash import code_hash, folders_hash
from isic.features.family import Family, FeatureTable, State
from isic.files import whole_file
from isic.module_sources import versions

log = logging.getLogger(__name__)

IDS = "image_id"
LIBRARIES = ("numpy", "pandas", "scipy", "scikit-learn")


def cached_features(
    make: Callable[[], FeatureTable],
    families: Mapping[str, Family],
    samples: pd.DataFrame,
    states: Mapping[str, State],
    *,
    cache_root: Path,
) -> FeatureTable:
    """What `make()` gives, read from the cache where it is there.

    A cache root that cannot be written to costs speed only, and is said.
    """
    key = features_hash(families, samples, states)
    if key is None:
        log.info("features are not kept: a family has no source to compare")
        return make()
    path = Path(cache_root) / "features" / f"{key}.parquet"
    found = _read(path)
    if found is not None:
        return found
    table = make()
    try:
        _write(path, table)
    except OSError as error:
        log.warning("the features are not kept: %s; set ISIC_CACHE_ROOT", error)
    return table


def features_hash(
    families: Mapping[str, Family], samples: pd.DataFrame, states: Mapping[str, State]
) -> str | None:
    """Sixteen hex digits of everything that the table depends on; None where code is unknown."""
    digest = hashlib.blake2b(digest_size=8)
    codes = [(key, code_hash(family)) for key, family in families.items()]
    if any(code is None for _, code in codes):
        return None
    ours = [folders_hash("features", "index", "predictions"), *versions(*LIBRARIES)]
    about = [ours, codes, states]
    digest.update(json.dumps(about, sort_keys=True).encode())
    needed = [c for f in families.values() for c in f.needs(list(samples.columns))]
    for name in dict.fromkeys([IDS, *needed]):
        digest.update(f"{name} {samples[name].dtype}".encode())
        for part in _bytes(samples[name]):
            digest.update(part)
    return digest.hexdigest()


def _bytes(column: pd.Series) -> list[bytes]:
    if column.name == IDS:  # each id once: codes would be as long as the ids
        return ["\n".join(column.astype(str)).encode()]
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":
        return [np.ascontiguousarray(column.to_numpy()).tobytes()]
    codes, values = pd.factorize(column)
    return [codes.tobytes(), "\x1f".join(map(str, values)).encode()]


def _write(path: Path, table: FeatureTable) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {IDS: pa.array(table.ids, pa.string())}
    columns |= {name: pa.array(table.values[:, i]) for i, name in enumerate(table.names)}
    made = pa.table(columns, metadata={"checksum": BLANK})
    with whole_file(path) as file:  # floats of measured values hardly compress
        pq.write_table(made, file, compression="none", use_dictionary=False)
        fill_in(file)


def _read(path: Path) -> FeatureTable | None:
    """None where it is not there or not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check(path)
        table = pq.read_table(path, memory_map=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        log.warning("%s is no whole feature table and is made again: %s", path, error)
        return None
    names = tuple(table.column_names[1:])
    values = np.empty((table.num_rows, len(names)), np.float32, order="F")
    for i, name in enumerate(names):
        values[:, i] = table.column(name).to_numpy()
    return FeatureTable(table.column(IDS).to_numpy(zero_copy_only=False), names, values)
