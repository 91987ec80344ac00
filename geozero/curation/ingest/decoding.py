"""Images decoded ahead of their turn, a batch at a time: by processes of their own, once there are enough of them."""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import Any

from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.common.process import cores
from geozero.corpus.images import MAX_PIXELS, WHOLE, Reduction, StoredImage, size_of, store

ALONE = 64  # images decoded in this process before others are started: small sets are done by then
SHUTDOWN_SECONDS = 2.0  # for a pool whose process was killed
_MOST_PROCESSES = 4  # more would wait for the one that reads and writes
_SLOTS = 8  # batches on their way at a time; a further one, or a larger one, goes through a pipe
_SLOT_BYTES = 8 << 20  # a batch ends at half of that

_SMALL_BYTES = 1 << 20  # blank images of MAX_PIXELS take about as much
_ALONE_BYTES = 64 << 20  # of one file: sent to another process it would lie in memory four times

Decoded = StoredImage | BadRecord
# What comes back from another process: the fields of a StoredImage, its bytes only where they are others than those
# sent; or reason and detail.
_Answer = tuple[str, bytes | None, int, int, str, tuple[int, int] | None] | tuple[str, str]
Begun = Future[list[_Answer]]

_received: _Slots  # in a process that decodes: what it shares with the one that reads
_one_large: Any = nullcontext()  # … and a lock that all of them share


class Decoders:
    """Decodes batches of images; `store` is what is done with each. Use as a context manager.

    With one core, and for the first images, all is done here and now. The processes are forked: they begin at once
    and read no script of the user's anew. They ignore Ctrl-C, which their parent answers, and end when it ends, however
    it does.

    Images of more than `MAX_PIXELS` are decoded one at a time, and very large files in this process, so that memory
    does not grow with the number of processes.

    Args:
        max_pixels: of an image.
        reduction: how much is stored of it.
    """

    def __init__(self, max_pixels: int, reduction: Reduction = WHOLE) -> None:
        self._how = max_pixels, reduction
        self._processes = min(cores(), _MOST_PROCESSES)
        self._pool: ProcessPoolExecutor | None = None
        self._slots = _Slots()
        self._seen = 0

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            _end(self._pool)

    def begin(self, images: Sequence[bytes]) -> Begun:
        """Have the encoded images of a batch decoded; give the result to `results` when its turn comes."""
        self._seen += len(images)
        if self._processes > 1 and self._seen > ALONE and max(map(len, images), default=0) < _ALONE_BYTES:
            if self._pool is None:
                Image.preinit()  # once, and not in every process
                context = get_context("fork")
                arguments = (self._slots, context.Lock())
                self._pool = ProcessPoolExecutor(self._processes, context, _begin_process, arguments)
            try:
                return self._send(self._pool, images)
            except BrokenProcessPool:
                raise _ended() from None
        done: Begun = Future()
        done.set_result(_answers(images, self._how))
        return done

    def _send(self, pool: ProcessPoolExecutor, images: Sequence[bytes]) -> Begun:
        slot = self._slots.put(images)
        if slot is None:
            return pool.submit(_answers, images, self._how)
        begun = pool.submit(_answers_to, slot, [len(data) for data in images], self._how)
        begun.add_done_callback(lambda _: self._slots.give_back(slot))
        return begun


class _Slots:
    """Memory that is shared with forked processes: images in a pipe are copied several times."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SLOTS * _SLOT_BYTES)  # pages that nobody writes to take no room
        self._free = list(range(_SLOTS))

    def put(self, images: Sequence[bytes]) -> int | None:
        """The slot that the images lie in now, one after another; None if they find no room."""
        if not self._free or sum(map(len, images)) > _SLOT_BYTES:
            return None
        slot = self._free.pop()
        self._memory.seek(slot * _SLOT_BYTES)
        for data in images:
            self._memory.write(data)
        return slot

    def take(self, slot: int, sizes: Sequence[int]) -> list[bytes]:
        """The images in a slot."""
        ends = itertools.accumulate(sizes, initial=slot * _SLOT_BYTES)
        return [self._memory[start:end] for start, end in itertools.pairwise(ends)]

    def give_back(self, slot: int) -> None:
        self._free.append(slot)


def results(begun: Begun, images: Sequence[bytes]) -> list[Decoded]:
    """The images of a batch as they are stored, or why one cannot be; waits for them.

    Raises:
        InputError: a process was ended from outside, as happens where memory is short.
    """
    try:
        answers = begun.result()
    except BrokenProcessPool:
        raise _ended() from None
    return [_decoded(answer, data) for answer, data in zip(answers, images, strict=True)]


def _end(pool: ProcessPoolExecutor) -> None:
    """Shut a pool down; where a process of it was killed, a batch may be half sent, and nobody reads on.

    Early 3.11 waits without end for the thread that sends it (CPython issue 94777). Closing the end that
    is read from lets that thread go; later versions do so themselves, at once.
    """
    manager = getattr(pool, "_executor_manager_thread", None)
    reader = getattr(getattr(pool, "_call_queue", None), "_reader", None)
    broken = bool(getattr(pool, "_broken", False))
    pool.shutdown(wait=not broken, cancel_futures=True)
    if broken and manager is not None:
        manager.join(SHUTDOWN_SECONDS)
        if manager.is_alive() and reader is not None:
            reader.close()
            manager.join()


def _ended() -> InputError:
    return InputError(
        "a process that decodes images was ended from outside", hint="if memory is short, lower --check max_pixels"
    )


def _answers_to(slot: int, sizes: Sequence[int], how: tuple[int, Reduction]) -> list[_Answer]:
    return _answers(_received.take(slot, sizes), how)


def _answers(images: Sequence[bytes], how: tuple[int, Reduction]) -> list[_Answer]:
    return [_answer(data, how) for data in images]


def _answer(data: bytes, how: tuple[int, Reduction]) -> _Answer:
    try:
        with _one_large if _is_large(data) else nullcontext():
            image = store(data, *how)
    except BadRecord as bad:
        return bad.reason, bad.detail
    changed = None if image.data is data else image.data
    return image.image_id, changed, image.width, image.height, image.phash, image.original


def _is_large(data: bytes) -> bool:
    """Whether an image has more than `MAX_PIXELS`; a small file cannot, and its header is not looked at."""
    if len(data) < _SMALL_BYTES:
        return False
    try:
        width, height = size_of(data)
    except BadRecord:
        return False
    return width * height > MAX_PIXELS


def _decoded(answer: _Answer, data: bytes) -> Decoded:
    if len(answer) == 2:
        return BadRecord(*answer)
    image_id, changed, width, height, looks, original = answer
    return StoredImage(image_id, data if changed is None else changed, width, height, looks, original)


def _begin_process(slots: _Slots, one_large: Any) -> None:
    global _received, _one_large
    _received, _one_large = slots, one_large
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
