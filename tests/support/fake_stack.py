"""Stands in for both servers of the stack: answers what `geozero stack` asks, keeps what it is told. Argument: port."""

from __future__ import annotations

import datetime
import http.server
import json
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    """Every pool has its worker online; a second work pool of a name is refused, as Prefect does."""

    known: dict[str, dict[str, object]] = {}  # noqa: RUF012
    asked: dict[str, int] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        self._answer(True)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = self.path.split("/")
        if self.path.endswith("/workers/filter"):
            pool = parts[-3]
            self.asked[pool] = self.asked.get(pool, 0) + 1
            beat = time.time() if self.asked[pool] > 2 else 0.0  # the third time it asks: workers take a while
            moment = datetime.datetime.fromtimestamp(beat, datetime.UTC).isoformat().replace("+00:00", "Z")
            self._answer([{"name": f"geozero-{pool}", "status": "ONLINE", "last_heartbeat_time": moment}])
        elif self.path.endswith("/filter"):
            self._answer([one for one in self.known.values() if ("trigger" in one) == ("automations" in body)])
        else:
            code = 409 if body["name"] in self.known else 201
            self.known.setdefault(body["name"], {"id": body["name"], **body})
            self._answer({}, code)

    def _answer(self, value: object, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
