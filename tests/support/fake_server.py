"""A small HTTP server that stands for an OpenAI-compatible one (fake: it holds no model); it can misbehave at will."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROMPT_TOKENS = 12
Answer = tuple[int, Any]  # status; a JSON value or plain text


def complete(body: dict[str, Any]) -> Answer:
    """A fitting answer: it names the seed that it was drawn with; of n completions each has the next seed."""
    draw = body.get("vllm_xargs", {}).get("geozero_draw")
    first, n = draw[0] if draw else body.get("seed", "greedy"), body.get("n", 1)
    choices: list[dict[str, Any]] = []
    for i in range(n):
        seed = first + i if isinstance(first, int) else first
        choices.append({"message": {"role": "assistant", "content": f"answer {seed}"}, "finish_reason": "stop"})
        if body.get("return_token_ids"):
            # as our sampler inside vLLM would: the draw's seed decides; without it the answer is always the same
            choices[-1]["token_ids"] = [seed if isinstance(seed, int) else 1, 5, 0]
    return 200, {"choices": choices, "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 3 * n}}


def identify(digits: str) -> Callable[[dict[str, Any]], Answer]:
    """As our sampler inside vLLM: a request for the identity of the weights is answered with these digits."""

    def rule(body: dict[str, Any]) -> Answer:
        status, found = complete(body)
        if "geozero_identity" in body.get("vllm_xargs", {}):
            found["choices"][0]["token_ids"] = [int(digit, 16) for digit in digits]
        return status, found

    return rule


class FakeServer:
    """Answers `/v1/models` with `models` and completions with `rule(body)`; keeps what it was asked."""

    def __init__(
        self, rule: Callable[[dict[str, Any]], Answer] = complete, models: Any = None, owned_by: str = "somebody"
    ) -> None:
        self.rule, self.closed = rule, False
        self.asked: list[dict[str, Any]] = []
        self.models = {"data": [{"id": "m", "owned_by": owned_by, "max_model_len": 512}]} if models is None else models
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply((200, fake.models) if self.path == "/v1/models" else (404, "nothing here"))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if fake.closed:  # a connection that was kept alive
                    self.close_connection = True
                    return
                fake.asked.append(body)
                self.reply(fake.rule(body) if self.path == "/v1/chat/completions" else (404, "nothing here"))

            def reply(self, answer: Answer) -> None:
                status, value = answer
                data = (value if isinstance(value, str) else json.dumps(value)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                with contextlib.suppress(ConnectionError):  # whoever asked may have lost patience
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
