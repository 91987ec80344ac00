"""What lies in a corpus's directory: file names, schemas, and its manifest, which is read as from a stranger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError

from geozero.common.errors import InputError
from geozero.corpus.sample import SCHEMA_VERSION

MANIFEST = "manifest.json"
REJECTS = "rejects.parquet"
IMAGES = "images.parquet"  # what images there are, in stored order
IMAGE_IDS, IMAGE_PLACES, IMAGE_FILES = "image-ids.npy", "image-places.npy", "image-files.arrow"  # where they lie
IMAGE_INDEX = (IMAGE_IDS, IMAGE_PLACES, IMAGE_FILES)
PARQUET_IMAGES = 1  # schema version of corpora that hold image bytes in images-*.parquet
MAX_MANIFEST_BYTES = 64 << 20
AGAIN = "make the corpus again"

IMAGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("phash", pa.string(), nullable=False),
    ]
)
REJECT_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("source", "key", "reason", "detail")]
)


class _Count(BaseModel, strict=True):
    source: str
    task: str
    split: str
    n: int = Field(ge=0)


class _Rejects(BaseModel, strict=True):
    source: str
    reason: str
    n: int = Field(ge=0)


class _Manifest(BaseModel, strict=True):
    """The keys that readers rely on."""

    n_samples: int = Field(ge=0)
    n_images: int = Field(ge=0)
    n_rejects: int = Field(ge=0)
    counts: list[_Count]
    rejects: list[_Rejects]
    shards: dict[str, str]
    made_by: dict[str, Any]
    notes: dict[str, Any] = {}
    rejects_hash: str = ""  # of `REJECTS`; a corpus of an earlier version has none
    digest: str = ""  # of a packed corpus of an earlier form: what that one was known by


def read_manifest(corpus: Path) -> dict[str, Any]:
    """The manifest of a finished corpus.

    Raises:
        InputError: there is none; it is no JSON, too large, of another version, or lacks what readers rely on.
    """
    path = corpus / MANIFEST
    if not path.is_file():
        raise InputError("unfinished or no corpus: manifest.json is missing", str(corpus), "make it again")
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"more than {MAX_MANIFEST_BYTES >> 20} MB")
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path, error) from None
    if version not in (PARQUET_IMAGES, SCHEMA_VERSION) or isinstance(version, (bool, float)):
        what = f"schema version {str(version)[:40]}, this geozero reads {PARQUET_IMAGES} to {SCHEMA_VERSION}"
        raise InputError(what, str(corpus), AGAIN)
    try:
        _Manifest.model_validate(found)
        if strange := [name for name in found["shards"] if "/" in name or name in ("", ".", "..") or "\0" in name]:
            raise ValueError(f"a shard cannot be named {strange[0]!r}")
        if version == SCHEMA_VERSION and (lacking := {IMAGES, *IMAGE_INDEX} - found["shards"].keys()):
            raise ValueError(f"no {min(lacking)} among the shards")
    except (ValidationError, ValueError) as error:
        raise _unreadable(path, error) from None
    return dict(found)


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    else:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
    return InputError(f"unreadable manifest: {said[:200]}", str(path), AGAIN)


@contextmanager
def shard(path: Path) -> Iterator[pq.ParquetFile]:
    """An open Parquet shard of a corpus; raises as `readable`."""
    with readable(path), pq.ParquetFile(path) as file:
        yield file


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow and NumPy say of a damaged or missing file into InputError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"unreadable shard: {str(error)[:200]}", str(path), AGAIN) from None


def file_hash(path: Path) -> str:
    """BLAKE2b-128 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
