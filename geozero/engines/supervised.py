"""Keep an engine running: restart it when it dies, isolate the request that kills it, recycle it before it grows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from geozero.common.errors import InputError
from geozero.engines.base import Answered, Completion, Engine, EngineDied, Request, SamplingParams, failed

BACKOFF_SECONDS = 1.0  # before the first restart; doubled with each in a row
MAX_BACKOFF_SECONDS = 60.0

log = logging.getLogger(__name__)


class SupervisedEngine(Engine):
    """An engine whose death costs one call.

    The requests of a dead engine are repeated once; if they kill the next one too, they are bisected, down to the
    single request that does it: only this one is answered with `error`.

    Args:
        start: opens an engine; may raise EngineDied.
        restarts: maximum of deaths in a row, without an answer in between.
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
        self._has_answered = False
        self._n_requests = 0  # of the engine that runs
        self._reason = ""  # of the last death
        self._pending: dict[str, tuple[Request, SamplingParams]] = {}
        self._done: list[Answered] = []
        self._engine: Engine | None = None
        engine = self._running(restarts)
        self.name, self.reason, self._description = engine.name, engine.reason, engine.describe()

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        self._recycle_when_due()
        return self._generate_all(requests, params, attempts=2)

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        self._recycle_when_due()
        self._pending |= {request.id: (request, params) for request in requests}
        try:
            self._running(self.restarts).submit(requests, params)
        except EngineDied as died:
            self._repeat_pending(died)

    def collect(self, at_least: int = 1) -> list[Answered]:
        while self._pending and len(self._done) < at_least:
            self._collect_some()
        found, self._done = self._done, []
        return found

    def _collect_some(self) -> None:
        try:
            found = self._running(self.restarts).collect()
        except EngineDied as died:
            self._repeat_pending(died)
            return
        self._count_answers(len(found))
        for name, _ in found:
            del self._pending[name]
        self._done += found

    def _repeat_pending(self, died: EngineDied) -> None:
        """Have the next engine answer all that a dead one still had to, bisected where they die together."""
        self._record_death(died, self.restarts)
        pending, self._pending = self._pending, {}
        by_params: dict[SamplingParams, list[Request]] = {}
        for request, params in pending.values():
            by_params.setdefault(params, []).append(request)
        for params, requests in by_params.items():
            answers = self._generate_all(requests, params, attempts=1)
            self._done += zip((request.id for request in requests), answers, strict=True)

    def _recycle_when_due(self) -> None:
        if self.recycle is not None and self._n_requests >= self.recycle:
            while self._pending:
                self._collect_some()
            log.info("the engine is restarted after %d requests", self._n_requests)
            self.close()

    def _generate_all(
        self, requests: Sequence[Request], params: SamplingParams, attempts: int
    ) -> list[list[Completion]]:
        max_deaths = self.restarts + len(requests).bit_length()  # the way down to one bad request may be all deaths
        answers = self._bisect(list(requests), params, max_deaths, attempts)
        if not self._has_answered and None in answers:
            raise self._gave_up(self._reason)  # nothing shows that another request would fare better
        for request, row in zip(requests, answers, strict=True):
            if row is None:
                log.warning("gave up on a request that kills the engine: %s", request.id)
        return [failed(f"engine_died: {self._reason}", params.n) if row is None else row for row in answers]

    def _bisect(
        self, requests: list[Request], params: SamplingParams, max_deaths: int, attempts: int
    ) -> list[list[Completion] | None]:
        """The answers; None where a request alone kills the engine."""
        for _ in range(attempts):
            try:
                answers = self._running(max_deaths).generate(requests, params)
            except EngineDied as died:
                self._record_death(died, max_deaths)
                continue
            self._count_answers(len(requests))
            return list(answers)
        if len(requests) > 1:
            middle = len(requests) // 2
            halves = requests[:middle], requests[middle:]
            return [row for half in halves for row in self._bisect(half, params, max_deaths, attempts=1)]
        return [None]

    def _running(self, max_deaths: int) -> Engine:
        while self._engine is None:
            try:
                self._engine, self._n_requests = self._start(), 0
            except EngineDied as died:
                self._record_death(died, max_deaths)
            except InputError as refused:
                if not self._has_answered:
                    raise
                self._record_death(EngineDied(str(refused)), max_deaths)  # it worked before: a server that restarts
        return self._engine

    def _count_answers(self, n: int) -> None:
        self._deaths, self._has_answered = 0, True
        self._n_requests += n

    def _record_death(self, died: EngineDied, max_deaths: int) -> None:
        self._reason = str(died)
        self.close()
        self._deaths += 1
        if self._deaths > max_deaths:
            raise self._gave_up(self._reason) from died
        seconds = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (self._deaths - 1))
        log.warning("the engine died (%s) and restarts in %g s", died, seconds)
        self._wait(seconds)

    def _gave_up(self, reason: str) -> InputError:
        return InputError(
            f"the engine died {self._deaths} times in a row: {reason}",
            "--engine",
            "what is stored stays; fix the cause, or try another --engine or a smaller chunk, and run it again",
        )

    def describe(self) -> dict[str, Any]:
        return dict(self._description)

    def close(self) -> None:
        """See `Engine.close`; a later call starts another one."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
