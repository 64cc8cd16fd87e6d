"""Download of the ISIC Archive: images, `metadata.csv`, licences and attribution, in one folder.

Layout: `<root>/<isic_id>.jpg`, `<root>/metadata.csv` (one row an image), `attribution.txt`,
`licenses/`, `download.json` (what was asked); `data=folder data.root=<root>` opens it.
Licence: per image, column `copyright_license` (CC-0, CC-BY, CC-BY-NC).

Why not isic-cli (12.4, Apache-2.0, maintained by the archive): its `image download` hands jobs to
`thread_pool.map` and never looks at the results, so an image that failed is missing while it prints
success and exits with 0; the query goes into the URL unquoted (`+`, `&`, `#` are lost); tables are
written in place, ids become paths unchecked, and it brings pydantic, sentry and an upload client
along. What it does well is kept: layout, columns, licence texts, and "there with the right size"
as the sign of a finished file. Images that need a login remain its own matter: the folder that it
writes opens the same way.

The trap: a second download of a query need not list what the first one did. Images that the archive
no longer lists stay, without a row, and are named.
"""

import errno
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from isic.acquire.download.api import SUFFIXES, ArchiveApi
from isic.acquire.download.files import FileFetcher, Tally
from isic.acquire.download.http import Connections, Patience, Refused, Unreachable
from isic.acquire.download.tables import (
    FAILED,
    LICENCE_FOLDER,
    RowSpool,
    claim,
    write_failures,
    write_request,
    write_tables,
)
from isic.errors import ConfigError, DataError, IsicError, first_five
from isic.files import PREFIX, waiting_lock
from isic.images.progress import Progress

log = logging.getLogger(__name__)

API = "https://api.isic-archive.com/api/v2"
MAX_WORKERS = 32  # connections at once to a public service
SNAPSHOT = "https://isic-archive.s3.us-east-1.amazonaws.com/snapshots/ISIC_images.zip"
BY_HAND = (
    "By hand: the challenges' files from https://challenge.isic-archive.com/data/, the whole "
    f"archive (60 GB) from {SNAPSHOT}; unpack, then data=folder data.root=DIR reads the folder."
)


@dataclass(frozen=True)
class Request:
    """What is wanted.

    query: In the archive's own language; empty = everything.
    collections: Numbers of collections, any of which an image may be in; empty = all.
    limit: The first so many images in the archive's order; None = all.
    """

    query: str = ""
    collections: Sequence[int] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit: expected at least 1, or null for all, got {self.limit}")
        if not all(isinstance(number, int) and number > 0 for number in self.collections):
            raise ConfigError(f"collections: expected numbers from 1, got {[*self.collections]}")


def download_archive(
    root: Path,
    request: Request,
    *,
    api: str = API,
    n_workers: int = 8,
    patience: Patience | None = None,
    again: str = "",
) -> str:
    """Fetch what is asked for and not there yet; a line that says what came of it.

    again: The command that goes on with this, for messages.

    Raises:
        ConfigError: The query is refused, nothing matches, or the folder holds something else.
        DataError: Some images are not there at the end, or fewer than the archive counted.
        IsicError: No connection, no space.
    """
    if not 1 <= n_workers <= MAX_WORKERS:
        raise ConfigError(f"n_workers: expected 1 to {MAX_WORKERS}, got {n_workers}")
    if not api.startswith(("http://", "https://")):
        raise ConfigError(f"api: expected an address such as {API}, got {api!r}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data.root: {root} cannot be made: {error}") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise ConfigError(f"data.root: {root} cannot be written to by this user")
    stop = threading.Event()
    connections = Connections(patience or Patience(), n_threads=n_workers, stop=stop)
    with waiting_lock(root / ".lock", f"downloading to {root}"), connections:
        _sweep(root)
        files = FileFetcher(root, ArchiveApi(api, connections), connections, n_workers=n_workers)
        go_on = f"The same command goes on{f': {again}' if again else '.'}"
        try:
            return _download(root, request, files, go_on)
        except (KeyboardInterrupt, SystemExit):
            log.warning("stopped; counted so far: %s. %s", files.tally, go_on)
            raise
        except (Unreachable, Refused) as error:
            raise IsicError(f"{error}\n{files.tally}. {go_on}\n{BY_HAND}") from None
        except OSError as error:
            raise _disk_fault(root, error, f"{files.tally}. {go_on}") from error
        finally:
            stop.set()
            _sweep(root)


