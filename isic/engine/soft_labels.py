"""A teacher's soft labels on disk: probabilities by image, made once and kept.

Unit: one row a sample of the student's archive. A file that is not as it was written is made again.
"""

import logging
from pathlib import Path

import pandas as pd

from isic.checksums import BLANK, check, fill_in
from isic.files import whole_file

log = logging.getLogger(__name__)


def keep_labels(path: Path, table: pd.DataFrame) -> None:
    """Write the table, indexed by `image_id`, whole and with a checksum."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = pa.Table.from_pandas(table.reset_index())
    metadata = {**(plain.schema.metadata or {}), b"checksum": BLANK.encode()}
    with whole_file(path) as file:
        pq.write_table(plain.replace_schema_metadata(metadata), file)
        fill_in(file)


def kept_labels(path: Path) -> pd.DataFrame | None:
    """Return the stored table; None where there is no file, or a damaged one."""
    import pyarrow as pa

    try:
        check(path)
        return pd.read_parquet(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        log.warning("%s: no whole soft labels, made again: %s", path, error)
        return None
