"""The answers of an unfinished run: a file beside its output that grows by whole chunks and outlives a `kill -9`.

`OUTPUT.<key>.jsonl`, where the key is the hash of all that the answers depend on: another model or other settings
write another file. The first line tells what that is; every further line is one chunk of answers. A line that was
cut off is a chunk that was not written.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from geozero.common.atomic import make_parent
from geozero.common.errors import InputError, refusal
from geozero.corpus.sample import digest

KEY_DIGITS = 12
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # some cluster file systems: then two runs are the user's care
HINT = "delete it and ask again"


class Answer(NamedTuple):
    """What a model said to item `number`."""

    number: int
    text: str
    finish_reason: str
    n_tokens: int


class AnswerLog:
    """Opened by one process at a time, as a context; `answers` holds what is there, by item number.

    Args:
        out: the output of the run, beside which the log stands.
        identity: all that the answers depend on, as JSON values.

    Raises:
        InputError: another process writes it, it is damaged, it says another identity, or the disk refuses.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.identity: dict[str, Any] = json.loads(json.dumps(identity, sort_keys=True))
        key = digest(json.dumps(self.identity, sort_keys=True).encode())[:KEY_DIGITS]
        self.path = out.with_name(f"{out.name}.{key}.jsonl")
        self.answers: dict[int, Answer] = {}

    def __enter__(self) -> AnswerLog:
        try:
            make_parent(self.path)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise refusal(error, self.path) or error from None
        try:
            self._lock()
            self._read()
        except BlockingIOError:
            os.close(self._file)
            raise InputError("another process is answering these questions", str(self.path), "wait for it") from None
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def append(self, answers: Sequence[Answer], engine: Mapping[str, Any]) -> None:
        """Add one chunk, on the disk when this returns; `engine` tells what answered."""
        if answers:
            self._write({"engine": dict(engine), "answers": [list(answer) for answer in answers]})
            self.answers.update((answer.number, answer) for answer in answers)

    def others(self) -> list[Path]:
        """Logs beside this one that other models or settings left for the same output."""
        stem = self.path.name.removesuffix(".jsonl")[:-KEY_DIGITS]
        pattern = re.compile(re.escape(stem) + rf"[0-9a-f]{{{KEY_DIGITS}}}\.jsonl")
        beside = (path for path in self.path.parent.iterdir() if pattern.fullmatch(path.name))
        return sorted(path for path in beside if path != self.path)

    def _lock(self) -> None:
        """Keep other processes out; the lock is gone with its process, whatever ends that."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    def _read(self) -> None:
        """Take in the whole lines and cut off what a killed writer left behind them."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            lines = file.read().split(b"\n")
        torn = lines.pop()  # empty where the file ends with a whole line
        if torn:
            os.ftruncate(self._file, sum(len(line) + 1 for line in lines))
        if not lines:
            self._write({"identity": self.identity})
            return
        try:
            if json.loads(lines[0])["identity"] != self.identity:
                raise InputError("these answers are another model's or of other settings", str(self.path), HINT)
            for line in lines[1:]:
                for row in json.loads(line)["answers"]:
                    number, text, finish_reason, n_tokens = row
                    self.answers[int(number)] = Answer(int(number), str(text), str(finish_reason), int(n_tokens))
        except (ValueError, KeyError, TypeError):
            raise InputError("the file of answers is damaged", str(self.path), HINT) from None

    def _write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            raise refusal(error, self.path) or error from None
