"""Pack: a corpus with its images inside, whatever the one that it is made from refers to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from geozero.common.errors import BadRecord, InputError
from geozero.common.progress import Progress
from geozero.corpus.sample import SCHEMA
from geozero.corpus.store import Corpus, CorpusWriter, copy_image


def pack(corpus: Path, out: Path) -> dict[str, Any]:
    """Write a corpus with its images inside, which can be moved alone; it is known by the digest of the other.

    Returns:
        Its manifest. Returns at once where `out` is that already.

    Raises:
        InputError: the corpus is unreadable or damaged, or `out` is something else or the corpus itself.
    """
    source = Corpus(corpus)
    out = Path(out)
    if out.resolve() == source.path.resolve():
        raise InputError("a corpus cannot be packed into itself", str(out), "choose another --out")
    with suppress(InputError):  # none there yet, or a damaged one
        there = Corpus(out)
        if there.digest == source.digest and there.has_places and there.is_packed:
            there.verify()
            return there.manifest
    with CorpusWriter(out, source.manifest["made_by"]) as writer, Progress(f"pack {out.name}") as progress:
        writer.notes = source.manifest.get("notes", {})
        writer.digest = source.digest
        for n, row in enumerate(source.image_rows(), 1):
            copy_image(writer, row)
            progress.step(f"{n} images")
        for batch in source.columns("samples", SCHEMA.names):
            writer.add_table(pa.Table.from_batches([batch]))
        for row in source.rejects():
            writer.reject(row["source"], row["key"], BadRecord(row["reason"], row["detail"]))
    return Corpus(out).manifest
