"""Keep an engine running: start it again when it dies, isolate the request that kills it, renew it before it grows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from geozero.common.errors import InputError
from geozero.engines.base import Answered, Completion, Engine, EngineDied, Request, SamplingParams, failed

BACKOFF_SECONDS = 1.0  # before the first restart; doubled with each in a row
MOST_BACKOFF_SECONDS = 60.0

log = logging.getLogger(__name__)


class SupervisedEngine:
    """An engine whose death costs one call.

    What a dead engine was asked is asked once more; if that kills the next one too, its halves are asked, and so on
    down to the single request that does it: this one alone is answered with `error`.

    Args:
        start: opens an engine; may raise EngineDied.
        restarts: deaths in a row, without an answer in between, that are put up with.
        recycle: requests after which the engine is closed and opened anew; None: never.
        wait: sleeps for a number of seconds.

    Raises:
        InputError: it cannot be started, or dies again and again whatever it is asked; here or in `generate`.
    """

    def __init__(
        self,
        start: Callable[[], Engine],
        *,
        restarts: int = 3,
        recycle: int | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._start, self.restarts, self.recycle, self._wait = start, restarts, recycle, wait
        self._deaths = 0  # in a row
        self._answered = False  # ever
        self._asked = 0  # requests of the engine that runs
        self._reason = ""  # of the last death
        self._owed: dict[str, tuple[Request, SamplingParams]] = {}
        self._done: list[Answered] = []
        self._engine: Engine | None = None
        engine = self._running(restarts)
        self.name, self.reason, self._about = engine.name, engine.reason, engine.describe()

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """See `Engine.generate`."""
        self._renew()
        return self._whole(requests, params, tries=2)

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """See `Engine.submit`."""
        self._renew()
        self._owed |= {request.id: (request, params) for request in requests}
        try:
            self._running(self.restarts).submit(requests, params)
        except EngineDied as died:
            self._ask_again(died)

    def collect(self, at_least: int = 1) -> list[Answered]:
        """See `Engine.collect`."""
        while self._owed and len(self._done) < at_least:
            self._wait_for_some()
        found, self._done = self._done, []
        return found

    def _wait_for_some(self) -> None:
        try:
            found = self._running(self.restarts).collect()
        except EngineDied as died:
            self._ask_again(died)
            return
        self._deaths, self._answered = 0, True
        self._asked += len(found)
        for name, _ in found:
            del self._owed[name]
        self._done += found

    def _ask_again(self, died: EngineDied) -> None:
        """All that a dead engine owes, of the next one, and no more at a time than what dies together."""
        self._reason = str(died)
        self._died(died, self.restarts)
        owed, self._owed = self._owed, {}
        by_params: dict[SamplingParams, list[Request]] = {}
        for request, params in owed.values():
            by_params.setdefault(params, []).append(request)
        for params, requests in by_params.items():
            answers = self._whole(requests, params, tries=1)
            self._done += zip((request.id for request in requests), answers, strict=True)

    def _renew(self) -> None:
        if self.recycle is not None and self._asked >= self.recycle:
            while self._owed:
                self._wait_for_some()
            log.info("the engine has answered %d requests and is started anew", self._asked)
            self.close()

    def _whole(self, requests: Sequence[Request], params: SamplingParams, tries: int) -> list[list[Completion]]:
        most = self.restarts + len(requests).bit_length()  # the way down to one bad request may be all deaths
        answers = self._answer(list(requests), params, most, tries)
        if not self._answered and None in answers:
            raise self._given_up(self._reason)  # nothing shows that another request would fare better
        for request, row in zip(requests, answers, strict=True):
            if row is None:
                log.warning("a request is given up, because the engine dies of it: %s", request.id)
        return [failed(f"engine_died: {self._reason}", params.n) if row is None else row for row in answers]

    def _answer(
        self, requests: list[Request], params: SamplingParams, most: int, tries: int
    ) -> list[list[Completion] | None]:
        """The answers; None where a request alone kills the engine."""
        for _ in range(tries):
            engine = self._running(most)
            try:
                answers = engine.generate(requests, params)
            except EngineDied as died:
                self._reason = str(died)
                self._died(died, most)
                continue
            self._deaths, self._answered = 0, True
            self._asked += len(requests)
            return list(answers)
        if len(requests) > 1:
            middle = len(requests) // 2
            halves = requests[:middle], requests[middle:]
            return [row for half in halves for row in self._answer(half, params, most, tries=1)]
        return [None]

    def _running(self, most: int) -> Engine:
        while self._engine is None:
            try:
                self._engine, self._asked = self._start(), 0
            except EngineDied as died:
                self._died(died, most)
            except InputError as refused:
                if not self._answered:
                    raise
                self._died(EngineDied(str(refused)), most)  # it was well before: a server that is being started again
        return self._engine

    def _died(self, died: EngineDied, most: int) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        self._deaths += 1
        if self._deaths > most:
            raise self._given_up(str(died)) from died
        seconds = min(MOST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (self._deaths - 1))
        log.warning("the engine died (%s) and is started again in %g s", died, seconds)
        self._wait(seconds)

    def _given_up(self, reason: str) -> InputError:
        return InputError(
            f"the engine died {self._deaths} times in a row: {reason}",
            "--engine",
            "what is stored stays; fix the cause, or try another --engine or a smaller chunk, and run it again",
        )

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return dict(self._about)

    def close(self) -> None:
        """See `Engine.close`; a later call starts another one."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
