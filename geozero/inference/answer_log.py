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
        part: one of several processes that answer for this output side by side, each in a log of its own, which the
            next process without a part takes over.

    Raises:
        InputError: another process writes it, it is damaged or of another identity, or the disk refuses.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], wait: bool = False, part: str | None = None) -> None:
        text = json.dumps(identity, sort_keys=True)
        key = digest(text.encode())[:KEY_DIGITS]
        self.whole, self.identity, self.wait = out.with_name(f"{out.name}.{key}.jsonl"), json.loads(text), wait
        self.path = self.whole if part is None else out.with_name(f"{out.name}.{key}.{part}.jsonl")
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
            self._take_parts()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, answers: Mapping[str, list[Completion]], engine: Mapping[str, Any]) -> None:
        """Add one chunk, on the disk when this returns; `engine` describes what answered."""
        self._write({"engine": engine, "answers": _rows(answers)})
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

    def _take_parts(self) -> None:
        """Read the logs of the other processes of this output; without a part of its own, this one takes them over."""
        stem = self.whole.name.removesuffix(".jsonl")
        if self.path != self.whole:
            beside = [self.whole, *self.path.parent.glob(f"{glob.escape(stem)}.*.jsonl")]
            for path in beside:
                if path != self.path and path.is_file():
                    self.answers = self._parse(path, path.read_bytes().split(b"\n")[:-1]) | self.answers
            return
        for path in sorted(self.path.parent.glob(f"{glob.escape(stem)}.*.jsonl")):
            found = self._parse(path, path.read_bytes().split(b"\n")[:-1])
            missing = {key: rows for key, rows in found.items() if key not in self.answers}
            if missing:
                self._write({"engine": {"part": path.name}, "answers": _rows(missing)})
                self.answers |= missing
            path.unlink()

    def _parse(self, path: Path, lines: list[bytes]) -> dict[str, list[Completion]]:
        """The answers of a log's lines; empty where there is no line."""
        found: dict[str, list[Completion]] = {}
        try:
            if lines and json.loads(lines[0])["identity"] != self.identity:
                raise InputError("these answers are of another model or other settings", str(path), HINT)
            for line in lines[1:]:
                for key, rows in json.loads(line)["answers"].items():
                    found[key] = [Completion(*row) for row in rows]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError("the answer log is damaged", str(path), HINT) from None
        return found

    def _read(self) -> None:
        """Read the whole lines and cut off what a killed writer left after them."""
        data = self.path.read_bytes()
        *lines, torn = data.split(b"\n")
        if torn:
            os.ftruncate(self._file, len(data) - len(torn))
        if not lines:
            self._write({"identity": self.identity})
            return
        self.answers = self._parse(self.path, lines)

    def _write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            raise refusal(error, self.path) or error from None


def _rows(answers: Mapping[str, list[Completion]]) -> dict[str, list[tuple[Any, ...]]]:
    return {key: [astuple(one) for one in completions] for key, completions in answers.items()}


def failure(completions: list[Completion]) -> str | None:
    """Why one of a request's completions is no answer of the model, the first such reason; None if all are."""
    return next((one.error or "no reason given" for one in completions if not one.is_answer), None)
