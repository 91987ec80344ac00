"""One OpenAI-compatible server over HTTP: which model it holds, one completion of it, and what its faults mean."""

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
from geozero.engines.prompts import IMAGE_MARK

LOOK_SECONDS = 30.0  # for a server to say which model it holds
SHOWN = 200  # characters of what a server said
NO_SUCH = (401, 403, 404, 405)
PASSING = (408, 425, 429, 502, 503, 504)  # the server is busy, away or being started; no request's own fault


@dataclass(slots=True)
class Server:
    """One server that has shown what it is."""

    url: str  # ends in /v1
    model: str  # what it calls its model
    vllm: bool
    max_length: int | None
    resting: float = 0.0  # until then (monotonic seconds) others are asked first


class Refused(Exception):
    """A server said no to one request, for good (400 and the like)."""


class UnfitServer(Exception):
    """A server did not answer, or answered with a fault of its own or with rubbish; another try may help.

    Args:
        passing: it is the server that is unwell, whatever it is asked.
        silent: it could not be reached, or said nothing in time.
    """

    def __init__(self, text: str, *, passing: bool = False, silent: bool = False) -> None:
        self.passing, self.silent = passing or silent, silent
        super().__init__(text)


def look(client: httpx.Client, url: str, path: Path) -> Server:
    """Which model a server holds.

    Raises:
        InputError: it is not there, is no such server, or holds several models.
    """
    try:
        reply = client.get(f"{url}/models", timeout=LOOK_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(
            f"no server answers: {type(error).__name__} {error}", url, "start it, or leave the address out"
        ) from None
    try:
        models = {str(row["id"]): row for row in reply.json()["data"]}
    except (ValueError, KeyError, TypeError):
        fault = f"no OpenAI-compatible server: status {reply.status_code}: {server_message(reply)}"
        raise InputError(fault, url, "check the address") from None
    named = [name for name in models if name in (str(path), path.name)]
    (name, *others) = named or list(models) or [""]
    if others or not name:
        raise InputError(f"the server holds {', '.join(models) or 'no model'}", url, f"start it with {path.name} alone")
    row = models[name]
    length = row.get("max_model_len")
    return Server(url, name, row.get("owned_by") == "vllm", int(length) if length else None)


def post(client: httpx.Client, server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """One chat completion, as the server sent it.

    Raises:
        Refused: see there.
        Unfit: see there.
        InputError: the address is no chat completion's.
    """
    try:
        reply = client.post(f"{server.url}/chat/completions", json=body)
    except httpx.TransportError as error:
        raise UnfitServer(f"{server.url} does not answer: {type(error).__name__} {error}", silent=True) from error
    if reply.status_code in NO_SUCH:
        raise InputError(
            f"the server answers {reply.status_code}: {server_message(reply)}", server.url, "check the address"
        )
    if 400 <= reply.status_code < 500 and reply.status_code not in PASSING:
        raise Refused(f"refused: {server_message(reply)}")
    if reply.status_code != 200:
        passing = reply.status_code in PASSING
        raise UnfitServer(f"{server.url} answers {reply.status_code}: {server_message(reply)}", passing=passing)
    try:
        found: dict[str, Any] = reply.json()
        _ = found["choices"][0]["message"]["content"], int(found["usage"]["completion_tokens"])
        _ = found["choices"][0]["finish_reason"], int(found["usage"]["prompt_tokens"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise UnfitServer(f"{server.url} answers rubbish: {server_message(reply)}") from None
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
    """The fitted image, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def parts(content: str, image: str) -> str | list[dict[str, Any]]:
    """A turn's text in OpenAI's form."""
    if IMAGE_MARK not in content:
        return content
    found: list[dict[str, Any]] = []
    for number, text in enumerate(content.split(IMAGE_MARK)):
        if number:
            found.append({"type": "image_url", "image_url": {"url": image}})
        if text:
            found.append({"type": "text", "text": text})
    return found


def server_message(reply: httpx.Response) -> str:
    return " ".join(reply.text.split())[:SHOWN] or "nothing"
