"""The authors' evaluation JSON: a list of conversations about images, read item by item, however broken they are.

One item, as the published script takes it (`refs` for captions alone, `id` and `question_type` may be missing):

    {"conversations": [{"from": "human", "value": "<image>Is there a ship?"}, {"from": "gpt", "value": "yes"}],
     "images": ["RSVQA-HR/8766.png"], "refs": ["a ship .", "one ship ."]}

The last turn, if it is the model's, is the label; the turns before it are the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geozero.common.errors import BadRecord, InputError
from geozero.common.lenient_json import as_text, read_list
from geozero.corpus.sample import TaskName
from geozero.tasks import SYSTEM_PROMPT, get

IMAGE_MARK = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
HINT = "pass the evaluation JSON: a list of {conversations, images}"


@dataclass(frozen=True, slots=True)
class EvalItem:
    """One question about one image."""

    number: int  # position in the file, from 0
    id: str  # the item's own, if the file's ids are all there and all different; else the number
    label: str | list[str]  # the truth, a list of sentences for captions; empty where the file has none
    question_type: str | None = None
    width: int = 0  # pixels, 0 where unknown
    height: int = 0
    image: str = ""  # path as it stands in the file
    image_hash: str = ""  # of its bytes, once they were read
    turns: tuple[tuple[str, str], ...] = ()  # (role, text), `<image>` once among them; empty where the item has a fault
    fault: str | None = None  # why the item cannot be answered

    @property
    def question(self) -> str:
        """The prompt's last turn without the image mark; empty where the item has a fault."""
        return self.turns[-1][1].replace(IMAGE_MARK, "").strip() if self.turns else ""

    def messages(self, system: bool) -> list[dict[str, str]]:
        """The chat turns; with `system` the published system prompt comes first, an item's own never does."""
        first = [("system", SYSTEM_PROMPT)] if system else []
        return [{"role": role, "content": text} for role, text in (*first, *self.turns)]


def read_items(path: Path, task: TaskName) -> list[EvalItem]:
    """Every item of the file, in its order; a broken one comes with its fault.

    Raises:
        InputError: the file is missing, is not JSON, holds no list, or an empty one.
    """
    rows = read_list(path, "evaluation", HINT)
    if not rows:
        raise InputError("the list is empty", str(path), HINT)
    return parse_items(rows, task)


def parse_items(rows: Sequence[Any], task: TaskName) -> list[EvalItem]:
    """As `read_items`, from rows already in memory."""
    items = [_item(number, row, task) for number, row in enumerate(rows)]
    ids = [_id(row) for row in rows]
    if not all(ids) or len(set(ids)) < len(ids):
        return items
    return [replace(item, id=name) for item, name in zip(items, ids, strict=True)]


def _item(number: int, row: Any, task: TaskName) -> EvalItem:
    item = EvalItem(number, str(number), _label(None, None, task))
    if not isinstance(row, dict):
        return replace(item, fault=f"item_malformed: {'null' if row is None else type(row).__name__}")
    kind, listed = row.get("question_type"), row.get("images")
    images = [name for name in (listed if isinstance(listed, list) else [listed]) if isinstance(name, str) and name]
    item = replace(
        item,
        label=_label(None, row.get("refs"), task),
        question_type=_text(kind) or None if isinstance(kind, str) else None,
        width=_side(row.get("width")),
        height=_side(row.get("height")),
        image=_text(images[0]) if images else "",  # kept in the record even if the question turns out broken
    )
    try:
        turns, answer = _turns(row.get("conversations"))
        item = replace(item, label=_label(answer, row.get("refs"), task))
        if len(images) != 1:
            raise BadRecord("not_one_image", f"{len(images)} in `images`")
        return replace(item, turns=_marked(turns))
    except BadRecord as bad:
        return replace(item, fault=str(bad))


def _turns(conversation: Any) -> tuple[list[tuple[str, str]], Any]:
    """The prompt's turns, and the answer that follows them (None where there is none)."""
    if not isinstance(conversation, list) or not conversation:
        raise BadRecord("item_malformed", "no `conversations`")
    listed: list[tuple[str, Any]] = []
    for turn in conversation:
        speaker = turn.get("from") if isinstance(turn, dict) else None
        if not isinstance(speaker, str) or speaker not in ROLES:
            raise BadRecord("item_malformed", f"a turn from {str(speaker)[:40]!r}")
        listed.append((ROLES[speaker], turn.get("value")))
    answer = listed.pop()[1] if listed[-1][0] == "assistant" else None
    turns = [(role, _text(text)) for role, text in listed if isinstance(text, str)]
    if len(turns) < len(listed) or not turns or turns[-1][0] != "user" or not turns[-1][1].strip():
        raise BadRecord("item_malformed", "no question before the answer")
    return turns, answer


def _marked(turns: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The turns without white space at their ends and around the one `<image>`, which comes first if there is none.

    The published script drops what stands before the mark, and shows no image without one; neither is of use here.
    """
    turns = [(role, IMAGE_MARK.join(part.strip() for part in text.split(IMAGE_MARK))) for role, text in turns]
    marks = sum(text.count(IMAGE_MARK) for _, text in turns)
    if marks > 1:
        raise BadRecord("not_one_image", f"{marks} marks {IMAGE_MARK}")
    if marks == 0:
        first = next(i for i, (role, _) in enumerate(turns) if role == "user")
        turns[first] = ("user", IMAGE_MARK + turns[first][1])
    return tuple(turns)


def _label(answer: Any, references: Any, task: TaskName) -> str | list[str]:
    """The truth as records hold it: always text, so that writing them cannot fail on a NaN or an object."""
    given = references if isinstance(references, list) else []
    if isinstance(answer, list) and answer and all(isinstance(value, str) for value in answer):  # each of them is right
        return [_text(value) for value in answer]
    text = _text(answer)
    if not text and isinstance(answer, list | dict) and answer and get(task).answers_are_boxes:
        text = _text(json.dumps(answer))
    return get(task).label(text, [_text(value) for value in given])


def _id(row: Any) -> str:
    value = row.get("id") if isinstance(row, dict) else None
    return _text(value) if isinstance(value, str | int) else ""


def _text(value: Any) -> str:
    """Text, or numbers as text, else ""; half a surrogate pair, which no file and no tokenizer takes, becomes `?`."""
    return (as_text(value) or "").encode("utf-8", "replace").decode()


def _side(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9 else 0
