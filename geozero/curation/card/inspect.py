"""Inspect a corpus: counts, rejects with their reasons, and some samples with their images."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from geozero import tasks
from geozero.common.atomic import write_text
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import STORED_PIXELS, decode, thumbnail
from geozero.corpus.sample import Sample, stable_unit
from geozero.corpus.store import Corpus
from geozero.curation.card.data_card import facts, write_card

THUMBNAIL_SIDE = 256


def inspect(corpus: Path, n: int = 8, html: Path | None = None, card: Path | None = None) -> str:
    """Plain lines about a corpus: counts by source, task and split, rejects by reason, and `n` samples.

    The samples are spread over sources and tasks and are the same on every call.

    Args:
        html: also write a self-contained page with thumbnails and boxes, licences, rejects and leaks.
        card: also write that page's content as `README.md` into this directory, the images beside it.

    Raises:
        InputError: no finished corpus there; page or card cannot be written.
    """
    opened = Corpus(corpus)
    chosen = spread(opened.samples(), n)
    if html is not None:
        _write(html, page(opened, chosen))
    if card is not None:
        write_card(opened, chosen, card)
    manifest = opened.manifest
    samples, images, rejects = manifest["n_samples"], manifest["n_images"], manifest["n_rejects"]
    lines = [f"{opened.path}: {samples} samples, {images} images, {rejects} rejects"]
    lines += [f"{c['source']}\t{c['task']}\t{c['split']}\t{c['n']}" for c in manifest["counts"]]
    lines += [f"rejected\t{r['source']}\t{r['reason']}\t{r['n']}" for r in manifest["rejects"]]
    repaired = manifest.get("notes", {}).get("mended", {})
    lines += [f"fixed or odd, kept\t{what}\t{n}" for what, n in repaired.items()]
    lines += [
        f"sample\t{s.id}\t{s.source}\t{s.task}\t{s.split}\t{s.image_key} {s.width}x{s.height}"
        f"\t{_one_line(s.question)}\t→ {_one_line(s.answer)}"
        for s in chosen
    ]
    return "\n".join(lines)


def spread(samples: Iterable[Sample], n: int) -> list[Sample]:
    """`n` samples, spread evenly over (source, task), chosen by the stable hash of their ids."""
    best: dict[tuple[str, str], list[tuple[float, Sample]]] = {}
    for sample in samples:
        group = best.setdefault((sample.source, sample.task), [])
        group.append((stable_unit(sample.id, salt="inspect"), sample))
        if len(group) >= 4 * max(n, 1):  # never more than a handful in memory
            group.sort(key=lambda pair: pair[0])
            del group[n:]
    for group in best.values():
        group.sort(key=lambda pair: pair[0])
    groups = [best[key] for key in sorted(best)]
    turns = (group[i][1] for i in range(n) for group in groups if i < len(group))
    return [sample for sample, _ in zip(turns, range(n), strict=False)]


def page(corpus: Corpus, samples: list[Sample]) -> str:
    """A self-contained HTML page: the counts, the rejects with examples, and the samples with thumbnails and boxes."""
    environment = Environment(
        loader=PackageLoader("geozero.curation.card"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    examples: dict[tuple[str, str], str] = {}
    for reject in corpus.rejects():
        examples.setdefault((reject["source"], reject["reason"]), f"{reject['key']}: {reject['detail']}")
    return environment.get_template("inspect.html.j2").render(
        **facts(corpus), examples=examples, samples=[_shown(corpus, sample) for sample in samples]
    )


def _shown(corpus: Corpus, sample: Sample) -> dict[str, Any]:
    try:
        small = thumbnail(decode(corpus.image_bytes(sample.image_id), STORED_PIXELS), THUMBNAIL_SIDE)
        image = "data:image/jpeg;base64," + base64.b64encode(small).decode()
    except (BadRecord, KeyError) as error:
        raise InputError(f"image {sample.image_id}: {error}", str(corpus.path), "make the corpus again") from None
    boxes = [
        {
            "left": 100 * x1 / sample.width,
            "top": 100 * y1 / sample.height,
            "width": 100 * (x2 - x1) / sample.width,
            "height": 100 * (y2 - y1) / sample.height,
        }
        for x1, y1, x2, y2 in tasks.get(sample.task).true_boxes(sample)
    ]
    return {"sample": sample, "image": image, "boxes": boxes}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", str(path), "choose another --html") from None
