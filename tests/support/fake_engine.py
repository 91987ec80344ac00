"""An engine for the tests of isolation: it answers with the request's name, and dies, hangs or fails when told to."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError
from geozero.engines.base import ByBatch, Completion, Request, SamplingParams


class ObedientEngine(ByBatch):
    """`die`, `hang`, `fail`, `warn`, `talk`: ids that make it so; the file `once` lets it do three of them once."""

    name, reason = "obedient", "a test"

    def __init__(self, once: str | None = None) -> None:
        self.once = Path(once) if once else None

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        for request in requests:
            if self.once is None or not self.once.exists():
                self.obey(request.id)
        return [[Completion(f"{r.id} {os.getpid()}", "stop", 1, i) for i in range(params.n)] for r in requests]

    def obey(self, word: str) -> None:
        if self.once is not None and word in ("die", "hang", "fail"):
            self.once.touch()
        if word == "die":
            print("out of memory, sorry\n[W1] Warning: memory is bound to node 0", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "hang":
            time.sleep(600)
        if word == "fail":
            raise RuntimeError("no kernel\nfor this")
        if word == "warn":
            logging.getLogger("geozero.engines").warning("answers may\ndiffer")
        if word == "talk":
            print("nonsense on the standard output", flush=True)

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name, "pid": os.getpid()}

    def close(self) -> None:
        pass


def open_fake(once: str | None = None, start: str = "") -> ObedientEngine:
    if start == "refuse":
        raise InputError("no such model", "here", "make it")
    if start:
        ObedientEngine().obey(start)
    return ObedientEngine(once)
