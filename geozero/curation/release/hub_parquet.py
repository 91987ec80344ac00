"""A data set for the Hugging Face hub: Parquet shards that `datasets.load_dataset` opens, and the card as its README.

    README.md                               metadata (licence, counts, features), then the data card of each part
    data/raw/train-00000-of-00012.parquet   one row per sample: the columns of a corpus, and `image`

A part is a configuration: `raw`, `instruct`, `hard`, `eval`. Rows are ordered by image within some thousand, and an
image is stored once per row group (dictionary encoding), however many questions ask about it; a reader sees it in
every row. Boxes are pixels. Nothing is uploaded.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from geozero import __version__, tasks
from geozero.common.errors import BadRecord, InputError
from geozero.common.own_files import replacing_own
from geozero.common.progress import Progress
from geozero.corpus.images import store
from geozero.corpus.sample import Sample, Split
from geozero.corpus.store import Corpus, CorpusWriter
from geozero.curation.card.data_card import card_text, facts
from geozero.curation.ingest.checks import Checks, storable
from geozero.curation.release.exporting import WHAT, Exported, Kind
from geozero.curation.reuse import finished
from geozero.sources import open_tree
from geozero.sources.readers.tables import check_whole

README, DATA, EVAL = "README.md", "data", "eval"
HUB_SPLITS: dict[Split, str] = {"train": "train", "val": "validation", "test": "test"}
SHARD_BYTES = 500 << 20  # the hub's own limit for a shard
GROUP_BYTES = 64 << 20  # of a row group as a reader sees it: images of all rows
GROUP_ROWS = 1_000
_LOOK_AHEAD = 4_096  # samples that are ordered by image
_PNG = b"\x89PNG"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_HUB_LICENCES = {"cc-by-4.0": "cc-by-4.0", "mit": "mit", "cc0": "cc0-1.0", "apache-2.0": "apache-2.0"}


@functools.cache
def features() -> Any:
    """The columns of a row, as `datasets.Features`."""
    from datasets import Features, Image, List, Value

    text, texts = Value("string"), List(Value("string"))
    return Features(
        {
            "image": Image(),
            **dict.fromkeys(("id", "task", "source", "question", "answer"), text),
            "references": texts,
            "box": List(Value("float64")),
            "width": Value("int32"),
            "height": Value("int32"),
            "question_type": text,
            "classes": texts,
            "image_id": text,
            "image_key": text,
        }
    )


def export_hub(out: Path, train: Mapping[Kind, Path], evals: list[Path], split: Split = "test") -> Exported:
    """Write corpora with all their splits, and `split` of those to evaluate on; an older export at `out` is replaced.

    Raises:
        InputError: nothing to write, an unreadable corpus, something else than an older export at `out`.
    """
    if not train and not evals:
        raise InputError("nothing to export", hint=WHAT)
    parts = {kind: [Corpus(path)] for kind, path in train.items()} | ({EVAL: [*map(Corpus, evals)]} if evals else {})
    written: dict[str, dict[Split, _Part]] = {}
    with replacing_own(out) as place, Progress(f"export {out.name}") as progress:
        for name, corpora in parts.items():
            shards: dict[Split, _Part] = {}
            written[name] = shards
            for corpus in corpora:
                for sample in _by_image(corpus.samples(split if name == EVAL else None)):
                    part = shards.setdefault(sample.split, _Part(place / DATA / name))
                    part.add(_row(sample, corpus.image_bytes(sample.image_id)))
                    progress.step(f"{sum(one.rows for one in shards.values())} rows of {name}")
            for of, part in shards.items():
                part.close(HUB_SPLITS[of])
        if not any(written.values()):
            raise InputError("the corpora hold no samples to write", hint=f"any samples, or {split} ones for --eval")
        (place / README).write_text(_readme(out.name, parts, written), encoding="utf-8")
    files = {
        f"{DATA}/{name}/{HUB_SPLITS[one]}": part.rows
        for name, shards in written.items()
        for one, part in shards.items()
    }
    return Exported(files, len(set().union(*(p.images for s in written.values() for p in s.values()))), {})


class _Part:
    """The shards of one split of one part, written row group by row group."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._writer: Any = None
        self._shards: list[Path] = []
        self._group: list[dict[str, Any]] = []
        self._group_bytes = 0
        self.rows = self.bytes = self.size = 0
        self.images: set[str] = set()

    def add(self, row: dict[str, Any]) -> None:
        size = len(row["image"]["bytes"])
        if self._group and (self._group_bytes + size > GROUP_BYTES or len(self._group) >= GROUP_ROWS):
            self._flush()
        self._group.append(row)
        self._group_bytes += size
        self.rows += 1
        self.bytes += size
        self.images.add(row["image_id"])

    def close(self, split: str) -> None:
        """Write what is left, and give the shards their names, which hold their number."""
        self._flush()
        self._end_shard()
        for number, path in enumerate(self._shards):
            self.size += path.stat().st_size
            os.replace(path, self._place / f"{split}-{number:05}-of-{len(self._shards):05}.parquet")

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._group:
            return
        schema = features().arrow_schema
        if self._writer is None:
            self._place.mkdir(parents=True, exist_ok=True)
            self._shards.append(self._place / f".part-{id(self)}-{len(self._shards)}")
            self._writer = pq.ParquetWriter(
                self._shards[-1],
                schema,
                compression="zstd",
                use_dictionary=True,
                dictionary_pagesize_limit=2 * GROUP_BYTES,  # a full dictionary would make the rest plain again
                write_statistics=False,
            )
        self._writer.write_table(pa.Table.from_pylist(self._group, schema))
        self._group, self._group_bytes = [], 0
        if self._shards[-1].stat().st_size >= SHARD_BYTES:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _by_image(samples: Iterator[Sample]) -> Iterator[Sample]:
    """The samples, some thousand at a time ordered so that those of one image are neighbours."""
    while batch := list(islice(samples, _LOOK_AHEAD)):
        groups: dict[str, list[Sample]] = {}
        for sample in batch:
            groups.setdefault(sample.image_id, []).append(sample)
        yield from chain.from_iterable(groups.values())


