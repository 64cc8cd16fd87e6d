"""A server on this machine that speaks the ISIC Archive's API v2, and fails as told.

Written from the API's documentation, not from the client: pages of `limit` with a cursor, `count`
on the first page alone, images and licences as files, 400 for unbalanced parentheses.
"""

import base64
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

Fault = Callable[[str, int], str | None]
"""(path, number of the request for it, from 1) -> what goes wrong: see `Archive.spoil`."""

PLACES = ("MSKCC", "Anonymous", "Hospital Clínic de Barcelona")
LICENCES = ("CC-0", "CC-BY", "CC-BY-NC")


class Archive:
    """Images, what is said about them, and what was asked for."""

    def __init__(self, n: int, *, seed: int = 0, page: int = 100) -> None:
        draw = random.Random(seed)
        self.page, self.delay = page, 0.0
        self.files = {f"ISIC_{7 * i:07d}": draw.randbytes(draw.randint(1, 9000)) for i in range(n)}
        self.names = list(self.files)  # listed, in this order
        self.count: int | None = n
        self.url = ""
        self.fault: Fault = lambda path, nth: None
        self.changes: dict[str, dict[str, Any]] = {}  # of single image objects
        self.signature = ""
        self.asked: Counter[str] = Counter()  # path -> requests
        self.queries: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.released = threading.Event()  # ends every `stall`

    def fetched(self) -> Counter[str]:
        """Requests for each image's bytes."""
        with self.lock:
            found = {p: n for p, n in self.asked.items() if p.endswith(".jpg")}
        return Counter({p.removeprefix("/images/")[:-4]: n for p, n in found.items()})

    def entry(self, name: str) -> dict[str, Any]:
        """An image object as the API gives it."""
        i = self.names.index(name)
        clinical: dict[str, Any] = {
            "sex": ("male", "female")[i % 2],
            "age_approx": 5 * (i % 17),
            "melanocytic": i % 3 == 0,
            "diagnosis_1": ("Benign", "Malignant")[i % 4 == 0],
        }
        if i % 5 == 0:
            clinical |= {"anatom_site_1": "Trunk", "mel_thick_mm": None}
        url = f"{self.url}/images/{quote(name)}.jpg"
        return {
            "isic_id": name,
            "public": True,
            "copyright_license": LICENCES[i % 3],
            "attribution": PLACES[i % 3],
            "files": {
                "full": {
                    "url": url + (f"?Signature={self.signature}" if self.signature else ""),
                    "size": len(self.files.get(name, b"12")),
                },
                "thumbnail_256": {"url": f"{self.url}/thumbnails/{i}", "size": 3},
            },
            "metadata": {
                "acquisition": {"image_type": "dermoscopic", "pixels_x": 600, "pixels_y": 450},
                "clinical": clinical,
            },
            **self.changes.get(name, {}),
        }


class _Answers(BaseHTTPRequestHandler):
    """One request; `archive` is set on the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Count, fail as told, answer."""
        archive: Archive = self.server.archive  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/api/v2")
        with archive.lock:
            archive.asked[path] += 1
            nth = archive.asked[path]
            archive.headers.append(dict(self.headers))
        fault = archive.fault(path, nth)
        if not self.failed(fault):
            self.answer(archive, path, parse_qs(parts.query, keep_blank_values=True), fault)

    def answer(
        self, archive: Archive, path: str, query: dict[str, list[str]], fault: str | None
    ) -> None:
        """What the path names."""
        name = path.split("/")[2] if path.count("/") > 1 else ""
        if path.endswith(".jpg"):
            time.sleep(archive.delay)
            wanted = name.removesuffix(".jpg")
            if archive.signature and query.get("Signature") != [archive.signature]:
                self.send(403, b"Request has expired")
            elif wanted not in archive.files:
                self.send(404, b"no such key")
            else:
                self.spoiled(fault, archive.files[wanted])
        elif path == "/images/search/":
            self.search(archive, query)
        elif path == "/images/search/size/":
            self.say({"size": sum(map(len, archive.files.values()))})
        elif path.startswith("/zip-download/license-file/"):
            self.send(200, f"The text of {path.split('/')[3]}.\n".encode())
        elif path.startswith("/images/"):
            self.say(archive.entry(name))
        else:
            self.send(404, b'{"detail": "Not Found"}')

    def failed(self, fault: str | None) -> bool:
        """Faults that come instead of an answer: `429`, `500`, ..., `reset`, `silent`."""
        if fault is None or fault in ("break", "stall", "longer", "shorter"):
            return False
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
        elif fault == "silent":
            time.sleep(1.0)
            self.close_connection = True
        else:
            status, _, after = fault.partition(" ")
            self.send(int(status), b"<html>no</html>", {"Retry-After": after} if after else {})
        return True

    def spoiled(self, fault: str | None, body: bytes) -> None:
        """`break`: half of what was announced; `stall`: the other half waits; else not what the
        API says: `longer`, `shorter`."""
        if fault == "break":
            self.send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
            self.close_connection = True
        elif fault == "stall":
            self.send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
            self.server.archive.released.wait(30)  # type: ignore[attr-defined]
            self.wfile.write(body[len(body) // 2 :])
        else:
            extra = {"longer": body + b"<html>", "shorter": body[:-1] or b"<>"}
            self.send(200, extra.get(fault or "", body))

    def search(self, archive: Archive, query: dict[str, list[str]]) -> None:
        """A page: `limit` results from the cursor on."""
        with archive.lock:
            archive.queries.append(query)
        text = query.get("query", [""])[0]
        if text.count("(") != text.count(")"):
            self.send(400, b'{"message": "Could not parse search query."}')
            return
        start = 0
        if "cursor" in query:
            start = int(base64.b64decode(query["cursor"][0]).decode().removeprefix("o="))
        step = min(int(query.get("limit", ["100"])[0]), archive.page)
        end = start + step
        cursor = base64.b64encode(f"o={end}".encode()).decode()
        kept = "&".join(f"{k}={quote(v[0])}" for k, v in query.items() if k != "cursor")
        more = f"{archive.url}/images/search/?{kept}&cursor={quote(cursor)}"
        self.say(
            {
                "results": [archive.entry(name) for name in archive.names[start:end]],
                "count": None if start else archive.count,
                "next": more if end < len(archive.names) else None,
                "previous": None,
            }
        )

    def say(self, answer: Any) -> None:
        """Send JSON."""
        self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send an answer."""
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    """Quiet about connections that clients break."""

    daemon_threads = True
    request_queue_size = 64  # the sixth connection at once would wait a second

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(archive: Archive) -> Iterator[Archive]:
    """Serve an archive at `archive.url` while the context lasts."""
    server = _Server(("127.0.0.1", 0), _Answers)
    server.archive = archive  # type: ignore[attr-defined]
    archive.url = f"http://127.0.0.1:{server.server_port}/api/v2"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
