"""Several workers of one machine fill one store: each is `geozero sample --shard i/n` in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from geozero.common import process
from geozero.common.errors import InputError

BAD_INPUT = 2  # the command line's exit code


def run_workers(arguments: Sequence[str], n: int, on_line: Callable[[str], None]) -> None:
    """Run `geozero sample` with these arguments as workers 0 … n-1; the store needs no lock server between them.

    Raises:
        InputError: a worker ended with bad input; its own line is the message.
        ChildFailed: a worker failed otherwise; what the others stored stays.
    """

    def work(shard: int) -> None:
        command = [sys.executable, "-m", "geozero.cli", "sample", *arguments, "--shard", f"{shard}/{n}"]
        try:
            process.run(command, on_line=lambda line: on_line(f"{shard}/{n}\t{line}"))
        except process.ChildFailed as failed:
            if failed.code == BAD_INPUT and failed.tail:
                raise InputError(failed.tail[-1].removeprefix("geozero: ")) from None
            raise

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(work, range(n)))
