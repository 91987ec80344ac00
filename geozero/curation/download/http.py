"""Files over HTTP: pooch verifies and retries, this downloader for it resumes what was broken off.

What has arrived lies in `.NAME.part` beside the file, with the server's validator (ETag or date) in `.NAME.part.tag`.
A later attempt, also in another process, asks for the rest only, and starts over if the file has changed there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from geozero.common.errors import InputError, refusal
from geozero.sources.catalogue import RemoteFile

TRIES = 4  # without a byte of progress in between
PAUSE = 1.0  # seconds after the first of these, doubled after each further one
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two blocks
BLOCK = 1 << 16  # a cut connection costs at most one
RESUME_HINT = "run the command again: it continues where it stopped"
GIT_BLOB = "git:"  # before a hash of git's, which the hub has for small files
_PARTIAL, _BEYOND = 206, 416
_TRANSIENT = (408, 425, 429)


def fetch_file(
    file: RemoteFile,
    into: Path,
    on_bytes: Callable[[int, int], object],
    stop: threading.Event,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Fetch a file into a directory unless it is there and right. Returns how it was verified.

    Args:
        on_bytes: takes the bytes that have just arrived, and how many are known to come (once per attempt, with 0
            arrived).
        stop: ends the download early; what has arrived is kept.
        headers: of each request, such as a login.

    Raises:
        InputError: the server refuses, cannot be reached or sends something else; no room; another process is at it.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    target, git = into / file.name, (file.hash or "").startswith(GIT_BLOB)
    known = None if git else file.hash  # pooch does not know git's
    keeper = pooch.create(
        into, base_url="", registry={file.name: known}, urls={file.name: file.url}, retry_if_failed=1
    )  # a second time in case what was resumed was damaged
    downloader = ResumingDownloader(target, file, on_bytes, stop, headers or {})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if known is None and target.is_file() and not _may_be(target, file):
            target.unlink()  # pooch would take it as it is
        keeper.fetch(file.name, downloader=downloader)
        if git and not _may_be(target, file):
            target.unlink()
            raise ValueError
    except requests.RequestException as error:
        raise InputError(f"cannot be fetched: {_reason(error)}", file.url, RESUME_HINT) from None
    except ValueError:
        hint = "the file on the server is another one now, or a proxy changes it; try another way of the data set"
        raise InputError(f"does not have the published checksum {file.hash}", file.url, hint) from None
    except OSError as error:
        refused = refusal(error, target)
        if refused is None:
            raise
        raise InputError(refused.what, str(target), f"{refused.hint}; then {RESUME_HINT}") from None
    if file.hash:
        return "size and checksum" if file.bytes else file.hash.partition(":")[0]
    return "size" if file.bytes else "not verified: no checksum is published"


class ResumingDownloader:
    """A downloader for `pooch.Pooch.fetch` that keeps what has arrived and asks for the rest."""

    def __init__(
        self,
        target: Path,
        file: RemoteFile,
        on_bytes: Callable[[int, int], object],
        stop: threading.Event,
        headers: Mapping[str, str],
    ) -> None:
        self._part = target.with_name(f".{target.name}.part")
        self._tag = target.with_name(f".{target.name}.part.tag")
        self._file, self._on_bytes, self._stop, self._headers = file, on_bytes, stop, headers

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download `url` and place it at `output_file`."""
        import requests

        with self._part.open("ab") as part:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError("another process is fetching this file", str(self._part), "wait for it") from None
            failures = 0
            while True:
                before = part.seek(0, os.SEEK_END)
                try:
                    if self._attempt(url, part, before):
                        break
                except requests.RequestException as error:
                    failures = 0 if part.seek(0, os.SEEK_END) > before else failures + 1
                    if failures == TRIES or not _is_transient(error):
                        raise
                    self._stop.wait(PAUSE * 2**failures)
            size = part.seek(0, os.SEEK_END)
            if self._file.bytes and size != self._file.bytes:
                self._forget()
                raise InputError(f"has {size} bytes, not the published {self._file.bytes}", url, "try another way")
            os.replace(self._part, output_file)
            self._forget()

    def _attempt(self, url: str, part: IO[bytes], have: int) -> bool:
        """Append what is missing; False if it has to start over from nothing."""
        import requests

        tag = self._tag.read_text() if self._tag.is_file() else ""
        if have and not (tag or self._file.hash):
            part.truncate(have := 0)  # nothing tells whether the rest belongs to the same file
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == _BEYOND and have:
                if response.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return True
                part.truncate(0)
                return False
            response.raise_for_status()
            if response.status_code == _PARTIAL:
                begin = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
                if begin is None or int(begin[1]) != have:
                    part.truncate(0)
                    return False
            else:
                part.truncate(have := 0)
            self._check_kind(url, response.headers.get("Content-Type", ""))
            self._remember(response.headers)
            length = int(response.headers.get("Content-Length") or 0)
            self._check_room(length)
            self._on_bytes(0, length)
            for block in response.iter_content(BLOCK):
                if self._stop.is_set():
                    raise InputError("stopped", url, RESUME_HINT)
                part.write(block)
                part.flush()
                self._on_bytes(len(block), 0)
        return True

    def _check_kind(self, url: str, kind: str) -> None:
        """Refuse a page for people, as a login, a quota notice or a captive portal sends it instead of the file."""
        if kind.startswith("text/html") and not self._file.name.endswith((".html", ".htm")):
            raise InputError("the server sends a web page instead of the file", url, "open the address in a browser")

    def _check_room(self, length: int) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if length > free:
            what = f"no room: {length / 1e9:.1f} GB to come, {free / 1e9:.1f} GB free"
            raise InputError(what, str(self._part.parent), f"make room; then {RESUME_HINT}")

    def _remember(self, headers: Any) -> None:
        tag = headers.get("ETag", "")
        tag = headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag  # weak ones cannot resume
        if tag:
            self._tag.write_text(tag)
        else:
            self._tag.unlink(missing_ok=True)

    def _forget(self) -> None:
        for path in (self._part, self._tag):
            path.unlink(missing_ok=True)


def _may_be(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the size, and git's hash, where these are known."""
    if file.bytes is not None and path.stat().st_size != file.bytes:
        return False
    if not (file.hash or "").startswith(GIT_BLOB):
        return True
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes(), usedforsecurity=False)
    return blob.hexdigest() == (file.hash or "").removeprefix(GIT_BLOB)


def _is_transient(error: Exception) -> bool:
    response = getattr(error, "response", None)
    return response is None or response.status_code in _TRANSIENT or response.status_code >= 500


def _reason(error: Exception) -> str:
    """What went wrong in a few words: requests puts whole tracebacks of urllib3 into its messages."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"{response.status_code} {response.reason}"
    name = type(error).__name__
    return {"ConnectTimeout": "no answer", "ReadTimeout": "no answer"}.get(name, f"the connection failed ({name})")
