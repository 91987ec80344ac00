"""Read the authors' release formats back: GeoZero-Raw, -Instruct, -Hard and the evaluation JSON become a corpus.

Layouts as in `exporting`. What is assumed of the authors' own files: every tag but `[vqa]`, and that boxes in training
answers are 0–1000 (`boxes`). Items without a known tag belong to no task of ours and are refused. Known label noise:
a question for an area that ends "Give a response of yes or no." and is answered "1934m2" (`answer_contradicts`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geozero import __version__, tasks
from geozero.common.errors import BadRecord, InputError
from geozero.common.progress import Progress
from geozero.corpus.sample import Box, Sample, Split, TaskName, sample_id
from geozero.corpus.store import Corpus, CorpusWriter
from geozero.curation.ingest.checks import Checks
from geozero.curation.ingest.ingest import Ingest, KnownImage
from geozero.curation.release.exporting import FILES, IMAGE_MARK, IMAGES
from geozero.curation.reuse import finished
from geozero.sources import Record, Rejected, Source, Tree, open_tree
from geozero.sources.base import stem
from geozero.sources.readers.annotations import json_items, list_of
from geozero.sources.readers.conversations import HUMAN, MODEL, tagged
from geozero.sources.readers.image_files import ImageFiles
from geozero.tasks.boxes import Convention, from_model
from geozero.tasks.text import extract_answer

TAGS = {tag: name for name, task in tasks.TASKS.items() for tag in task.tags}
SOURCE = "released"  # source of images whose set is not one of our names
_OUR_NAME = re.compile(r"[a-z][a-z0-9_]*")  # the authors' sets are in capitals
_TOLD_APART = re.compile(r"~[0-9a-f]{8}$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item(Record):
    """A record whose question is used as it is.

    `numbers` are the boxes as written, `convention` what they mean; `id` the item's own, where it has one.
    """

    source: str
    id: str = ""
    numbers: tuple[Box, ...] = ()
    convention: Convention = "norm1000"


@dataclass(frozen=True, kw_only=True)
class Released(Source):
    """A release of GeoZero: one file of it with the images beside it, packed or not.

    Args:
        file: the name of the list to read; by default the only one there.
        boxes: what coordinates in training answers mean; in the evaluation JSON they are pixels, as published.
        task: of evaluation items without a tag; by default the end of the file's name says it.
        split: of evaluation items; the training files hold train.
    """

    tasks = tuple(tasks.TASKS)
    layout = "GeoZero-{Raw,Instruct,Hard}.json, images/<SET>-<nnnn>.tar; or <name>.json of conversations and images"

    name: str = SOURCE
    title: str = "a GeoZero release"
    licence: str = "unknown"
    citation: str = "arXiv 2511.22645"
    file: str = ""
    boxes: Convention = "norm1000"
    task: TaskName | None = None
    split: Split = "test"

    def find(self, tree: Tree) -> Tree:
        """The directory of the list.

        Raises:
            InputError: no list of that name, or several lists and no name.
        """
        lists = [n for n in tree.names(suffixes=(".json",)) if not self.file or n.rpartition("/")[2] == self.file]
        known = [n for n in lists if n.rpartition("/")[2] in FILES.values()]
        chosen = lists if self.file else known or lists
        if not known and not self.file and tree.names(suffixes=(".jsonl",)):
            raise InputError(
                "rows for another trainer, which lack ids, references and splits, are not read back",
                tree.where(),
                "keep the corpus, or export it without --format or with --format hf",
            )
        if len(chosen) != 1:
            what = f"no {self.file or 'JSON list'}" if not chosen else f"several lists: {', '.join(chosen[:4])}"
            raise InputError(what, tree.where(), "name one with --file" if chosen else "give the release's directory")
        home = tree.at(chosen[0].rpartition("/")[0])
        home.mount_archives()
        return home

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        lists = [n for n in tree.names(suffixes=(".json",)) if "/" not in n and (not self.file or n == self.file)]
        file = next((n for n in lists if n in FILES.values()), lists[0])
        images = ImageFiles(tree)
        for place, row in enumerate(json_items(tree, file)):
            key = f"{stem(file)}/{place}"
            try:
                yield (
                    self._evaluated(row, key, file, images) if _is_evaluation(row) else self._trained(row, key, images)
                )
            except BadRecord as bad:
                yield Rejected(key, bad.reason, bad.detail)

    def _trained(self, row: Any, key: str, images: ImageFiles) -> Item:
        spoken = {_verbatim(turn, "role"): _verbatim(turn, "content") for turn in list_of(row, "messages")}
        if "user" not in spoken or len(spoken) < len(row["messages"]):
            raise BadRecord("dialogue_not_a_task", f"{len(row['messages'])} turns")
        tag, question = tagged(spoken["user"])
        named = list_of(row, "task_type")[0] if row.get("task_type") else tag
        task = TAGS.get(str(named).lower())
        if task is None:
            raise BadRecord("task_unknown", str(named)[:40] or "no tag")
        answer = extract_answer(_verbatim(row, "solution") if "solution" in row else spoken.get("assistant", ""))
        return self._item(row, key, images, task, "train", question, answer, self.boxes)

    def _evaluated(self, row: Any, key: str, file: str, images: ImageFiles) -> Item:
        turns = list_of(row, "conversations")
        said = [_verbatim(turn, "value") for turn in turns if _verbatim(turn, "from") in (*HUMAN, *MODEL)]
        if len(said) != 2:
            raise BadRecord("dialogue_not_a_task", f"{len(said)} turns")
        tag, question = tagged(said[0])
        named = [name for name in tasks.TASKS if stem(file).endswith(name)]
        task = TAGS.get(tag) or self.task or (named[0] if named else None)
        if task is None:
            raise BadRecord("task_unknown", "say which with --task")
        if TAGS.get(tag) is None:
            question = said[0].replace(IMAGE_MARK, " ").strip()
        item = self._item(row, key, images, task, self.split, question, said[1].strip(), "pixels")
        if tasks.get(task).many_references and row.get("refs"):
            item = dataclasses.replace(item, references=tuple(str(text) for text in list_of(row, "refs")))
        own, kind = row.get("id"), row.get("question_type")
        return dataclasses.replace(
            item,
            id=own if isinstance(own, str) else "",
            question_type=kind if isinstance(kind, str) else None,
        )

    def _item(
        self,
        row: Any,
        key: str,
        files: ImageFiles,
        task: TaskName,
        split: Split,
        question: str,
        answer: str,
        convention: Convention,
    ) -> Item:
        images = list_of(row, "images")
        if len(images) != 1 or not isinstance(images[0], str):
            raise BadRecord("not_one_image", f"{len(images)} in `images`")
        numbers = tasks.get(task).read_boxes(answer)
        if numbers is None:
            raise BadRecord("box_missing", answer[:80])
        source, image_key = self._key(images[0])
        return Item(
            task=task,
            split=split,
            key=key,
            image=_image(images[0], files),
            image_key=image_key,
            text=question,
            answer="" if numbers else answer,
            references=(answer,) if tasks.get(task).many_references and answer else (),
            source=source,
            numbers=tuple(numbers),
            convention=convention,
        )

    def _key(self, path: str) -> tuple[str, str]:
        """Source and key of an image: our own if the path is from an export of ours, else below `released`."""
        directory, _, name = path.rpartition("/")
        key = f"{directory}/{stem(name)}" if directory else stem(name)
        first = key.partition("/")[0]
        if "/" in key and _OUR_NAME.fullmatch(first):
            return first, _TOLD_APART.sub("", key)
        return self.name, f"{self.name}/{key}"


def import_release(
    root: Path,
    out: Path,
    *,
    file: str = "",
    boxes: Convention = "norm1000",
    task: TaskName | None = None,
    split: Split = "test",
    checks: Checks | None = None,
) -> dict[str, Any]:
    """Read one list of a release as a corpus; returns at once where `out` already holds exactly that.

    Ids come from the set, the image's name, question and answer, because the training format has none; those of an
    evaluation JSON are kept. A repeated sample counts once.

    Args:
        root: the release's directory, or an archive of it.
        file, boxes, task, split: see `Released`.
        checks: the checks of items and images.

    Raises:
        InputError: no such list; nothing in it could be read.
    """
    source, checks = Released(file=file, boxes=boxes, task=task, split=split), checks or Checks()
    with open_tree(root) as tree:
        home = source.find(tree)
        made_by = {
            "command": "release import",
            "geozero": __version__,
            "source": source.name,
            "options": {**dataclasses.asdict(source), "checks": checks.options()},
            "tree": home.fingerprint(),
        }
        manifest = finished(out, made_by)
        if manifest is not None:
            return manifest
        with CorpusWriter(out, made_by) as writer, Progress(f"import {root.name}") as progress:
            _Import(source, home, writer, checks).run("all", progress)
    return Corpus(out).manifest


class _Import(Ingest):
    """Like ingest, but the question is used as it is."""

    def sample(self, record: Record, image: KnownImage) -> Sample:
        assert isinstance(record, Item)
        boxes = [self.inside(from_model(numbers, *image.frame, record.convention), image) for numbers in record.numbers]
        answer, box = tasks.get(record.task).truth(record.answer, record.references, boxes)
        return Sample(
            id=record.id or sample_id(record.source, record.image_key, record.task, record.text, answer),
            task=record.task,
            source=record.source,
            split=record.split,
            image_id=image.image_id,
            image_key=record.image_key,
            question=record.text,
            answer=answer,
            references=record.references,
            box=box,
            width=image.width,
            height=image.height,
            question_type=record.question_type,
        )


def _image(path: str, images: ImageFiles) -> str:
    """The member that a release means: the path itself or below `images/`, where its tar files lie, before others."""
    for member in (path, f"{IMAGES}/{path}"):
        if member in images:
            return member
    return images.find(path)


def _verbatim(item: Any, field: str) -> str:
    """A text with its line breaks, which are part of a question."""
    value = item.get(field) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise BadRecord("record_malformed", f"`{field}` is {type(value).__name__}, expected text")
    return value


def _is_evaluation(row: Any) -> bool:
    return isinstance(row, dict) and "conversations" in row
