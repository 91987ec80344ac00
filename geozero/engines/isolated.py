"""An engine in a process of its own: it may die or hang without the caller, and its memory goes with it.

Run as a module this is that process; the two exchange messages over a socket that nothing else writes to.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from subprocess import TimeoutExpired
from typing import Any, NoReturn

from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.engines.base import Answered, Completion, Engine, EngineDied, Request, SamplingParams, ending

OPENER = "geozero.engines:open_engine"
CLOSE_SECONDS = 10.0

log = logging.getLogger(__name__)


class IsolatedEngine(Engine):
    """Opens an engine in a child process and forwards every call.

    Args:
        arguments: keyword arguments of the opener.
        timeout: seconds for opening, and for each call.
        opener: `module:function` that opens an engine in the child.

    Raises:
        InputError: what `open_engine` raises.
        EngineDied: the child ended or did not answer in time, now or in a later call; it is gone then.
    """

    def __init__(self, arguments: Mapping[str, Any], timeout: float, opener: str = OPENER) -> None:
        self.timeout = timeout
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), opener]
            self._child = process.Child(command, on_line=partial(log.debug, "%s"), pass_fds=(theirs.fileno(),))
        self._socket, self._connection = ours, Connection(os.dup(ours.fileno()))
        try:
            self.name, self.reason, self._description = self._call("open", dict(arguments))
        except BaseException:
            self._end()
            raise

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        answers: list[list[Completion]] = self._call("generate", list(requests), params)
        return answers

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        self._send("submit", list(requests), params)

    def collect(self, at_least: int = 1) -> list[Answered]:
        answers: list[Answered] = self._call("collect", at_least)
        return answers

    def describe(self) -> dict[str, Any]:
        return dict(self._description)

    def close(self) -> None:
        try:
            self._connection.send(("close",))
            self._child.popen.wait(CLOSE_SECONDS)
        except (OSError, ValueError, TimeoutExpired):
            pass
        self._end()

    def _send(self, *message: Any) -> None:
        try:
            # a child that hangs does not read, and images are more than the socket buffers
            limit = struct.pack("ll", int(self.timeout), int(self.timeout % 1 * 1e6))  # seconds, microseconds
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._connection.send(message)
        except BlockingIOError:
            self._hung()
        except (OSError, ValueError):
            self._disconnected()

    def _call(self, *message: Any) -> Any:
        deadline = time.monotonic() + self.timeout
        self._send(*message)
        reply = None
        try:
            while reply is None:
                if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                    self._hung("not ready" if message[0] == "open" else "no answer")
                reply = self._receive()
        except (OSError, EOFError, ValueError):
            self._disconnected()
        kind, value = reply
        if kind == "answer":
            return value
        self._end()
        raise _error(kind, value)

    def _receive(self) -> tuple[str, Any] | None:
        """The next message; None for a warning, which is logged."""
        kind, value = self._connection.recv()
        if kind == "warning":
            log.warning("%s", value)
            return None
        return kind, value

    def _hung(self, what: str = "no answer") -> NoReturn:
        self._end()
        raise EngineDied(f"{what} within {self.timeout:g} s (sampling.timeout)") from None

    def _disconnected(self) -> NoReturn:
        """The connection is closed: the child's last message is the reason, or else how its process ended."""
        error: Exception | None = None
        try:
            while error is None and self._connection.poll():
                message = self._receive()
                if message is not None and message[0] != "answer":
                    error = _error(*message)
        except (OSError, EOFError, ValueError):
            pass
        reason = ending(self._child)
        self._end()
        raise error or EngineDied(f"its process {reason}") from None

    def _end(self) -> None:
        self._child.end()
        self._connection.close()
        self._socket.close()


class ForwardWarnings(logging.Handler):
    """Sends our own warnings to the caller, ahead of the answer that they belong to."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.WARNING)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread() is threading.main_thread():  # two at a time would mix on the connection
            self._connection.send(("warning", " ".join(record.getMessage().split())))


def _error(kind: str, value: Any) -> Exception:
    return InputError(*value) if kind == "refused" else EngineDied(value)


def serve(connection: Connection, opener: str) -> None:
    """Open the engine and answer until the caller sends `close` or is gone."""
    module, _, function = opener.partition(":")
    logging.getLogger("geozero").addHandler(ForwardWarnings(connection))
    engine: Engine | None = None
    pending, done = 0, list[Answered]()
    while True:
        try:
            while engine is not None and len(done) < pending and not connection.poll():
                done += engine.collect(0)  # no need to wait until the caller asks for it
            kind, *values = connection.recv()
            if kind == "open":
                engine = opened = getattr(importlib.import_module(module), function)(**values[0])
                connection.send(("answer", (opened.name, opened.reason, opened.describe())))
            elif engine is None or kind == "close":
                if engine is not None:
                    engine.close()
                return
            elif kind == "generate":
                connection.send(("answer", engine.generate(*values)))
            elif kind == "submit":
                engine.submit(*values)
                pending += len(values[0])
            elif kind == "collect":
                while len(done) < min(values[0], pending):
                    done += engine.collect()
                connection.send(("answer", done))
                pending, done = pending - len(done), []
        except EOFError:
            return
        except InputError as error:
            connection.send(("refused", (error.what, error.where, error.hint)))
            return
        except Exception as error:  # whatever a library fails with: the caller decides whether to start another one
            connection.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
            raise


if __name__ == "__main__":
    process_tags.end_with_owner()
    serve(Connection(int(sys.argv[1])), sys.argv[2])
