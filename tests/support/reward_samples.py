"""Samples for the rewards."""

from __future__ import annotations

from geozero.corpus.sample import Sample


def make(task: str, identity: str = "a", **values: object) -> Sample:
    common = {"source": "s", "split": "train", "image_id": "i", "image_key": "k", "question": "q", "answer": "yes"}
    return Sample(identity, task, **(common | {"width": 100, "height": 100} | values))  # type: ignore[arg-type]
