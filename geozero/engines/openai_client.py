"""One OpenAI-compatible server over HTTP: which model it serves, completions, and what its errors mean."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from geozero.common.errors import InputError
from geozero.engines.serving.credentials import without_user
from geozero.engines.serving.served_model import ServedModel, choose

CONNECT_SECONDS = 30.0  # for a server to say which model it serves
MESSAGE_LENGTH = 200  # characters of a server's message
WRONG_ADDRESS = (401, 402, 403, 404, 405, 407)  # or no key, no credit: every request would be refused
TRANSIENT = (408, 425, 429, 502, 503, 504)  # the server is busy, away or starting; not the request's fault
IMAGE_PLACE = "geozero:image"  # stands in a body where the image's URL goes


@dataclass(slots=True)
class Server:
    """One server that has said what it serves."""

    url: str  # ends in /v1
    serves: ServedModel
    names: frozenset[str]  # all that it has for that model
    resting_until: float = 0.0  # monotonic seconds; until then other servers come first
    was_away: bool = False  # it may have come back with another model

    @property
    def model(self) -> str:
        """The server's name for the model."""
        return self.serves.name

    @property
    def vllm(self) -> bool:
        return self.serves.vllm


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


@dataclass(frozen=True)
class Body:
    """A chat completion's request: its fields, and an image that is encoded once however often it is sent."""

    fields: dict[str, Any]
    image: bytes = field(repr=False)  # its data URL

    def encoded(self, **fields: Any) -> bytes:
        """The JSON text, these fields added."""
        text = json.dumps(self.fields | fields).encode()
        return text.replace(f'"{IMAGE_PLACE}"'.encode(), b'"' + self.image + b'"', 1)


def connect(client: httpx.Client, url: str, path: Path, trusted: str | None = None) -> Server:
    """Find out whether a server serves the checkpoint at `path`.

    Args:
        trusted: the name of a served model that is taken for it, whatever it is.

    Raises:
        InputError: it is not there, is no such server, or serves another model.
    """
    try:
        reply = client.get(f"{url}/models", timeout=CONNECT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(
            f"no server answers: {type(error).__name__} {error}", url, "start it, or leave the address out"
        ) from None
    try:
        models = [ServedModel.of(row) for row in reply.json()["data"]]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        what = f"no OpenAI-compatible server: status {reply.status_code}: {message_of(reply)}"
        raise InputError(what, url, "check the address") from None
    chosen = choose(models, path, trusted, url)
    return Server(url, chosen, frozenset(one.name for one in models if one.root == chosen.root))


def is_up(client: httpx.Client, url: str) -> bool:
    """Whether a server answers at all."""
    try:
        return client.get(f"{url}/models", timeout=CONNECT_SECONDS).status_code == 200
    except httpx.TransportError:
        return False


def post(client: httpx.Client, server: Server, content: bytes) -> dict[str, Any]:
    """A chat completion, as the server sent it.

    Raises:
        RequestRefused, ServerFailed: see there.
        InputError: the address serves no chat completions, or no longer this model.
    """
    try:
        reply = client.post(
            f"{server.url}/chat/completions", content=content, headers={"Content-Type": "application/json"}
        )
    except httpx.TransportError as error:
        raise ServerFailed(f"{server.url} does not answer: {type(error).__name__} {error}", unreachable=True) from error
    status = reply.status_code
    if status in WRONG_ADDRESS or 300 <= status < 400:
        raise InputError(f"the server answers {status}: {message_of(reply)}", server.url, "check the address")
    if 400 <= status < 500 and status not in TRANSIENT:
        raise RequestRefused(f"refused: {message_of(reply)}")
    if status != 200:
        raise ServerFailed(f"{server.url} answers {status}: {message_of(reply)}", transient=status in TRANSIENT)
    try:
        found: dict[str, Any] = reply.json()
        _ = found["choices"][0]["message"]["content"], int(found["usage"]["completion_tokens"])
        _ = int(found["usage"]["prompt_tokens"]), [choice["message"].get("content") for choice in found["choices"]]
        if found.get("error") or not all(map(_has_tokens, found["choices"])):
            raise ValueError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ServerFailed(f"{server.url} answers rubbish: {message_of(reply)}") from None
    return found


def _has_tokens(choice: dict[str, Any]) -> bool:
    """Whether a choice's token ids, if it has any, can be some."""
    tokens = choice.get("token_ids")
    return tokens is None or (
        isinstance(tokens, list) and all(isinstance(token, int) and 0 <= token < 2**31 for token in tokens)
    )


def address(url: str) -> str:
    """A server's address, ending in `/v1`; without user and password, which `ServerAuth` sends.

    Raises:
        InputError: no http address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"no server's address: '{url}'", "--url", "write http://HOST:PORT")
    bare = without_user(url).rstrip("/")
    return bare if bare.endswith("/v1") else f"{bare}/v1"


def data_url(image: Image.Image | bytes) -> bytes:
    """The fitted image, lossless; or a JPEG or PNG file as it is."""
    if isinstance(image, bytes):
        kind = b"png" if image.startswith(b"\x89PNG") else b"jpeg"
        return b"data:image/" + kind + b";base64," + base64.b64encode(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return b"data:image/png;base64," + base64.b64encode(buffer.getvalue())


def message_of(reply: httpx.Response) -> str:
    """The beginning of what a server said, in one line."""
    return " ".join(reply.text.split())[:MESSAGE_LENGTH] or "nothing"
