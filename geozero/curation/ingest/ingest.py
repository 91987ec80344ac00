"""Ingest: a data set becomes a corpus. Each image is decoded once, each refused record listed with its reason."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from geozero import __version__, tasks
from geozero.common.errors import BadRecord, InputError
from geozero.common.progress import Progress
from geozero.corpus.images import StoredImage, store
from geozero.corpus.sample import Box, Sample, digest, sample_id
from geozero.corpus.store import Corpus, CorpusWriter
from geozero.curation.ingest.checks import Checks, storable
from geozero.curation.ingest.conflicts import Conflicts
from geozero.curation.ingest.decoded import DecodedImages
from geozero.curation.ingest.decoding import Begun, Decoded, Decoders, results
from geozero.curation.reuse import finished
from geozero.sources import Record, Rejected, Source, Tree, get, open_tree
from geozero.sources.base import Published

log = logging.getLogger(__name__)

Choice = Literal["all", "train", "val", "test"]
FEW = 5  # images or samples that may differ from the publication without a word [ours]
Images = Literal["copy", "link"]
AHEAD = 6  # batches that are decoded ahead
IMAGES_PER_BATCH = 32
_BYTES_PER_BATCH = 4 << 20  # … or once the encoded images reach this size
_BYTES_AHEAD = 64 << 20  # encoded bytes of the images that are decoded ahead, but for the last batch
_RECORDS_PER_BATCH = 2_048  # … or once so many records refer to them


def ingest(
    source: str | Source,
    root: Path,
    out: Path,
    split: Choice = "all",
    checks: Checks | None = None,
    follow: Iterable[Path] = (),
    images: Images = "copy",
) -> dict[str, Any]:
    """Read a data set and write it as a corpus; returns at once where `out` already holds exactly that.

    Args:
        source: a name in `geozero.sources.SOURCES`, or a Source with options of its own.
        root: the directory that holds the distributed tree, the tree itself, or an archive of it.
        split: which split to keep.
        checks: the checks of records and images.
        follow: directories into which symbolic links below `root` may lead.
        images: `link` leaves images that are stored as they are in the data set's files and uncompressed archives, and
            refers to them there; others are copied.

    Returns:
        The corpus's manifest. Its notes count what was fixed, or kept although odd (`mended`: box_clamped,
        answer_contradicts, answer_conflicts), name the rule of splits that no annotation gives (`splits`) and numbers
        that differ from the published ones (`published`: here, published), and the images (`pictures`: how many, width
        and height of the smallest and the largest).

    Raises:
        InputError: unknown source or split; missing, empty or unreadable data set; nothing accepted; full disk.
    """
    if split not in get_args(Choice):
        raise InputError(f"unknown split '{split}'", hint=f"one of {', '.join(get_args(Choice))}")
    data_set = get(source) if isinstance(source, str) else source
    checks = checks or Checks()
    out = Path(out)
    with open_tree(root, follow) as tree:
        home = data_set.find(tree)
        made_by = {
            "command": "ingest",
            "geozero": __version__,
            "source": data_set.name,
            "split": split,
            "options": {**dataclasses.asdict(data_set), "checks": checks.options()},
        }
        if images == "link":
            made_by["images"] = images
        files = home.names()  # before the data set opens archives that lie among them
        defaults = {f.name: f.default for f in dataclasses.fields(data_set) if f.default is not dataclasses.MISSING}
        if finished(out, made_by, "tree", defaults, verified=False) is not None:
            manifest = finished(out, made_by | {"tree": home.fingerprint(files)}, defaults=defaults)
            if manifest is not None:
                return manifest
        known = DecodedImages(out, checks.max_pixels, checks.reduction)
        with CorpusWriter(out, made_by) as writer, Progress(f"ingest {data_set.name}") as progress:
            run = Ingest(data_set, home, writer, checks, images, known)
            run.run(split, progress)
            writer.made_by["tree"] = home.fingerprint(files, run.hash_of)
    known.remove()
    return Corpus(out).manifest


@dataclasses.dataclass(frozen=True, slots=True)
class KnownImage:
    """A decoded image: only hashes and sizes, so that memory stays small."""

    image_id: str
    width: int
    height: int
    read: str = ""  # hash of the file's bytes, which may be stored as others
    reduced_from: tuple[int, int] | None = None

    @property
    def frame(self) -> tuple[int, int]:
        """The size in which annotations see it."""
        return self.reduced_from or (self.width, self.height)


@dataclasses.dataclass(slots=True)
class _Batch:
    """Records, and the images that no earlier record refers to."""

    items: list[Record | Rejected] = dataclasses.field(default_factory=list)
    images: dict[str, bytes] = dataclasses.field(default_factory=dict)
    size: int = 0  # bytes

    def is_full(self) -> bool:
        """Whether its images should be decoded now."""
        many = len(self.images) == IMAGES_PER_BATCH or len(self.items) == _RECORDS_PER_BATCH
        return many or self.size >= _BYTES_PER_BATCH


class Ingest:
    """One run: reads images as records refer to them and remembers the hashes and sizes of each."""

    def __init__(
        self,
        data_set: Source,
        tree: Tree,
        writer: CorpusWriter,
        checks: Checks,
        images: Images = "copy",
        decoded: DecodedImages | None = None,
    ) -> None:
        self._decoded_before = decoded
        self._data_set, self._tree, self._writer = data_set, tree, writer
        self.checks, self._links = checks, images == "link"
        self._known: dict[str, KnownImage | BadRecord] = {}
        self._coming: set[str] = set()
        self._decoded: dict[str, tuple[Decoded, bytes]] = {}
        self._accepted = 0
        self._classes: set[str] = set()
        self._reasons: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # the first detail of each reason
        self._repaired: Counter[str] = Counter()
        self._marks: list[str] = []  # fixes of the current record; counted once it is accepted
        self._conflicts = Conflicts()
        self._images: Counter[str] = Counter()
        self._sizes: list[tuple[int, int]] = []  # the smallest and the largest

    def run(self, split: Choice, progress: Progress) -> None:
        """Write all records of a split.

        Raises:
            InputError: none could be accepted.
        """
        for name, reason in self._tree.left_out():
            word, _, detail = reason.partition(": ")
            self._reject(name, BadRecord(f"member_{word}", detail or "left out of the data set's files"))
        needed = (item for item in self._data_set.records(self._tree) if split == "all" or item.split in (split, None))
        for item in self._ahead(needed):
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
        self._writer.notes["pictures"] = dict(sorted(self._images.items())) | {
            name: list(size) for name, size in zip(("smallest", "largest"), self._sizes, strict=True)
        }
        self._writer.notes |= self._tree.notes
        if split == "all" and (differing := self._differing()):
            self._writer.notes["published"] = differing
            both = ", ".join(f"{here:,} {what} of {n:,} published" for what, (here, n) in differing.items())
            packed = self._tree.unopened() if self._images["n"] < (self._data_set.expected().images or 0) else []
            more = f"; not looked into, because the set was found unpacked: {', '.join(packed[:4])}" if packed else ""
            log.warning("%s: %s%s", self._data_set.name, both, more)
        if self._repaired:
            self._writer.notes["mended"] = dict(sorted(self._repaired.items()))

    def _differing(self) -> dict[str, list[int]]:
        """What was counted and published of images, samples and classes, where they differ by more than a few."""
        here = Published(self._images["n"], self._accepted, len(self._classes))
        few = Published(FEW, FEW, 0)
        return {
            what: [getattr(here, what), n]
            for what, n in self._data_set.expected()._asdict().items()
            if n is not None and abs(getattr(here, what) - n) > getattr(few, what)
        }

    def sample(self, record: Record, image: KnownImage) -> Sample:
        """The sample of a record: id, question from the task's templates, boxes inside the image."""
        given = record.boxes if record.box is None else (record.box,)
        boxes = tuple(self.inside(self._in_frame(box, record, image), image) for box in given)
        return to_sample(self._data_set.name, record, image, boxes)

    def _in_frame(self, box: Box, record: Record, image: KnownImage) -> Box:
        """The box in pixels of its image, scaled if it was drawn on an image of another size.

        Raises:
            BadRecord: it was, and the checks refuse that, or the image was turned; the box is in shares, not in pixels.
        """
        if max(box) <= 1 < max(image.frame) and not all(map(float.is_integer, map(float, box))):
            raise BadRecord("box_in_shares", f"pixels expected, found {', '.join(f'{edge:g}' for edge in box)}")
        drawn_on = record.drawn_on or image.frame
        if drawn_on == image.frame:
            return box
        turned = drawn_on == image.frame[::-1]  # as before an EXIF orientation was applied: no scale puts that right
        if self.checks.resized == "refuse" or turned:
            sizes = [f"{wide}x{high}" for wide, high in (drawn_on, image.frame)]
            raise BadRecord("box_of_other_size", f"drawn on {sizes[0]} px, it has {sizes[1]}")
        self._mark("box_scaled")
        return scaled(box, drawn_on, image.frame)

    def inside(self, box: Box, image: KnownImage) -> Box:
        """A box in the frame of annotations as a box of the stored image, moved inside as the checks allow, counted."""
        moved = self.checks.clamped(box, *image.frame)
        if moved != box:
            self._mark("box_clamped")
        return scaled(moved, image.frame, (image.width, image.height))

    def _mark(self, what: str) -> None:
        """Note what was put right of the record in hand, once however many of its boxes needed it."""
        if what not in self._marks:
            self._marks.append(what)

    def hash_of(self, name: str) -> str | None:
        """The hash of an image's file if it was read, else None."""
        known = self._known.get(name)
        return known.read if isinstance(known, KnownImage) else None

    def _ahead(self, items: Iterable[Record | Rejected]) -> Iterator[Record | Rejected]:
        """The items in order, while the images of the next ones are decoded."""
        with Decoders(self.checks.max_pixels, self.checks.reduction) as decoders:
            batches, waiting = self._begun(items, decoders), deque[tuple[_Batch, Begun | list[Decoded]]]()
            while True:
                while len(waiting) < AHEAD and sum(batch.size for batch, _ in waiting) < _BYTES_AHEAD:
                    waiting.extend(more := list(itertools.islice(batches, 1)))
                    if not more:
                        break
                if not waiting:
                    return
                batch, begun = waiting.popleft()
                images = list(batch.images.values())
                decoded = begun if isinstance(begun, list) else results(begun, images)
                both = zip(decoded, images, strict=True)
                self._decoded = dict(zip(batch.images, both, strict=True))
                yield from batch.items

    def _begun(
        self, items: Iterable[Record | Rejected], decoders: Decoders
    ) -> Iterator[tuple[_Batch, Begun | list[Decoded]]]:
        batch = _Batch()
        for item in items:
            batch.items.append(self._begin(item, batch) if isinstance(item, Record) else item)
            if batch.is_full():
                yield batch, self._decode(batch, decoders)
                batch = _Batch()
        if batch.items:
            yield batch, self._decode(batch, decoders)

    def _decode(self, batch: _Batch, decoders: Decoders) -> Begun | list[Decoded]:
        images = list(batch.images.values())
        known = self._decoded_before.find(images) if self._decoded_before is not None else None
        return decoders.begin(images) if known is None else known

    def _begin(self, record: Record, batch: _Batch) -> Record | Rejected:
        """Check what needs no image, then read the image, to be decoded with its batch."""
        try:
            self.checks.check_text(record)
            if tasks.get(record.task).contradicts(record.text, record.answer):
                if self.checks.contradictions == "refuse":
                    raise BadRecord("answer_contradicts", f"{record.text[:80]}: {record.answer[:40]}")
                record = dataclasses.replace(record, repaired=(*record.repaired, "answer_contradicts"))
        except BadRecord as bad:
            return Rejected(record.key, bad.reason, bad.detail)
        name = record.image
        if name not in self._known and name not in self._coming:
            try:
                if name not in self._tree:
                    raise BadRecord("image_missing", name)
                data = self._tree.read(name)
            except BadRecord as bad:
                self._known[name] = BadRecord(bad.reason.replace("file_", "image_"), bad.detail)
            else:
                self._coming.add(name)
                batch.images[name] = data
                batch.size += len(data)
        return record

    def _take(self, record: Record) -> None:
        self._marks = list(record.repaired)
        try:
            known, fresh = self._image(record.image)
            if known.reduced_from:
                self._mark("image_reduced")
            sample = tasks.validate(self.sample(record, known))
            if self._conflicts.add(sample, record.text):
                if self.checks.conflicts == "refuse":
                    raise BadRecord("answer_conflicts", f"{record.text[:80]}: {sample.answer[:40]}, before otherwise")
                self._marks.append("answer_conflicts")
        except BadRecord as bad:
            self._reject(record.key, bad)
            return
        if not self._writer.has_image(known.image_id):
            # read again only if the image's first record was refused
            stored = fresh or store(self._tree.read(record.image), self.checks.max_pixels, self.checks.reduction)
            as_it_was = self._links and known.read == known.image_id
            self._writer.add_image(stored, record.image_key, self._tree.place(record.image) if as_it_was else None)
        if self._writer.add(sample):
            self._accepted += 1
            if tasks.get(sample.task).answers_are_classes:
                self._classes.add(sample.answer)
            self._repaired.update(self._marks)
        else:
            self._reasons["duplicate_id"] += 1

    def _image(self, name: str) -> tuple[KnownImage, StoredImage | None]:
        """Hashes and size of an image, and its stored form if it was decoded just now.

        Raises:
            BadRecord: missing or broken; raised again for each record that refers to it.
        """
        known = self._known.get(name)
        if isinstance(known, BadRecord):
            raise BadRecord(known.reason, known.detail)
        if known is not None:
            return known, None
        self._coming.remove(name)
        fresh, data = self._decoded.pop(name)
        if isinstance(fresh, BadRecord):
            self._known[name] = fresh
            raise BadRecord(fresh.reason, fresh.detail)  # raised itself, it would keep this frame, and with it `data`
        read = fresh.image_id if fresh.data is data else digest(data)
        image = self._known[name] = KnownImage(fresh.image_id, fresh.width, fresh.height, read, fresh.original)
        self._images["n"] += 1
        if fresh.original:
            self._images["reduced"] += 1
        size = (fresh.width, fresh.height)
        self._sizes = [min([*self._sizes, size], key=_area), max([*self._sizes, size], key=_area)]
        return image, fresh

    def _reject(self, key: str, bad: BadRecord) -> None:
        self._reasons[bad.reason] += 1
        self._first.setdefault(bad.reason, bad.detail)
        self._writer.reject(self._data_set.name, storable(key), BadRecord(bad.reason, storable(bad.detail)))

    def _main_reason(self) -> str:
        if not self._reasons:
            return ": it lists none"
        reason, count = self._reasons.most_common(1)[0]
        detail = self._first.get(reason, "") if reason == "image_unreadable" else ""  # says what the files are instead
        return f": {count} rejected as {reason}" + (f" ({detail[:120]})" if detail else "")


def to_sample(source: str, record: Record, image: KnownImage, boxes: Sequence[Box] = ()) -> Sample:
    """The sample of a record and its boxes inside the image: id, question from the task's templates."""
    task = tasks.get(record.task)
    answer, box = task.truth(record.answer, record.references, boxes)
    name = sample_id(source, record.key, record.task, record.text, answer, *record.references)
    return Sample(
        id=name,
        task=record.task,
        source=source,
        split=record.split,
        image_id=image.image_id,
        image_key=record.image_key,
        question=task.question(name, record.text, record.classes),
        answer=answer,
        references=record.references,
        box=box,
        width=image.width,
        height=image.height,
        question_type=record.question_type,
        classes=record.classes,
    )


def scaled(box: Box, frame: tuple[int, int], to: tuple[int, int]) -> Box:
    """A box of an image of size `frame` in the same image of another size; one inside stays inside."""
    if frame == to:
        return box
    across, down = to[0] / frame[0], to[1] / frame[1]
    x1, y1, x2, y2 = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    return x1, y1, to[0] if box[2] == frame[0] else x2, to[1] if box[3] == frame[1] else y2


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
