"""The answers of one output: a file beside it that grows by whole chunks and survives `kill -9`.

`OUTPUT.<key>.jsonl`: the key is the hash of what decides the answers besides their questions (model, sampling,
limits), so that another model or other settings write another file. The first line holds these values; each further
line is one chunk. A line that was cut off is a chunk that was not written.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from geozero.common.atomic import make_parent
from geozero.common.errors import InputError, refusal
from geozero.corpus.sample import digest
from geozero.engines.base import Completion

KEY_DIGITS = 12
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # some cluster file systems: two processes are the user's care
HINT = "delete it to generate the answers again"


class AnswerLog:
    """Open in one process at a time, as a context manager.

    `answers` holds everything in the log, by question key; `n_new` counts the questions answered since it was opened,
    failed requests excluded.

    Args:
        out: the output that the answers are for; the log lies beside it.
        identity: what decides the answers besides their questions, as JSON values.
        wait: wait for another process that writes this log, instead of refusing.

    Raises:
        InputError: another process writes it, it is damaged or of another identity, or the disk refuses.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], wait: bool = False) -> None:
        text = json.dumps(identity, sort_keys=True)
        key = digest(text.encode())[:KEY_DIGITS]
        self.path, self.identity, self.wait = out.with_name(f"{out.name}.{key}.jsonl"), json.loads(text), wait
        self.answers: dict[str, list[Completion]] = {}
        self.n_new = 0

    def __enter__(self) -> AnswerLog:
        try:
            make_parent(self.path)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise refusal(error, self.path) or error from None
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, answers: Mapping[str, list[Completion]], engine: Mapping[str, Any]) -> None:
        """Add one chunk, on the disk when this returns; `engine` describes what answered."""
        rows = {key: [astuple(one) for one in completions] for key, completions in answers.items()}
        self._write({"engine": engine, "answers": rows})
        self.answers.update(answers)
        self.n_new += sum(failure(completions) is None for completions in answers.values())

    def others(self) -> list[Path]:
        """Logs that other models or settings left beside the same output."""
        stem = self.path.name.removesuffix(".jsonl")[:-KEY_DIGITS]
        beside = self.path.parent.glob(f"{glob.escape(stem)}{'[0-9a-f]' * KEY_DIGITS}.jsonl")
        return sorted(path for path in beside if path != self.path)

    def _lock(self) -> None:
        """Keep other processes out; whatever ends this process frees the lock."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError("another process is answering these questions", str(self.path), "wait for it") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    def _read(self) -> None:
        """Read the whole lines and cut off what a killed writer left after them."""
        data = self.path.read_bytes()
        *lines, torn = data.split(b"\n")
        if torn:
            os.ftruncate(self._file, len(data) - len(torn))
        if not lines:
            self._write({"identity": self.identity})
            return
        try:
            if json.loads(lines[0])["identity"] != self.identity:
                raise InputError("these answers are of another model or other settings", str(self.path), HINT)
            for line in lines[1:]:
                for key, rows in json.loads(line)["answers"].items():
                    self.answers[key] = [Completion(*row) for row in rows]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError("the answer log is damaged", str(self.path), HINT) from None

    def _write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            raise refusal(error, self.path) or error from None


def failure(completions: list[Completion]) -> str | None:
    """Why one of a request's completions is no answer of the model, the first such reason; None if all are."""
    return next((one.error or "no reason given" for one in completions if not one.is_answer), None)
