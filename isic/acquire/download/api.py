"""The ISIC Archive's API v2 as this project reads it: pages of image objects, one image, licences.

Source: https://api.isic-archive.com/api/docs/swagger/ and the server's code (ImageMarkup/isic).
`images/search/?query=&collections=1,2&limit=100` answers `{results, count, next, previous}`:
`count` stands on the first page alone, `next` is a whole URL with a cursor. No login: public images
only.

The query is the archive's own language and goes through as it is. What changed there and is said
to the user: `diagnosis:` became `diagnosis_1..5:`, `anatom_site_general:` (dropped in 2026)
`anatom_site_1..5:`, image type `clinical` became `clinical: close-up` and `clinical: overview`.
The trap: an image's URL may be signed and expire, so images are fetched page by page, and a
refused URL is asked for once more.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from isic.acquire.download.http import Connections, Refused, Unreachable
from isic.errors import ConfigError, DataError

log = logging.getLogger(__name__)

PAGE = 100  # images; the API gives no more
MAX_IMAGE = 1 << 30  # bytes; the archive's largest are of some 50 MB
SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)  # an id becomes a file name
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
FIRST_COLUMNS = ("isic_id", "attribution", "copyright_license")
GONE = {
    r"\bdiagnosis\s*:": "diagnosis: is no longer supported; use diagnosis_1: to diagnosis_5:",
    r"\banatom_site_general\s*:": "anatom_site_general was dropped; use anatom_site_1: to _5:",
    r"\bimage_type\s*:\s*clinical\b": (
        'image_type is now "clinical: close-up" or "clinical: overview"'
    ),
}
LICENCES = {
    "CC-0": "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    "CC-BY": "https://creativecommons.org/licenses/by/4.0/legalcode",
    "CC-BY-NC": "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
}


@dataclass(frozen=True)
class ArchiveImage:
    """An image of the archive: where its bytes are, and its row of `metadata.csv`.

    size: Bytes, where the API says so.
    row: Column -> text; the columns of `FIRST_COLUMNS` and whatever metadata the API gives.
    """

    isic_id: str
    url: str
    size: int | None
    row: Mapping[str, str]

    @property
    def file_name(self) -> str:
        """`<isic_id>.jpg`; other suffixes of images are kept as the URL has them."""
        suffix = PurePosixPath(urlsplit(self.url).path).suffix.lower()
        return self.isic_id + (suffix if suffix in SUFFIXES else ".jpg")


@dataclass(frozen=True)
class Page:
    """Image objects as the API gave them; `count` of all pages on the first one, else None."""

    results: Sequence[Any]
    count: int | None


class ArchiveApi:
    """The API at `url`, for instance https://api.isic-archive.com/api/v2."""

    def __init__(self, url: str, connections: Connections) -> None:
        self.url = url.rstrip("/") + "/"
        self._web = connections

    def pages(self, query: str, collections: Sequence[int], *, limit: int | None) -> Iterator[Page]:
        """Every page of what matches, in the archive's order.

        Raises:
            ConfigError: The API does not understand the query; its own message is passed on.
            Unreachable, Refused: It gives no answer, or another one than pages.
        """
        params = {"limit": str(min(limit or PAGE, PAGE)), **_selection(query, collections)}
        url, seen = urljoin(self.url, "images/search/"), set[str]()
        answer = self._asked(url, params, query)
        while True:
            yield _page(url, answer)
            following = answer.get("next")
            if not following:
                return
            url = urljoin(url, str(following))
            if url in seen or urlsplit(url).scheme not in ("http", "https"):
                raise Unreachable(self.url, f"its pages lead in a circle or nowhere: {url}")
            seen.add(url)
            answer = self._asked(url, None, query)

    def size(self, query: str, collections: Sequence[int]) -> int | None:
        """Bytes of all that matches; None where the API does not say."""
        try:
            url = urljoin(self.url, "images/search/size/")
            size = self._web.json(url, _selection(query, collections)).get("size")
        except (Refused, Unreachable, AttributeError) as error:
            log.debug("no size of the download is known: %s", error)
            return None
        return size if isinstance(size, int) else None

    def image(self, isic_id: str) -> ArchiveImage:
        """One image object anew, with a fresh URL."""
        return read_image(self._web.json(urljoin(self.url, f"images/{isic_id}/")), self.url)

    def licence(self, name: str) -> str:
        """The text of a licence such as CC-BY-NC; its address where the archive has no text."""
        url = urljoin(self.url, f"zip-download/license-file/{quote(name, safe='')}/")
        try:
            return self._web.text(url)
        except Refused as error:
            log.warning("no text of the licence %s: %s", name, error)
            return f"{name}\n\n{LICENCES.get(name, 'Text not known; ask the ISIC Archive.')}\n"

    def _asked(self, url: str, params: Mapping[str, str] | None, query: str) -> Mapping[str, Any]:
        try:
            answer = self._web.json(url, params)
        except Refused as error:
            if error.status in (400, 422):
                raise ConfigError(_query_fault(query, error.text)) from None
            raise
        if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
            raise Unreachable(url, f"expected an object with results, got {str(answer)[:80]}")
        return answer


