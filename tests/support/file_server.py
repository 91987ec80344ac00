"""A small HTTP server for downloads: files with ranges and validators, and a stand-in for the Hugging Face hub.

It can misbehave: cut connections, forget ranges, answer with errors or web pages, change a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FileServer:
    """Serves `files` by path. Use as a context manager.

    Attributes:
        cuts: bytes after which the next answers with content break off, one entry per answer.
        errors: status codes of the next answers with content, before anything else.
        asked: (method, path, Range header) of each request.
        repositories: of the hub, name → path → content; those in `large` are listed with a SHA-256, as Git LFS files.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.cuts: list[int] = []
        self.errors: list[int] = []
        self.asked: list[tuple[str, str, str | None]] = []
        self.ranges, self.validator, self.kind = True, "etag", "application/octet-stream"
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.lies: dict[str, dict[str, Any]] = {}  # repository → what its listing says instead
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(with_content=False)

            def do_GET(self) -> None:
                self.answer(with_content=True)

            def answer(self, with_content: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                server.asked.append((self.command, path, self.headers.get("Range")))
                if path.startswith("/api/datasets/"):
                    self.listing(path.removeprefix("/api/datasets/"))
                elif path.startswith("/datasets/"):
                    repository, _, name = path.removeprefix("/datasets/").partition("/resolve/")
                    name = name.partition("/")[2]
                    self.content(server.repositories.get(repository, {}).get(name), with_content, hub=True)
                else:
                    self.content(server.files.get(path), with_content)

            def listing(self, path: str) -> None:
                repository = "/".join(path.split("/")[:2])
                known = server.repositories.get(repository)
                if known is None:
                    return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                if "/tree/" not in path:
                    return self.json({"id": repository, "sha": COMMIT, "siblings": [{"rfilename": n} for n in known]})
                entries = [entry_of(name, data) | server.lies.get(repository, {}) for name, data in known.items()]
                return self.json(entries)

            def json(self, value: Any) -> None:
                self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

            def content(self, data: bytes | None, with_content: bool, hub: bool = False) -> None:
                if with_content and server.errors:
                    return self.send(server.errors.pop(0), b"", {})
                if data is None:
                    return self.send(404, b"not here", {"X-Error-Code": "EntryNotFound"} if hub else {})
                tag = '"' + hashlib.sha256(data).hexdigest() + '"'
                headers = {"Content-Type": server.kind} | ({"X-Repo-Commit": COMMIT} if hub else {})
                if hub or server.validator == "etag":
                    headers["ETag"] = tag
                elif server.validator == "date":
                    headers["Last-Modified"] = "Mon, 30 Nov 2026 00:00:00 GMT"
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                begin = int(wanted[1]) if wanted and server.ranges else 0
                if self.headers.get("If-Range") not in (None, headers.get("ETag"), headers.get("Last-Modified")):
                    begin = 0
                if begin and begin >= len(data):
                    return self.send(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
                if begin:
                    headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
                return self.send(206 if begin else 200, data[begin:], headers, cuttable=True)

            def send(self, status: int, data: bytes, headers: dict[str, str], cuttable: bool = False) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    cut = server.cuts.pop(0) if server.cuts and cuttable and data else len(data)
                    with contextlib.suppress(OSError):
                        self.wfile.write(data[:cut])
                    self.close_connection = cut < len(data)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def entry_of(name: str, data: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": blob}
    if name.endswith((".zip", ".parquet", ".tar", ".rar")):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry
