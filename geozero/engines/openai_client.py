"""One OpenAI-compatible server over HTTP: which model it serves, one completion, and what its errors mean."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from geozero.common.errors import InputError

CONNECT_SECONDS = 30.0  # for a server to say which model it serves
MESSAGE_LENGTH = 200  # characters of a server's message
WRONG_ADDRESS = (401, 403, 404, 405)
TRANSIENT = (408, 425, 429, 502, 503, 504)  # the server is busy, away or starting; not the request's fault


@dataclass(slots=True)
class Server:
    """One server that has said what it serves."""

    url: str  # ends in /v1
    model: str  # its name for the model
    vllm: bool
    max_length: int | None
    resting_until: float = 0.0  # monotonic seconds; until then other servers come first


class RequestRefused(Exception):
    """A server refused one request for good (400 and the like)."""


class ServerFailed(Exception):
    """A server did not answer, or answered with an error of its own or with rubbish; a retry may help.

    Args:
        transient: the server is unwell, whatever it is sent.
        unreachable: it could not be reached, or sent nothing in time.
    """

    def __init__(self, text: str, *, transient: bool = False, unreachable: bool = False) -> None:
        self.transient, self.unreachable = transient or unreachable, unreachable
        super().__init__(text)


def connect(client: httpx.Client, url: str, path: Path) -> Server:
    """Find out which model a server serves.

    Raises:
        InputError: it is not there, is no such server, or serves several models.
    """
    try:
        reply = client.get(f"{url}/models", timeout=CONNECT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(
            f"no server answers: {type(error).__name__} {error}", url, "start it, or leave the address out"
        ) from None
    try:
        models = {str(row["id"]): row for row in reply.json()["data"]}
    except (ValueError, KeyError, TypeError):
        what = f"no OpenAI-compatible server: status {reply.status_code}: {_message(reply)}"
        raise InputError(what, url, "check the address") from None
    named = [name for name in models if name in (str(path), path.name)]
    (name, *others) = named or list(models) or [""]
    if others or not name:
        what = f"the server holds {', '.join(models) or 'no model'}"
        raise InputError(what, url, f"start it with {path.name} alone")
    row = models[name]
    length = row.get("max_model_len")
    return Server(url, name, row.get("owned_by") == "vllm", int(length) if length else None)


def post(client: httpx.Client, server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """One chat completion, as the server sent it.

    Raises:
        RequestRefused, ServerFailed: see there.
        InputError: the address serves no chat completions.
    """
    try:
        reply = client.post(f"{server.url}/chat/completions", json=body)
    except httpx.TransportError as error:
        raise ServerFailed(f"{server.url} does not answer: {type(error).__name__} {error}", unreachable=True) from error
    status = reply.status_code
    if status in WRONG_ADDRESS:
        raise InputError(f"the server answers {status}: {_message(reply)}", server.url, "check the address")
    if 400 <= status < 500 and status not in TRANSIENT:
        raise RequestRefused(f"refused: {_message(reply)}")
    if status != 200:
        raise ServerFailed(f"{server.url} answers {status}: {_message(reply)}", transient=status in TRANSIENT)
    try:
        found: dict[str, Any] = reply.json()
        _ = found["choices"][0]["message"]["content"], int(found["usage"]["completion_tokens"])
        _ = found["choices"][0]["finish_reason"], int(found["usage"]["prompt_tokens"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise ServerFailed(f"{server.url} answers rubbish: {_message(reply)}") from None
    return found


def address(url: str) -> str:
    """A server's address, ending in `/v1`.

    Raises:
        InputError: no http address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"no server's address: '{url}'", "--url", "write http://HOST:PORT")
    bare = url.rstrip("/")
    return bare if bare.endswith("/v1") else f"{bare}/v1"


def data_url(image: Image.Image) -> str:
    """The fitted image, lossless."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _message(reply: httpx.Response) -> str:
    return " ".join(reply.text.split())[:MESSAGE_LENGTH] or "nothing"