def _selection(query: str, collections: Sequence[int]) -> dict[str, str]:
    selected = {"query": query} if query else {}
    return selected | ({"collections": ",".join(map(str, collections))} if collections else {})


def _page(url: str, answer: Mapping[str, Any]) -> Page:
    count = answer.get("count")
    return Page(answer["results"], count if isinstance(count, int) else None)


def _query_fault(query: str, text: str) -> str:
    """The API's own message, and what of the query is known to have changed."""
    try:
        answer = json.loads(text)
        said = answer.get("message") or answer.get("detail") or answer
    except (ValueError, AttributeError):
        said = text.strip()[:300]
    hints = "".join(f" {hint}." for pattern, hint in GONE.items() if re.search(pattern, query))
    return f"the archive does not take query={query!r}: {said}{hints}"


def read_image(entry: Any, base: str) -> ArchiveImage:
    """An image object, checked.

    Raises:
        DataError: No id, an id that cannot be a file name, or no URL over http(s).
    """
    entry = entry if isinstance(entry, dict) else {}
    name = entry.get("isic_id")
    if not isinstance(name, str) or not SAFE_ID.fullmatch(name):
        raise DataError(f"{str(name)[:80]!r}: expected an id of letters, digits, _ and -")
    files = entry.get("files")
    full = files.get("full") if isinstance(files, dict) else None
    url = urljoin(base, str(full.get("url") or "")) if isinstance(full, dict) else ""
    if urlsplit(url).scheme not in ("http", "https") or url == base:
        raise DataError(f"{name}: expected files.full.url over http(s), got {url[:80]!r}")
    size = full.get("size") if isinstance(full, dict) else None
    size = size if isinstance(size, int) and not isinstance(size, bool) else None
    if size is not None and not 0 < size <= MAX_IMAGE:
        raise DataError(f"{name}: expected 1 to {MAX_IMAGE:,} bytes, got {size:,}")
    return ArchiveImage(name, url, size, _row(name, entry))


def _row(name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """Flat: the columns of every group of metadata, whichever the API has by now."""
    row: dict[str, str] = {}
    metadata = entry.get("metadata")
    for key, value in (metadata if isinstance(metadata, dict) else {}).items():
        group = value if isinstance(value, dict) else {key: value}
        row |= {column: _cell(v) for column, v in group.items()}
    own = {key: _cell(entry.get(key)) for key in FIRST_COLUMNS[1:]}
    return {**row, **own, "isic_id": name}


def _cell(value: Any) -> str:
    """As Python's csv writes it, which is what the archive's own files hold: True, 0.5, empty."""
    if value is None:
        return ""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)
