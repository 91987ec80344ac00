"""An engine in a process of its own: it may die or hang without taking the caller along, and leaves no memory behind.

Run as a module this is that process; the two speak over a socket that nothing else writes to.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.engines.base import Answered, Completion, Engine, EngineDied, Request, SamplingParams

OPENER = "geozero.engines:open_engine"
CLOSE_SECONDS = 10.0
TAIL_SECONDS = 1.0

log = logging.getLogger(__name__)


class IsolatedEngine:
    """Opens an engine in a child process and passes every call on.

    Args:
        arguments: keyword arguments of the opener.
        timeout: seconds for opening, and for each call that gives or wants something.
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
        self._socket, self._line = ours, Connection(os.dup(ours.fileno()))
        try:
            self.name, self.reason, self._about = self._call("open", dict(arguments))
        except BaseException:
            self._end()
            raise

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """See `Engine.generate`.

        Raises:
            EngineDied: see the class.
        """
        answers: list[list[Completion]] = self._call("generate", list(requests), params)
        return answers

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """See `Engine.submit`; the child begins at once.

        Raises:
            EngineDied: see the class.
        """
        self._say("submit", list(requests), params)

    def collect(self, at_least: int = 1) -> list[Answered]:
        """See `Engine.collect`.

        Raises:
            EngineDied: see the class.
        """
        answers: list[Answered] = self._call("collect", at_least)
        return answers

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return dict(self._about)

    def close(self) -> None:
        """See `Engine.close`."""
        try:
            self._line.send(("close",))
            self._child.popen.wait(CLOSE_SECONDS)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            pass
        self._end()

    def _say(self, *words: Any) -> None:
        try:
            # what hangs does not read, and images are more than the line holds
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *_parts(self.timeout)))
            self._line.send(words)
        except BlockingIOError:
            self._hung()
        except (OSError, ValueError):
            self._cut()

    def _call(self, *words: Any) -> Any:
        deadline = time.monotonic() + self.timeout
        self._say(*words)
        try:
            kind, value = "note", ""
            while kind == "note":
                if not self._line.poll(max(0.0, deadline - time.monotonic())):
                    self._hung("not ready" if words[0] == "open" else "no answer")
                kind, value = self._line.recv()
                if kind == "note":
                    log.warning("%s", value)
        except (OSError, EOFError, ValueError):
            self._cut()
        if kind == "answer":
            return value
        self._end()
        raise _fault(kind, value)

    def _hung(self, what: str = "no answer") -> NoReturn:
        self._end()
        raise EngineDied(f"{what} within {self.timeout:g} s (sampling.timeout)") from None

    def _cut(self) -> NoReturn:
        """The line to the child is cut: what it said last is the reason, or else how its process ended."""
        said = self._unread()
        with suppress(subprocess.TimeoutExpired):  # its own exit code tells more than that of our signal
            self._child.popen.wait(TAIL_SECONDS)
        self._end()
        if said is not None:
            raise _fault(*said) from None
        raise EngineDied(f"its process {_ending(self._child.popen.returncode)}{self._last_words()}") from None

    def _unread(self) -> tuple[str, Any] | None:
        """What a child that fails while nobody waits has said of it."""
        try:
            while self._line.poll():
                kind, value = self._line.recv()
                if kind in ("refused", "failed"):
                    return kind, value
                if kind == "note":
                    log.warning("%s", value)
        except (OSError, EOFError, ValueError):
            pass
        return None

    def _end(self) -> None:
        self._child.end()
        self._line.close()
        self._socket.close()

    def _last_words(self) -> str:
        said = [line for line in self._child.tail if line.strip() and "Warning" not in line]
        return f": {said[-1][:300]}" if said else ""


class Notes(logging.Handler):
    """Sends our own warnings to the caller, ahead of the answer that they belong to."""

    def __init__(self, line: Connection) -> None:
        super().__init__(logging.WARNING)
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread() is threading.main_thread():  # two at a time would mix on the line
            self._line.send(("note", " ".join(record.getMessage().split())))


def _fault(kind: str, value: Any) -> Exception:
    return InputError(*value) if kind == "refused" else EngineDied(value)


def _ending(code: int | None) -> str:
    """How a process came to its end, in words."""
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"
    return f"ended with code {code}"


def _parts(seconds: float) -> tuple[int, int]:
    """Whole seconds and microseconds."""
    return int(seconds), int(seconds % 1 * 1e6)


def serve(line: Connection, opener: str) -> None:
    """Open the engine and answer until the caller says `close` or is gone."""
    module, _, function = opener.partition(":")
    logging.getLogger("geozero").addHandler(Notes(line))
    engine: Engine | None = None
    owed, done = 0, list[Answered]()
    while True:
        try:
            while engine is not None and len(done) < owed and not line.poll():
                done += engine.collect(0)  # no need to wait until the caller asks for it
            word, *values = line.recv()
            if word == "open":
                engine = opened = getattr(importlib.import_module(module), function)(**values[0])
                line.send(("answer", (opened.name, opened.reason, opened.describe())))
            elif engine is None or word == "close":
                if engine is not None:
                    engine.close()
                return
            elif word == "generate":
                line.send(("answer", engine.generate(*values)))
            elif word == "submit":
                engine.submit(*values)
                owed += len(values[0])
            elif word == "collect":
                while len(done) < min(values[0], owed):
                    done += engine.collect()
                line.send(("answer", done))
                owed, done = owed - len(done), []
        except EOFError:
            return
        except InputError as error:
            line.send(("refused", (error.what, error.where, error.hint)))
            return
        except Exception as error:  # whatever a library fails with: the caller decides whether to start another one
            line.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
            raise


if __name__ == "__main__":
    process_tags.end_with_owner()
    serve(Connection(int(sys.argv[1])), sys.argv[2])
