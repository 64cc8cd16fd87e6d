"""Image objects in, files out: several threads fetch, one counts.

A file that is there with the size the archive gives is not fetched again; a file appears under its
name whole or not at all. Threads are daemons and not those of a pool: at Ctrl-C one of them may
wait for a silent server, and an executor would wait with it.

The trap: pages repeat images now and then, when the archive changes while it is listed; each id
is taken once.
"""

import logging
import queue
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isic.acquire.download.api import MAX_IMAGE, ArchiveApi, ArchiveImage, read_image
from isic.acquire.download.http import Connections, Damaged, Refused, Stopped, Unreachable
from isic.acquire.download.tables import RowSpool
from isic.errors import DataError
from isic.images.progress import Progress

log = logging.getLogger(__name__)

BACKLOG = 200  # images that wait for a thread: two pages, so that URLs stay fresh
EXPIRED = (401, 403, 410)  # what storage says to a signed URL that is too old
LEAVE = 1.0  # seconds that threads have to end at an interrupt


@dataclass
class Tally:
    """How far a download is: ids listed, files there before, fetched, and what failed.

    failures: Id -> reason.
    unreached: Images in a row that no attempt reached.
    """

    names: set[str] = field(default_factory=set)
    present: int = 0
    fetched: int = 0
    n_bytes: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    unreached: int = 0

    @property
    def whole(self) -> int:
        """Images that are there."""
        return self.present + self.fetched

    def __str__(self) -> str:
        if not self.names:
            return "nothing was listed yet"
        fetched = f"{self.fetched:,} fetched, {self.n_bytes / 1e6:,.1f} MB"
        return f"{self.whole:,} images are whole ({fetched}; {self.present:,} there before)"


@dataclass(frozen=True)
class _Outcome:
    """What became of one image: bytes written, or what was raised."""

    name: str
    n_bytes: int = 0
    error: BaseException | None = None


class FileFetcher:
    """Writes images to `root`, which is locked; `tally` counts."""

    def __init__(
        self, root: Path, api: ArchiveApi, connections: Connections, *, n_workers: int
    ) -> None:
        self.root, self.api, self.tally = root, api, Tally()
        self._web, self._n_workers = connections, n_workers
        self._jobs: queue.SimpleQueue[ArchiveImage | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._pending = 0

    def fetch(
        self, results: Iterable[Any], rows: RowSpool, *, limit: int | None, progress: Progress
    ) -> None:
        """Fetch every image object of `results` that is not there, `limit` at most.

        rows: Gets the row of every image, those that fail included.

        Raises:
            Unreachable: Many images in a row could not be reached.
            OSError: The disk is at fault.
        """
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._n_workers)]
        for thread in threads:
            thread.start()
        try:
            for entry in results:
                self._give(entry, rows, progress)
                while self._pending > BACKLOG or not self._done.empty():
                    self._take(progress)
                if limit is not None and len(self.tally.names) >= limit:
                    break
            while self._pending:
                self._take(progress)
        except BaseException:
            self._web.stop.set()
            raise
        finally:
            for _ in threads:
                self._jobs.put(None)
            for thread in threads:
                thread.join(LEAVE / len(threads) if self._web.stop.is_set() else None)

    def _give(self, entry: Any, rows: RowSpool, progress: Progress) -> None:
        """Hand one image object to the threads, unless it is known, there or unusable."""
        try:
            image = read_image(entry, self.api.url)
        except DataError as error:
            name = str(entry.get("isic_id") if isinstance(entry, dict) else entry)
            name = ascii(name[:80]).strip("'\"")
            self.tally.names.add(name)
            self.tally.failures[name] = f"refused: {error}"
            return
        if image.isic_id in self.tally.names:
            log.debug("%s is listed twice", image.isic_id)
            return
        self.tally.names.add(image.isic_id)
        rows.add(image.row)
        if _is_whole(self.root / image.file_name, image.size):
            self.tally.present += 1
            progress.advance(1)
            return
        self._jobs.put(image)
        self._pending += 1

    def _take(self, progress: Progress) -> None:
        """Count one outcome."""
        outcome = self._done.get()
        self._pending -= 1
        progress.advance(1)
        tally, error = self.tally, outcome.error
        lost = isinstance(error, Unreachable) and not isinstance(error, Damaged)
        tally.unreached = tally.unreached + 1 if lost else 0
        if error is None:
            tally.fetched += 1
            tally.n_bytes += outcome.n_bytes
        elif isinstance(error, DataError | Refused | Unreachable):
            tally.failures[outcome.name] = _reason(error)
            log.debug("%s: %s", outcome.name, error)
            if tally.unreached > 4 * self._n_workers:
                raise error
        else:
            raise error

    def _work(self) -> None:
        """One thread: images in, outcomes out."""
        while (image := self._jobs.get()) is not None:
            try:
                self._done.put(_Outcome(image.isic_id, self._fetched(image)))
            except Stopped:
                return
            except BaseException as error:
                self._done.put(_Outcome(image.isic_id, error=error))

    def _fetched(self, image: ArchiveImage) -> int:
        """Write one image; a refused URL is asked for once more, as it may have expired."""
        path = self.root / image.file_name
        try:
            return self._web.save(image.url, path, size=image.size, most=MAX_IMAGE)
        except Refused as error:
            if error.status not in EXPIRED:
                raise
            fresh = self.api.image(image.isic_id)
            return self._web.save(fresh.url, path, size=fresh.size, most=MAX_IMAGE)


def _is_whole(path: Path, size: int | None) -> bool:
    """A regular file of the right size; a link is none, it may lead out of the folder."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_size == size if size else found.st_size > 0)


def _reason(error: Exception) -> str:
    """Short enough for a list."""
    if isinstance(error, Refused):
        return f"status {error.status}" if error.status else "no address"
    return error.reason if isinstance(error, Unreachable) else str(error)
