"""How we log in to servers: the user and password of an address, else the key in `GEOZERO_API_KEY`."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Generator, Sequence
from urllib.parse import unquote, urlsplit

import httpx

API_KEY = "GEOZERO_API_KEY"  # environment variable: never on a command line, which everybody on the machine can read


def own_key() -> str:
    """The key of a server that we start: the user's, or one that nobody else knows."""
    return os.environ.get(API_KEY) or secrets.token_urlsafe(24)


class ServerAuth(httpx.Auth):
    """Adds the header of the server that a request goes to; a redirect elsewhere gets none.

    Args:
        urls: the servers' addresses, as the user gave them.
        key: for those without a user of their own; None: `GEOZERO_API_KEY`, if it is set.
    """

    def __init__(self, urls: Sequence[str], key: str | None = None) -> None:
        key = key or os.environ.get(API_KEY)
        self._headers: dict[tuple[str, int | None], str] = {}
        for url in urls:
            parts = urlsplit(url)
            origin = httpx.URL(without_user(url))
            if parts.username:
                login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                self._headers[origin.host, origin.port] = f"Basic {base64.b64encode(login.encode()).decode()}"
            elif key:
                self._headers[origin.host, origin.port] = f"Bearer {key}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        header = self._headers.get((request.url.host, request.url.port))
        if header is not None:
            request.headers["Authorization"] = header
        yield request


def without_user(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
