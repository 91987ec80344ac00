"""Tiny corpora for the tests of geozero.build: images by number, samples by key."""

from __future__ import annotations

from pathlib import Path

from fixtures import make_sources

from geozero.corpus.images import StoredImage, store
from geozero.corpus.sample import Sample, Split, sample_id
from geozero.corpus.store import Corpus, CorpusWriter


def stored(number: int, size: tuple[int, int] = (64, 64)) -> StoredImage:
    return store(make_sources.encoded(make_sources.make_image(number, size), "PNG"))


def sample(image: StoredImage, key: str, split: Split = "train", n: int = 0, source: str = "s") -> Sample:
    return Sample(
        id=sample_id(source, key, split, str(n)),
        task="vqa",
        source=source,
        split=split,
        image_id=image.image_id,
        image_key=key,
        question=f"How many of number {n}?",
        answer=str(n),
        width=image.width,
        height=image.height,
    )


def corpus(path: Path, *pairs: tuple[StoredImage, Sample]) -> Path:
    with CorpusWriter(path, {"command": "test"}) as writer:
        for image, one in pairs:
            writer.add_image(image, one.image_key)
            assert writer.add(one)
    return path


def pair(number: int, key: str, split: Split = "train", n: int = 0, source: str = "s") -> tuple[StoredImage, Sample]:
    image = stored(number)
    return image, sample(image, key, split, n, source)


def keyed(number: int, key: str, split: Split = "train") -> tuple[StoredImage, Sample]:
    """As `pair`, of the source that the key names."""
    return pair(number, key, split, source=key.partition("/")[0])


def drops(path: Path) -> list[tuple[str, str]]:
    return [(r["reason"], r["detail"]) for r in Corpus(path).rejects()]
