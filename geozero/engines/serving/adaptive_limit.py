"""How much may be in progress at a server: more as long as it answers faster for it, less where it pushes back."""

from __future__ import annotations

import threading
import time

FIRST = 64  # completions per server
MOST = 1024
LEAST = 4
GAIN = 1.1  # of the rate, that a doubled limit has to bring
WINDOW_SECONDS = 0.5  # at least; and twice the limit in answers
REST_WINDOWS = 20  # without a trial after one that brought nothing


class AdaptiveLimit:
    """A counter of what is in progress, with a limit that may adapt.

    Args:
        fixed: the limit; None: it adapts.
        servers: how many the limit is for.
    """

    def __init__(self, fixed: int | None, servers: int = 1) -> None:
        self.adapts = fixed is None
        self.limit = (FIRST if fixed is None else fixed) * servers
        self.most = (MOST if fixed is None else fixed) * servers
        self._free = threading.Condition()
        self._used = 0
        self._waited = False  # whether anybody had to wait in this window: else the limit limits nothing
        self._answers, self._since = 0, time.monotonic()
        self._before: tuple[int, float] | None = None  # limit and rate before a trial
        self._rest = 0

    def acquire(self, n: int) -> None:
        """Wait until n more may be in progress; more than the limit at once only if nothing else is."""
        with self._free:
            while self._used and self._used + n > self.limit:
                self._waited = True
                self._free.wait()
            self._used += n

    def release(self, n: int, refused: bool = False) -> None:
        """n are done; `refused`: the server had too much to do."""
        with self._free:
            self._used -= n
            if self.adapts:
                self._adapt(n, refused)
            self._free.notify_all()

    def _adapt(self, n: int, refused: bool) -> None:
        now = time.monotonic()
        if refused:
            self.limit, self._before, self._rest = max(LEAST, self.limit // 2), None, REST_WINDOWS
            self._answers, self._since, self._waited = 0, now, False
            return
        self._answers += n
        if self._answers < 2 * self.limit or now - self._since < WINDOW_SECONDS:
            return
        rate, waited = self._answers / (now - self._since), self._waited
        self._answers, self._since, self._waited = 0, now, False
        if self._before is not None and rate < GAIN * self._before[1]:
            self.limit, self._before, self._rest = self._before[0], None, REST_WINDOWS
        elif self._rest > 0:
            self._rest -= 1
        elif waited and self.limit < self.most:
            self._before = self.limit, rate
            self.limit = min(self.most, 2 * self.limit)
