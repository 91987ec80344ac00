"""Images decoded before their ingest, by other processes or machines: `geozero ingest --shard i/n`.

Decoding takes most of an ingest, and gives the same wherever it happens. Each shard leaves
what became of its images in a file beside the corpus, under the hash of the bytes that it read. The ingest itself reads
every image again and looks it up by that hash. So its result is the same bit for bit, whatever shards there were, and
an image that has changed since is decoded anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import PIL
import pyarrow as pa

from geozero import __version__
from geozero.common.errors import BadRecord
from geozero.common.progress import Progress
from geozero.corpus.images import Reduction, StoredImage
from geozero.corpus.partial import partial_name, refusals
from geozero.corpus.sample import digest, stable_unit
from geozero.curation.ingest.checks import Checks
from geozero.curation.ingest.decoding import Decoded, Decoders, results
from geozero.sources import Record, Source, open_tree

_SALT = "decode"
_BATCH_BYTES = 4 << 20  # encoded bytes of a batch of images …
_BATCH_IMAGES = 256  # … or so many images
_SCHEMA = pa.schema(
    [
        ("read", pa.string()),
        ("image_id", pa.string()),
        ("changed", pa.large_binary()),  # the stored bytes, where they are others than those read
        *((name, pa.int32()) for name in ("width", "height", "original_width", "original_height")),
        *((name, pa.string()) for name in ("phash", "reason", "detail")),
    ]
)


def decode_shard(
    source: Source, root: Path, out: Path, number: int, of: int, checks: Checks, follow: Iterable[Path] = ()
) -> int:
    """Decode shard `number` (from 0) of `of` of a data set's images, for the ingest to `out`; returns how many.

    Raises:
        InputError: missing or unreadable data set; full disk.
    """
    folder, how = _folder(out), (checks.max_pixels, checks.reduction)
    file = folder / f"{_key(*how)}-{number}of{of}.arrow"
    temporary = folder / partial_name(file, "part")
    n, seen = 0, set[str]()
    with refusals(out), open_tree(root, follow) as tree, Decoders(*how) as decoders, Progress("decode") as progress:
        home = source.find(tree)
        folder.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            images = list[bytes]()

            def write() -> None:
                rows = [
                    _row(data, one) for data, one in zip(images, results(decoders.begin(images), images), strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_pylist(rows, _SCHEMA))
                images.clear()

            for record in source.records(home):
                name = record.image if isinstance(record, Record) else ""
                if not name or name in seen:
                    continue
                seen.add(name)
                if int(stable_unit(name, _SALT) * of) != number or name not in home:
                    continue
                try:
                    images.append(home.read(name))
                except BadRecord:  # the ingest says so
                    continue
                n += 1
                progress.step()
                if len(images) == _BATCH_IMAGES or sum(map(len, images)) >= _BATCH_BYTES:
                    write()
            if images:
                write()
        os.replace(temporary, file)
    return n


class DecodedImages:
    """What shards have decoded for a corpus, looked up by content; an entry takes some 200 bytes of memory."""

    def __init__(self, out: Path, max_pixels: int, reduction: Reduction) -> None:
        self._folder = _folder(out)
        self._places = dict[str, tuple[pa.RecordBatch, int]]()
        for file in sorted(self._folder.glob(f"{_key(max_pixels, reduction)}-*.arrow")):
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            for batch in map(reader.get_batch, range(reader.num_record_batches)):
                self._places |= {read: (batch, row) for row, read in enumerate(batch.column("read").to_pylist())}

    def find(self, images: Iterable[bytes]) -> list[Decoded] | None:
        """The images of a batch as they are stored, or why one cannot be; None unless all of them are known."""
        if not self._places:
            return None
        found = list[Decoded]()
        for data in images:
            place = self._places.get(digest(data))
            if place is None:
                return None
            found.append(_decoded(place[0].slice(place[1], 1).to_pylist()[0], data))
        return found

    def remove(self) -> None:
        """The corpus is written: nobody needs them any more."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _folder(out: Path) -> Path:
    place = Path(os.path.realpath(out))
    return place.with_name(f".{place.name}.decoded")


def _key(max_pixels: int, reduction: Reduction) -> str:
    """What decides how images are stored: limits and versions."""
    how = [max_pixels, reduction.side, reduction.pixels, __version__, PIL.__version__]
    return digest(json.dumps(how).encode())[:12]


def _row(data: bytes, decoded: Decoded) -> dict[str, Any]:
    if isinstance(decoded, BadRecord):
        return {"read": digest(data), "reason": decoded.reason, "detail": decoded.detail}
    wide, high = decoded.original or (None, None)
    return {
        "read": digest(data),
        "image_id": decoded.image_id,
        "changed": None if decoded.data is data else decoded.data,
        "width": decoded.width,
        "height": decoded.height,
        "original_width": wide,
        "original_height": high,
        "phash": decoded.phash,
    }


def _decoded(row: dict[str, Any], data: bytes) -> Decoded:
    if row["reason"] is not None:
        return BadRecord(row["reason"], row["detail"])
    original = None if row["original_width"] is None else (row["original_width"], row["original_height"])
    stored = data if row["changed"] is None else row["changed"]
    return StoredImage(row["image_id"], stored, row["width"], row["height"], row["phash"], original)