def _row(sample: Sample, data: bytes) -> dict[str, Any]:
    suffix = "png" if data[:4] == _PNG else "jpg"
    row = sample.to_row()
    del row["split"]
    return row | {"image": {"bytes": data, "path": f"{sample.image_key.replace('/', '_')}.{suffix}"}}


def _readme(title: str, parts: Mapping[str, list[Corpus]], written: Mapping[str, Mapping[Split, _Part]]) -> str:
    """The hub's metadata, how to load it, and the data card of each corpus."""
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    counts = Counter(row["task"] for corpora in parts.values() for c in corpora for row in c.manifest["counts"])
    total = sum(part.rows for shards in written.values() for part in shards.values())
    card = DatasetCardData(
        language="en",
        pretty_name=title,
        task_categories=sorted({tasks.get(task).hub_category for task in counts}),
        size_categories=[next((size for most, size in _SIZES if total < most), "1M<n<10M")],
        tags=["remote-sensing", "geospatial"],
        **_licence([row["licence"] for corpora in parts.values() for c in corpora for row in facts(c)["licences"]]),
        configs=[
            {
                "config_name": name,
                "data_files": [
                    {"split": HUB_SPLITS[one], "path": f"{DATA}/{name}/{HUB_SPLITS[one]}-*"} for one in sorted(shards)
                ],
            }
            for name, shards in written.items()
        ],
    )
    infos = {
        name: DatasetInfo(
            features=features(),
            splits=SplitDict(
                {
                    HUB_SPLITS[one]: SplitInfo(HUB_SPLITS[one], num_bytes=part.bytes, num_examples=part.rows)
                    for one, part in sorted(shards.items())
                }
            ),
            download_size=sum(part.size for part in shards.values()),
            dataset_size=sum(part.bytes for part in shards.values()),
            config_name=name,
        )
        for name, shards in written.items()
    }
    DatasetInfosDict(infos).to_dataset_card_data(card)
    load = f'datasets.load_dataset("{title}", "{next(iter(written))}")'
    text = [f"---\n{card.to_yaml()}\n---\n", f"# {title}\n", f"```python\n{load}\n```\n"]
    for name, corpora in parts.items():
        for corpus in corpora:
            text.append(f"# {name}: " + card_text(corpus).removeprefix("# "))
    return "\n".join(text)


