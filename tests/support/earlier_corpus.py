"""A corpus of the earlier form (schema version 1), whose images are in Parquet shards: written from one of today's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geozero.common.atomic import write_json
from geozero.corpus.layout import IMAGE_SCHEMA, MANIFEST, REJECTS
from geozero.corpus.store import Corpus, file_hash

SCHEMA = pa.schema([*list(IMAGE_SCHEMA)[:2], pa.field("bytes", pa.binary(), nullable=False), *list(IMAGE_SCHEMA)[2:]])


def earlier(corpus: Path, out: Path, per_group: int = 64) -> Corpus:
    """Write `corpus` anew, as geozero 0.x did."""
    found = Corpus(corpus)
    out.mkdir(parents=True)
    rows = [{name: row[name] for name in SCHEMA.names} for row in found.image_rows()]
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(out / "images-00000.parquet", SCHEMA, **options) as writer:
        for start in range(0, len(rows), per_group):
            writer.write_table(pa.Table.from_pylist(rows[start : start + per_group], schema=SCHEMA))
    shards = {"images-00000.parquet": file_hash(out / "images-00000.parquet")}
    for name, hash_ in found.manifest["shards"].items():
        if name.startswith("samples"):
            shutil.copy(corpus / name, out / name)
            shards[name] = hash_
    shutil.copy(corpus / REJECTS, out / REJECTS)
    manifest = {**json.loads((corpus / MANIFEST).read_text()), "schema_version": 1, "shards": shards}
    write_json(out / MANIFEST, manifest)
    return Corpus(out)