def _download(root: Path, request: Request, files: FileFetcher, go_on: str) -> str:
    """List, fetch, write the tables, count."""
    asked = {
        "api": files.api.url,
        "query": request.query,
        "collections": sorted(request.collections),
        "limit": request.limit,
    }
    claim(root, asked)
    if not (request.query or request.collections or request.limit):
        log.info("this is the whole archive; in one file of 60 GB it is at %s", SNAPSHOT)
    pages = files.api.pages(request.query, request.collections, limit=request.limit)
    first = next(pages)  # the query is understood before anything is written
    expected = _expected(request, first.count, bool(first.results))
    write_request(root, {**asked, "count": first.count, "images": None})
    _check_space(root, request, files.api)
    results = (entry for page in chain([first], pages) for entry in page.results)
    with RowSpool(root) as rows, Progress("images", total=expected or 0) as progress:
        files.fetch(results, rows, limit=request.limit, progress=progress)
        write_failures(root, files.tally.failures)
        n_rows = write_tables(root, rows, files.api, without=files.tally.failures)
    _check_count(root, files.tally, expected, go_on)
    write_request(root, {**asked, "count": first.count, "images": n_rows})
    return f"{files.tally} in {root}"


def _expected(request: Request, count: int | None, any_result: bool) -> int | None:
    """How many images there must be at the end; None where the API does not say."""
    if count == 0 or not any_result:
        raise ConfigError(
            f"no public image matches query={request.query!r} "
            f"collections={[*request.collections]}: nothing was written"
        )
    if count is None:
        log.warning("the API gives no count, so nothing shows that its pages are complete")
        return None
    return count if request.limit is None else min(count, request.limit)


def _check_space(root: Path, request: Request, api: ArchiveApi) -> None:
    """Say at once when the disk cannot hold it; a part of a query has no known size."""
    size = None if request.limit else api.size(request.query, request.collections)
    if size is None:
        return
    there = sum(p.lstat().st_size for p in root.iterdir() if p.suffix in SUFFIXES)
    free = shutil.disk_usage(root).free
    if size - there > free:
        raise IsicError(
            f"{root} has {free:,} bytes free, and {size - there:,} more are needed "
            f"({size:,} in all). Free some space, or take a part: limit=N."
        )


def _check_count(root: Path, tally: Tally, expected: int | None, go_on: str) -> None:
    """Raise DataError unless every image that the archive counted lies there."""
    there = {p.stem for p in root.iterdir() if p.suffix in SUFFIXES}
    if strangers := sorted(there - tally.names):
        log.warning("in %s but not listed, so without a row: %s", root, first_five(strangers))
    faults = []
    if tally.failures:
        names = first_five(f"{name} ({why})" for name, why in tally.failures.items())
        faults.append(f"not there: {names}; all of them are in {root / FAILED}")
    if vanished := sorted(tally.names - there - tally.failures.keys()):
        faults.append(f"vanished in the meantime: {first_five(vanished)}")
    n_listed = len(tally.names)
    if expected is not None and n_listed < expected:
        faults.append(f"the archive counted {expected:,}, its pages listed {n_listed:,}")
    if faults:
        whole, of = tally.whole - len(vanished), max(expected or 0, n_listed)
        standing = f"{root}: {whole:,} of {of:,} images are whole"
        raise DataError(f"{standing}; {'; '.join(faults)}.\n{go_on}")
    if expected is not None and n_listed > expected:
        log.warning("the archive counted %d, its pages listed %d", expected, n_listed)


def _disk_fault(root: Path, error: OSError, standing: str) -> IsicError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(root).free
        return IsicError(f"the disk is full: {free:,} bytes free at {root} ({error}). {standing}")
    return IsicError(f"{root} cannot be written to: {error}. {standing}")


def _sweep(root: Path) -> None:
    """Remove what a killed download left half written; the lock says that nobody writes now."""
    licences = root / LICENCE_FOLDER
    folders = [root] if licences.is_symlink() else [root, licences]
    for path in chain.from_iterable(folder.glob(f"{PREFIX}*") for folder in folders):
        path.unlink(missing_ok=True)