def _licence(licences: list[str]) -> dict[str, Any]:
    """The hub's name for the licence where all parts have one that it knows; else `other`, explained by the card."""
    known = {_HUB_LICENCES.get(one.lower(), "") for one in licences}
    if len(known) == 1 and "" not in known:
        return {"license": known.pop()}
    return {"license": "other", "license_name": "by-source", "license_link": README}


def import_hub(root: Path, out: Path, *, file: str = "", checks: Checks | None = None) -> dict[str, Any]:
    """Read one part of an export of ours back as a corpus, ids and splits included; images are decoded and checked.

    Args:
        root: the export's directory, as written or as fetched from the hub.
        file: the part, where there are several.

    Raises:
        InputError: no such part, or no sample of it could be read.
    """
    checks = checks or Checks()
    shards = _shards_of(root, file)
    with open_tree(root / DATA) as tree:
        check_whole(tree, [str(path.relative_to(root / DATA)) for path, _ in shards])
        made_by = {
            "command": "release import",
            "geozero": __version__,
            "options": {"part": file, "checks": checks.options()},
            "tree": tree.fingerprint([str(path.relative_to(root / DATA)) for path, _ in shards]),
        }
    manifest = finished(out, made_by)
    if manifest is not None:
        return manifest
    with CorpusWriter(out, made_by) as writer, Progress(f"import {root.name}") as progress:
        taken = 0
        for path, split in shards:
            for row in _rows_of(path):
                taken += _take(row, split, writer, checks)
                progress.step(f"{taken} samples")
        if not taken:
            raise InputError("no sample of it could be read", str(root), "export it again")
    return Corpus(out).manifest


def _shards_of(root: Path, part: str) -> list[tuple[Path, Split]]:
    found = sorted(path.name for path in (root / DATA).glob("*") if any(path.glob("*.parquet")))
    chosen = [name for name in found if name == part] if part else found
    if len(chosen) != 1:
        what = f"no part {part or 'with Parquet files'}" if not chosen else f"several parts: {', '.join(chosen)}"
        raise InputError(what, str(root / DATA), f"name one with --file: {', '.join(found)}" if found else "check it")
    names = {name: split for split, name in HUB_SPLITS.items()}
    shards = []
    for path in sorted((root / DATA / chosen[0]).glob("*.parquet")):
        split = names.get(path.name.split("-")[0])
        if split is None:
            raise InputError("a shard of no known split", str(path), f"its name begins with {', '.join(names)}")
        shards.append((path, split))
    return shards


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in features() if name not in file.schema_arrow.names]
            if missing:
                raise InputError(f"no column '{missing[0]}'", str(path), "only exports of ours are read")
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"cannot be read: {str(error)[:200]}", str(path), "fetch or export it again") from None


def _take(row: dict[str, Any], split: Split, writer: CorpusWriter, checks: Checks) -> bool:
    """Write one row; False where it is refused."""
    try:
        sample = Sample.from_row({**row, "split": split})
        image = store((row["image"] or {}).get("bytes") or b"", checks.max_pixels)
        if image.image_id != sample.image_id:
            raise BadRecord("image_changed", str(sample.image_id))
        tasks.validate(sample)
    except (BadRecord, InputError, TypeError, AttributeError) as error:
        bad = error if isinstance(error, BadRecord) else BadRecord("record_malformed", str(error)[:200])
        writer.reject(str(row.get("source")), storable(str(row.get("id"))), bad)
        return False
    if not writer.has_image(image.image_id):
        writer.add_image(image, sample.image_key)
    return writer.add(sample)
