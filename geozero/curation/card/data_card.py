"""The data card: what a corpus is made of, what may be done with it, what was left out, what leaks."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import ImageDraw

from geozero import tasks
from geozero.common.atomic import write_text
from geozero.common.errors import InputError
from geozero.common.own_files import replacing_own
from geozero.corpus.images import STORED_PIXELS, decode
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus
from geozero.curation.card.licences import describe, strictest, terms
from geozero.sources import SOURCES

README, IMAGES = "README.md", "card"
IMAGE_SIDE = 320
BOX_COLOUR = (232, 89, 12)
_SAYS_NOTHING = "unknown"


def origins(corpus: Corpus) -> list[dict[str, Any]]:
    """Where a corpus's samples come from, one row per source: title, licence, citation, refusals and fixes.

    The manifest says so; where it does not, the sources of these names do.
    """
    made_by, notes = corpus.manifest["made_by"], corpus.manifest.get("notes", {})
    if "inputs" in notes:
        return list(notes["inputs"])
    names = sorted({row["source"] for row in corpus.manifest["counts"]})
    rows = []
    for name in names:
        declared = made_by.get("options", {}) if made_by.get("command") == "ingest" and len(names) == 1 else {}
        known = None if declared.get("licence") else SOURCES.get(name)
        row = {
            "source": name,
            "title": declared.get("title") or (known.title if known else name),
            "licence": declared.get("licence") or (known.licence if known else _SAYS_NOTHING),
            "citation": declared.get("citation") or (known.citation if known else ""),
        }
        refused = Counter[str]()
        for one in corpus.manifest["rejects"]:
            if one["source"] == name:
                refused[one["reason"]] += one["n"]
        own = {key: notes.get(key, {}) if len(names) == 1 else {} for key in ("mended", "published", "splits")}
        rows.append(row | {"refused": dict(refused)} | own)
    return rows


def facts(corpus: Corpus) -> dict[str, Any]:
    """Everything the card shows, from the manifest alone."""
    manifest = corpus.manifest
    notes, counts = manifest.get("notes", {}), manifest["counts"]
    rows = origins(corpus)
    held = {row["source"] for row in counts}
    by_source = Counter[str]()
    for row in counts:
        by_source[row["source"]] += row["n"]
    licences = [
        row
        | {
            "n": by_source[row["source"]],
            "redistribute": describe(terms(row["licence"]).redistribute),
            "commercial": describe(terms(row["licence"]).commercial),
        }
        for row in sorted(rows, key=lambda row: str(row["source"]))
        if row["source"] in held
    ]
    mixture = strictest(terms(row["licence"]) for row in licences)
    return {
        "name": corpus.path.name,
        "manifest": manifest,
        "splits": by_split(manifest),
        "licences": licences,
        "mixture": {"redistribute": describe(mixture.redistribute), "commercial": describe(mixture.commercial)},
        "unsure": [row["source"] for row in licences if row["redistribute"] != "yes" or row["commercial"] != "yes"],
        "inputs": rows if "inputs" in notes else [],
        "mended": [(row["source"], what, n) for row in rows for what, n in sorted(row["mended"].items())],
        "published": [
            (row["source"], what, *numbers) for row in rows for what, numbers in row.get("published", {}).items()
        ],
        "split_rules": [(row["source"], row["splits"]) for row in rows if row.get("splits")],
        "leaks": notes.get("leaks", []),
        "known_leaks": notes.get("known_leaks", {}),
        "matrix": _matrix(notes.get("shared_pictures")),
    }


def write_card(corpus: Corpus, samples: list[Sample], place: Path) -> list[Path]:
    """Write `README.md` and the images that it shows, boxes drawn, into `card/` beside it.

    Raises:
        InputError: it cannot be written there, or an image is broken.
    """
    try:
        with replacing_own(place / IMAGES, beside=(README,), option="--card") as images:
            images.mkdir()
            for number, sample in enumerate(samples):
                (images / f"{number}.jpg").write_bytes(drawn(corpus, sample))
            write_text(place / README, card_text(corpus, samples))
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", str(place), "choose another --card") from None
    return [place / README, place / IMAGES]


def card_text(corpus: Corpus, samples: Sequence[Sample] = ()) -> str:
    """The card as Markdown; the images of `samples` are expected in `card/`."""
    environment = Environment(
        loader=PackageLoader("geozero.curation.card"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = _cell
    return environment.get_template("card.md.j2").render(**facts(corpus), samples=samples, images=IMAGES)


def drawn(corpus: Corpus, sample: Sample) -> bytes:
    """JPEG bytes of a sample's image, scaled to show, its boxes drawn."""
    image = decode(corpus.image_bytes(sample.image_id), STORED_PIXELS)
    scale = IMAGE_SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    for box in tasks.get(sample.task).true_boxes(sample):
        x1, y1, x2, y2 = (v * scale for v in box)
        ImageDraw.Draw(image).rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=BOX_COLOUR, width=3)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def by_split(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per source and task, one column per split."""
    table: dict[tuple[str, str], Counter[str]] = {}
    for row in manifest["counts"]:
        table.setdefault((row["source"], row["task"]), Counter())[row["split"]] += row["n"]
    return [
        {"source": source, "task": task, "train": n["train"], "val": n["val"], "test": n["test"]}
        for (source, task), n in sorted(table.items())
    ]


def _matrix(shared: dict[str, Any] | None) -> dict[str, Any] | None:
    """The matrix of shared images as rows of cells: the number, its share of the row's images, and how they were
    found; sources that share nothing are left out and named."""
    if shared is None:
        return None
    names, ways = shared["sources"], ("bytes", "name", "looks")
    total = [[sum(shared[way][a][b] for way in ways) for b in range(len(names))] for a in range(len(names))]
    sharing = [a for a in range(len(names)) if any(total[a]) or any(row[a] for row in total)]
    rows = []
    for a in sharing:
        cells = []
        for b in sharing:
            found = ", ".join(f"{shared[way][a][b]} by {way}" for way in ways if shared[way][a][b])
            share = total[a][b] / max(1, shared["pictures"][a])
            cells.append({"n": shared["pictures"][a] if a == b else total[a][b], "share": share, "ways": found})
        rows.append({"source": names[a], "cells": cells})
    alone = [name for a, name in enumerate(names) if a not in sharing]
    return {"sources": [names[a] for a in sharing], "rows": rows, "alone": alone}


def _cell(text: object) -> str:
    """A text as one cell of a Markdown table."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return plain.replace("[", "\\[").replace("`", "\\`")
