"""GeoZero-Raw: the training samples of several corpora in one, without duplicates and without evaluation images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from geozero import __version__
from geozero.common.atomic import write_json
from geozero.common.errors import BadRecord, InputError
from geozero.common.hash_set import HashSet64
from geozero.common.progress import Progress
from geozero.corpus.sample import SCHEMA
from geozero.corpus.store import Corpus, CorpusWriter, refer_images
from geozero.curation.card.data_card import origins
from geozero.curation.card.inspect import inspect
from geozero.curation.decontamination.leaks import NEAR_RADIUS, Evaluated, Leak, image_hashes, images_asked
from geozero.curation.decontamination.name_maps import KNOWN
from geozero.curation.decontamination.overlap_matrix import overlap_matrix
from geozero.curation.reuse import finished

_COMPARED = ("source", "id", "image_id", "image_key", "question", "answer")


def raw(
    inputs: Sequence[Path],
    evals: Sequence[Path],
    out: Path,
    *,
    near_radius: int = NEAR_RADIUS,
    metrics: Path | None = None,
    html: Path | None = None,
) -> dict[str, Any]:
    """Join the `train` samples of `inputs`; returns at once where `out` already holds exactly that.

    Left out, and listed in the rejects with their counterpart, are samples whose image is in the `val` or `test` split
    of any input or evaluation corpus (`leak_exact`: same bytes, `leak_key`: same name, `leak_near`: same looks), and
    samples that repeat another's image, question and answer (`duplicate_sample`). The notes say where samples
    come from (`inputs`: licences, what ingest refused), count leaks by source and counterpart (`leaks`) and images
    that sources share (`shared_pictures`), and name leaks that neither names nor hashes reveal (`known_leaks`).

    Args:
        inputs: corpora to learn from.
        evals: further corpora for evaluation, beside the inputs' own val and test splits.
        near_radius: bits of 64 by which two perceptual hashes may differ and still be one image; negative: off.
        metrics: where to write the counts as JSON as well.
        html: where to write all this as a page.

    Returns:
        The corpus's manifest.

    Raises:
        InputError: no inputs, one unreadable, `evals` without any val or test sample, nothing left, full disk.
    """
    if not inputs:
        raise InputError("no corpus to join", hint="give at least one --in")
    corpora, evaluation = [Corpus(p) for p in inputs], [Corpus(p) for p in evals]
    if evaluation and all(row["split"] == "train" for c in evaluation for row in c.manifest["counts"]):
        raise InputError(
            "no val or test samples to protect",
            ", ".join(map(str, evals)),
            "ingest them with --split all, or leave them out",
        )
    out = Path(out)
    made_by = {
        "command": "raw",
        "geozero": __version__,
        "inputs": [c.digest for c in corpora],
        "evals": [c.digest for c in evaluation],
        "options": {"near_radius": near_radius},
    }
    if finished(out, made_by) is None:
        each_once = {corpus.digest: corpus for corpus in (*evaluation, *corpora)}
        evaluated = Evaluated(each_once.values(), near_radius)
        with CorpusWriter(out, made_by) as writer, Progress("raw") as progress:
            joined = _Join(evaluated, writer, progress)
            for corpus in corpora:
                joined.add(corpus)
            shared = overlap_matrix(list(each_once.values()), near_radius)
            known = {name: KNOWN[name] for name in shared["sources"] if name in KNOWN}
            writer.notes |= {"inputs": [row for c in corpora for row in origins(c)], "leaks": joined.leaks()}
            writer.notes |= {"shared_pictures": shared, "known_leaks": known}
            if not joined.kept:
                raise InputError(
                    f"no training sample is left of {joined.seen}" + (f": {dict(joined.dropped)}" * bool(joined.seen)),
                    ", ".join(map(str, inputs)),
                    "ingest sources that have a train split and are not evaluated on",
                )
    manifest = Corpus(out).manifest
    if metrics is not None:
        metrics.parent.mkdir(parents=True, exist_ok=True)
        write_json(metrics, summary(manifest))
    if html is not None:
        inspect(out, html=html)
    return manifest


class _Join:
    """Adds one corpus after the other and remembers hashes of the samples it has added."""

    def __init__(self, evaluated: Evaluated, writer: CorpusWriter, progress: Progress) -> None:
        self._evaluated, self._writer, self._progress = evaluated, writer, progress
        self._contents = HashSet64()
        self._leaks: Counter[tuple[str, str, str]] = Counter()
        self.seen, self.kept, self.dropped = 0, 0, Counter[str]()

    def add(self, corpus: Corpus) -> None:
        asked = HashSet64()
        for image_id, _ in images_asked(corpus, evaluated=False):
            asked.add(image_id)
        near = self._evaluated.near((i, phash) for i, phash in image_hashes(corpus) if i in asked)
        leaks: dict[tuple[str, str], Leak] = {}
        needed = HashSet64()
        for image_id, image_key in images_asked(corpus, evaluated=False):
            leak = self._evaluated.leak_of(image_id, image_key) or near.get(image_id)
            if leak is None:
                needed.add(image_id)
            else:
                leaks[image_id, image_key] = leak
        refer_images(self._writer, corpus, needed)
        for batch in corpus.columns("samples", SCHEMA.names):
            rows = pa.Table.from_batches([batch])
            rows = rows.filter(pc.equal(rows.column("split"), "train"))
            self._take(rows, leaks)
            self.seen += len(rows)
            self._progress.step(f"{self.kept} of {self.seen} training samples kept")

    def leaks(self) -> list[dict[str, Any]]:
        """Number of samples of each source that were left out, by reason and by the set of the evaluation image."""
        ordered = sorted(self._leaks.items())
        return [{"source": s, "evaluated_in": e, "reason": reason, "n": n} for (s, e, reason), n in ordered]

    def _take(self, rows: pa.Table, leaks: Mapping[tuple[str, str], Leak]) -> None:
        columns = [rows.column(name).to_pylist() for name in _COMPARED]
        fresh: list[bool] = []
        for source, id_, image_id, image_key, question, answer in zip(*columns, strict=True):
            leak = leaks.get((image_id, image_key))
            bad = None
            if leak is not None:
                self._leaks[source, leak.partner.partition("/")[0], leak.reason] += 1
                bad = BadRecord(leak.reason, f"{image_key} is {leak.partner}")
            elif not self._contents.add("\x1f".join((image_id, question, answer))):
                bad = BadRecord("duplicate_sample", image_key)
            if bad is not None:
                self.dropped[bad.reason] += 1
                self._writer.reject(source, id_, bad)
            fresh.append(bad is None)
        kept = self._writer.add_table(rows.filter(pa.array(fresh, pa.bool_())))
        self.kept += sum(kept)
        if refused := len(kept) - sum(kept):
            self.dropped["duplicate_id"] += refused


def summary(manifest: dict[str, Any]) -> dict[str, Any]:
    """The counts of a corpus as flat metrics: samples, images, samples by task and source, rejects by reason."""
    by_task, by_source, by_reason = Counter[str](), Counter[str](), Counter[str]()
    for row in manifest["counts"]:
        by_task[row["task"]] += row["n"]
        by_source[row["source"]] += row["n"]
    for row in manifest["rejects"]:
        by_reason[row["reason"]] += row["n"]
    return {
        "n_samples": manifest["n_samples"],
        "n_images": manifest["n_images"],
        "n_rejects": manifest["n_rejects"],
        "tasks": dict(sorted(by_task.items())),
        "sources": dict(sorted(by_source.items())),
        "rejects": dict(sorted(by_reason.items())),
    }
