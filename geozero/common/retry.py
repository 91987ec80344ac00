"""One way to try again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def retry(call: Callable[[], Result], is_transient: Callable[[Exception], bool], tries: int, seconds: float) -> Result:
    """Call a function until it succeeds, at most `tries` times; the pause is `seconds` at first and doubles.

    Raises:
        Exception: the last one that was raised, or the first one that is not transient.
    """
    for attempt in range(tries - 1):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(seconds * 2**attempt)
    return call()
