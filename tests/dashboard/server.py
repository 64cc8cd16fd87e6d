"""A W&B server in a thread: answers what `wandb sync` asks for and keeps what it was sent."""

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40


class Received:
    """What came: runs by id, lines of their history, names of files."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.files: list[str] = []
        self.requests = 0

    def bucket(self, name: str) -> dict[str, Any] | None:
        """A run as GraphQL gives it; None before it was made."""
        if name not in self.runs:
            return None
        project = {"id": "p", "name": "isic", "entity": {"id": "e", "name": "me"}}
        lines = [json.dumps(line) for _, line in sorted(self.history.get(name, {}).items())]
        return {
            **dict.fromkeys(("description", "config", "sweepName", "summaryMetrics", "notes")),
            "id": name,
            "name": name,
            "displayName": name,
            "project": project,
            "tags": [],
            "historyLineCount": len(lines),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps(lines[-1:]),
            "eventsTail": "[]",
            "wandbConfig": "{}",
        }

    def answer(self, operation: str, values: dict[str, Any], address: str) -> dict[str, Any]:
        """The data of a GraphQL query."""
        if operation == "RunResumeStatus":
            model = {"id": "p", "name": "isic", "entity": {"id": "e", "name": "me"}}
            return {"model": {**model, "bucket": self.bucket(values["name"])}}
        if operation == "UpsertBucket":
            new = values["name"] not in self.runs
            known = self.runs.setdefault(values["name"], {})
            known |= {key: value for key, value in values.items() if value is not None}
            return {"upsertBucket": {"bucket": self.bucket(values["name"]), "inserted": new}}
        if operation == "CreateRunFiles":
            self.files += values["files"]
            files = [{"name": f, "uploadUrl": f"{address}/up/{f}"} for f in values["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}

    def stream(self, path: str, body: dict[str, Any]) -> None:
        """Lines of a run's history, each at its place."""
        if (found := re.search(r"/([^/]+)/file_stream", path)) and body.get("files"):
            part = body["files"].get("wandb-history.jsonl", {"offset": 0, "content": []})
            lines = self.history.setdefault(found[1], {})
            lines |= {part["offset"] + i: json.loads(t) for i, t in enumerate(part["content"])}


@contextmanager
def dashboard() -> Iterator[tuple[Received, dict[str, str]]]:
    """The server, and the environment of a client of it."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            received.requests += 1
            data: dict[str, Any] = {"exitcode": None, "limits": {}}
            if self.path == "/graphql":
                asked = json.loads(body)
                values = asked.get("variables") or {}
                data = {"data": received.answer(asked.get("operationName"), values, address)}
            elif "file_stream" in self.path:
                received.stream(self.path, json.loads(body))
            text = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_PUT(self) -> None:
            self.do_POST()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received, {"WANDB_BASE_URL": address, "WANDB_API_KEY": KEY}
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent() -> Iterator[tuple[list[Any], dict[str, str]]]:
    """A server that accepts every connection and never says a word."""
    connections: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield connections, {"WANDB_BASE_URL": address, "WANDB_API_KEY": KEY}
        for connection, _ in connections:
            connection.close()
