"""Several workers of one machine fill one store: each is `geozero sample --shard i/n` in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from geozero.common import process
from geozero.common.child import run_module


def run_workers(
    arguments: Sequence[str], n: int, on_line: Callable[[str], None], gpus: Sequence[str | None] = ()
) -> None:
    """Run `geozero sample` with these arguments as workers 0 … n-1; the store needs no lock server between them.

    Args:
        gpus: the GPU of each worker, as `process.worker_gpus` gives them; none: each sees what this process sees.

    Raises:
        InputError: a worker ended with bad input; its own line is the message.
        ChildFailed: a worker failed otherwise; what the others stored stays.
    """

    def work(shard: int) -> None:
        words = ["sample", *arguments, "--shard", f"{shard}/{n}"]
        gpu = gpus[shard] if gpus else None
        options: dict[str, Any] = {} if gpu is None else {"env": {process.VISIBLE_GPUS: gpu}}
        run_module("geozero.cli", *words, on_line=lambda line: on_line(f"{shard}/{n}\t{line}"), **options)

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(work, range(n)))
