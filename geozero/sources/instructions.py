"""What the instruction sets share: a turn of a dialogue becomes a question, a caption, a class or a box."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Split, TaskName
from geozero.sources.base import Record, Rejected, Source
from geozero.sources.readers.class_folders import label_text
from geozero.sources.readers.conversations import bare_expression, bare_question, box_in, offered_classes
from geozero.sources.readers.image_files import ImageFiles
from geozero.tasks.boxes import Convention


@dataclass(frozen=True, slots=True)
class Turn:
    """What is asked of an image, as its set writes it: `asked` with wrappers, `answered` with boxes as text."""

    task: TaskName
    split: Split
    key: str
    image: str  # as the annotation names it
    image_key: str
    asked: str
    answered: str
    near: tuple[str, ...] = ()  # where the image is to be looked for
    question_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Instructions(Source):
    """Args:
    outside: what becomes of a box that reaches outside its image: `clamp` moves it inside and counts it,
        `refuse` leaves it to be rejected.
    boxes: what the coordinates of written boxes mean.
    """

    outside: Literal["clamp", "refuse"] = "clamp"
    boxes: Convention = "norm100"

    def ask(self, turns: Iterable[Turn | Rejected], images: ImageFiles) -> Iterator[Record | Rejected]:
        """The records of turns; one that cannot become a record costs itself."""
        for turn in turns:
            if isinstance(turn, Rejected):
                yield turn
                continue
            try:
                yield self.record(turn, images)
            except BadRecord as bad:
                yield Rejected(turn.key, bad.reason, bad.detail, turn.split)

    def record(self, turn: Turn, images: ImageFiles) -> Record:
        """The record of a turn.

        Raises:
            BadRecord: image, box or text missing.
        """
        image = images.find(turn.image, turn.near)
        text, answer, box, moved = "", "", None, False
        references: tuple[str, ...] = ()
        classes: tuple[str, ...] = ()
        if turn.task == "grounding":
            text = bare_expression(turn.asked)
            box, moved = box_in(turn.answered, images.size(image), self.boxes, self.outside == "clamp")
        elif turn.task == "caption":
            if not turn.answered:
                raise BadRecord("references_missing")
            references = (turn.answered,)
        elif turn.task == "scene_cls":
            classes = tuple(sorted({label_text(name) for name in offered_classes(turn.asked)}))
            answer = label_text(turn.answered.rstrip("."))
        else:
            text, answer = bare_question(turn.asked), turn.answered
        return Record(
            task=turn.task,
            split=turn.split,
            key=turn.key,
            image=image,
            image_key=turn.image_key,
            text=text,
            answer=answer,
            references=references,
            box=box,
            question_type=turn.question_type,
            classes=classes,
            repaired=("box_clamped",) * moved,
        )
