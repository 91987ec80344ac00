"""What has arrived of a data set: does its adapter find the layout, and are there as many images as were published?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geozero.common.errors import InputError
from geozero.sources import Rejected, get, open_tree
from geozero.sources.catalogue import Entry


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the adapter sees: images and samples that its annotations name, or why it sees nothing."""

    images: int = 0
    samples: int = 0
    fault: str = ""


def look(source: str, directory: Path) -> Arrival:
    """Count what the adapter of a source finds in a directory; no image is decoded."""
    adapter = get(source)
    images: set[str] = set()
    samples = 0
    try:
        with open_tree(directory) as tree:
            found = adapter.find(tree)
            there = set(found.names())
            for record in adapter.records(found):
                if isinstance(record, Rejected):
                    continue
                samples += 1
                if record.image in there:
                    images.add(record.image)
    except InputError as error:
        return Arrival(fault=str(error))
    return Arrival(len(images), samples)


def judge(arrival: Arrival, entry: Entry) -> tuple[str, str]:
    """A state in one or two words, and the counts beside those that were published."""
    if arrival.fault:
        return "not found", arrival.fault
    pairs = [("images", arrival.images, entry.images), ("samples", arrival.samples, entry.samples)]
    texts = [f"{n:,} of {published:,} {what}" if published else f"{n:,} {what}" for what, n, published in pairs]
    short = any(published and n < published for _, n, published in pairs)
    return ("incomplete" if short else "complete" if entry.images or entry.samples else "found"), ", ".join(texts)
