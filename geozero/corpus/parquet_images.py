"""Images of a corpus of the earlier form (schema version 1): encoded bytes in the rows of `images-*.parquet`."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geozero.common.errors import InputError
from geozero.corpus.layout import AGAIN, readable, shard
from geozero.corpus.sample import digest

CACHED_ROW_GROUPS = 8


class ParquetImages:
    """`image_id` → bytes over image shards: an index of (file, row group, row) and a few cached row groups.

    Files are opened in the process that reads, so that it works in forked loader workers, and one thread reads at a
    time: ms-swift encodes a batch in many threads, and an open Parquet file is not made for that.
    """

    def __init__(self, shards: list[Path]) -> None:
        self._shards = shards
        self._where: dict[str, tuple[int, int, int]] = {}
        self._files: dict[int, pq.ParquetFile] = {}
        self._cache: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()
        self._sound: set[str] = set()  # those whose bytes were found to be what their ids say
        self._one_at_a_time = threading.Lock()
        _INDICES.add(self)
        for number, path in enumerate(shards):
            with shard(path) as file:
                for group in range(file.num_row_groups):
                    ids = file.read_row_group(group, columns=["image_id"]).column(0).to_pylist()
                    self._where.update((image_id, (number, group, row)) for row, image_id in enumerate(ids))

    def read(self, image_id: str) -> bytes:
        """The encoded bytes of an image.

        Raises:
            KeyError: there is no such image.
            InputError: its shard is damaged.
        """
        number, group, row = self._where[image_id]
        with self._one_at_a_time:
            value: bytes = self._group(number, group)[row].as_py()
        if image_id not in self._sound:
            if digest(value) != image_id:
                raise InputError(f"damaged shard: image {image_id} has changed", str(self._shards[number]), AGAIN)
            self._sound.add(image_id)
        return value

    def after_fork(self) -> None:
        """In a child: neither the parent's open files nor a lock that one of its threads held."""
        self._files, self._one_at_a_time = {}, threading.Lock()

    def _group(self, number: int, group: int) -> pa.ChunkedArray:
        key = (number, group)
        if key not in self._cache:
            with readable(self._shards[number]):
                if number not in self._files:
                    self._files[number] = pq.ParquetFile(self._shards[number])
                self._cache[key] = (
                    self._files[number].read_row_group(group, columns=["bytes"], use_threads=False).column(0)
                )
            if len(self._cache) > CACHED_ROW_GROUPS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


_INDICES: weakref.WeakSet[ParquetImages] = weakref.WeakSet()


def _after_fork() -> None:
    for index in list(_INDICES):
        index.after_fork()


os.register_at_fork(after_in_child=_after_fork)
