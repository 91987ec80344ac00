"""Ingest: a data set becomes a corpus. Each picture is decoded once, each refused record listed with its reason."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

from geozero import __version__, tasks
from geozero.build.stage import Progress, finished
from geozero.corpus import Corpus, CorpusWriter
from geozero.errors import BadRecord, InputError
from geozero.images import MAX_PIXELS, StoredImage, store
from geozero.sample import Box, Sample, sample_id
from geozero.sources import Record, Rejected, Source, Tree, get, open_tree
from geozero.tasks.boxes import format_box

Choice = Literal["all", "train", "val", "test"]
BOX_TOLERANCE = 1.0  # pixels that an annotation may lie outside its picture (rounding, inclusive edges) [ours]
MAX_TEXT = 20_000  # characters of one text; the longest of the field, polygons, have about 8,000


def ingest(
    source: str | Source,
    root: Path,
    out: Path,
    split: Choice = "all",
    *,
    box_tolerance: float = BOX_TOLERANCE,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, Any]:
    """Read a data set and write it as a corpus; returns at once where `out` already holds exactly that.

    Args:
        source: a name in `geozero.sources.SOURCES`, or a Source with options of its own.
        root: the directory that holds the distributed tree, the tree itself, or an archive of it.
        split: which split to keep.
        box_tolerance: a box outside its picture by at most this many pixels is clamped, by more rejected.
        max_pixels: a larger picture is rejected.

    Returns:
        The corpus's manifest.

    Raises:
        InputError: unknown source or split; missing, empty or unreadable data set; nothing accepted; full disk.
    """
    if split not in get_args(Choice):
        raise InputError(f"unknown split '{split}'", mend=f"one of {', '.join(get_args(Choice))}")
    data_set = get(source) if isinstance(source, str) else source
    out = Path(out)
    with open_tree(root) as tree:
        home = data_set.find(tree)
        made_by = {
            "command": "ingest",
            "geozero": __version__,
            "source": data_set.name,
            "split": split,
            "options": {**dataclasses.asdict(data_set), "box_tolerance": box_tolerance, "max_pixels": max_pixels},
            "tree": home.fingerprint(),
        }
        manifest = finished(out, made_by)
        if manifest is not None:
            return manifest
        with CorpusWriter(out, made_by) as writer, Progress(f"ingest {data_set.name}") as progress:
            _Ingest(data_set, home, writer, box_tolerance, max_pixels).run(split, progress)
    return Corpus(out).manifest


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a decoded picture: nothing but hashes and sizes, so that memory stays small."""

    image_id: str
    width: int
    height: int


class _Ingest:
    """One run: reads pictures as records ask for them and remembers what it learned of each."""

    def __init__(
        self, data_set: Source, tree: Tree, writer: CorpusWriter, box_tolerance: float, max_pixels: int
    ) -> None:
        self._data_set, self._tree, self._writer = data_set, tree, writer
        self._box_tolerance, self._max_pixels = box_tolerance, max_pixels
        self._pictures: dict[str, Picture | BadRecord] = {}
        self._accepted = 0
        self._reasons: Counter[str] = Counter()

    def run(self, split: Choice, progress: Progress) -> None:
        for name, reason in self._tree.left_out():
            self._reject(name, BadRecord(f"member_{reason}", "left out of the data set's files"))
        for item in self._data_set.records(self._tree):
            if split not in ("all", item.split or split):
                continue
            if isinstance(item, Rejected):
                self._reject(item.key, BadRecord(item.reason, item.detail))
            else:
                self._take(item)
            progress.step(f"{self._accepted} samples, {self._reasons.total()} rejected")
        if not self._accepted:
            raise InputError(
                f"no sample of {self._data_set.title} could be made" + self._main_reason(),
                self._tree.where(),
                "check --root" if split == "all" else f"check --root, and that the set has a {split} split",
            )

    def _take(self, record: Record) -> None:
        try:
            check_text(record)
            picture, fresh = self._picture(record.image)
            sample = to_sample(self._data_set.name, record, picture, self._box_tolerance).validate()
        except BadRecord as bad:
            self._reject(record.key, bad)
            return
        if not self._writer.has_image(picture.image_id):
            # read again only where the picture's first record was refused
            self._writer.add_image(fresh or store(self._tree.read(record.image), self._max_pixels), record.image_key)
        if self._writer.add(sample):
            self._accepted += 1
        else:
            self._reasons["duplicate_id"] += 1

    def _picture(self, name: str) -> tuple[Picture, StoredImage | None]:
        """What is known of a picture, and its stored form if it was decoded just now.

        Raises:
            BadRecord: missing or not a sound picture; said again for each record that asks about it.
        """
        known = self._pictures.get(name)
        if isinstance(known, BadRecord):
            raise BadRecord(known.reason, known.detail)
        if known is not None:
            return known, None
        try:
            if name not in self._tree:
                raise BadRecord("image_missing", name)
            fresh = store(self._tree.read(name), self._max_pixels)
        except BadRecord as bad:
            bad = BadRecord(bad.reason.replace("file_", "image_"), bad.detail)
            self._pictures[name] = bad
            raise bad from None
        picture = Picture(fresh.image_id, fresh.width, fresh.height)
        self._pictures[name] = picture
        return picture, fresh

    def _reject(self, key: str, bad: BadRecord) -> None:
        self._reasons[bad.reason] += 1
        self._writer.reject(self._data_set.name, _storable(key), BadRecord(bad.reason, _storable(bad.detail)))

    def _main_reason(self) -> str:
        if not self._reasons:
            return ": it lists none"
        reason, count = self._reasons.most_common(1)[0]
        return f": {count} rejected as {reason}"


def to_sample(source: str, record: Record, picture: Picture, box_tolerance: float = BOX_TOLERANCE) -> Sample:
    """The sample of a record: id, question from the task's templates, box inside the picture.

    Raises:
        BadRecord: the box lies further outside the picture than `box_tolerance` pixels.
    """
    box = record.box and clamped(record.box, picture.width, picture.height, box_tolerance)
    answer = record.answer or (record.references[0] if record.references else "")
    if record.task == "grounding" and box is not None:
        answer = format_box(box)
    name = sample_id(source, record.key, record.task, record.text, answer, *record.references)
    return Sample(
        id=name,
        task=record.task,
        source=source,
        split=record.split,
        image_id=picture.image_id,
        image_key=record.image_key,
        question=tasks.get(record.task).question(name, record.text, record.classes),
        answer=answer,
        references=record.references,
        box=box,
        width=picture.width,
        height=picture.height,
        question_type=record.question_type,
        classes=record.classes,
    )


def clamped(box: Box, width: int, height: int, tolerance: float) -> Box:
    """The box moved inside the picture where it stands out by at most `tolerance` pixels; unchanged otherwise."""
    x1, y1, x2, y2 = box
    if min(x1, y1) < -tolerance or x2 > width + tolerance or y2 > height + tolerance:
        return box  # validation names the fault
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def check_text(record: Record) -> None:
    """Raise BadRecord for a question without text, or a text that cannot be stored as UTF-8 or is absurdly long."""
    if record.task in ("vqa", "grounding") and not record.text.strip():
        raise BadRecord("question_empty")
    texts = (record.key, record.image_key, record.text, record.answer, record.question_type or "")
    for text in (*texts, *record.references, *record.classes):
        if len(text) > MAX_TEXT:
            raise BadRecord("text_too_long", f"{len(text)} characters")
        if _storable(text) != text:
            raise BadRecord("text_not_unicode", ascii(text)[:80])


def _storable(text: str) -> str:
    """The text without lone surrogates, which JSON can name and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
