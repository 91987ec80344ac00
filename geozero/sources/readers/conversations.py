"""Instruction data of other projects: dialogues, task tags, wrapped questions, and boxes written as text.

{"image": "P0003_0002.png", "conversations": [{"from": "human", "value": "<image>\\n[refer] the red ship"},
                                              {"from": "gpt", "value": "{<45><45><59><59>}"}]}
"""

from __future__ import annotations

import re
from typing import Any

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Box
from geozero.sources.readers.annotations import list_of, text_of
from geozero.sources.readers.boxes import four_numbers
from geozero.tasks.boxes import Convention, frame, from_model, parse_box

HUMAN, MODEL = ("human", "user"), ("gpt", "assistant")
_TAG = re.compile(r"^[\[{](\w+)[\]}]\s*")
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BRACED = re.compile(r"\{" + rf"<{_NUMBER}>" * 4 + r"\}")
# what InstructBLIP (whose templates VRSBench uses), GeoChat and VHM put around a question …
_AROUND = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"based on the image,? respond to this question with a short answer: *(?P<text>.+?)(?: *answer:)?",
        r"use the provided image to answer the question: *(?P<text>.+?)"
        r"(?: *provide your answer as short as possible[.:]?)?",
        r"given the image,? answer the following question(?: with no more than [\w-]+ words)?\. *(?P<text>.+)",
        r"what is the answer to the following question\? *(?P<text>.+)",
        r"the question (?P<text>.+?) can be answered using the image\. *a short answer is[.:]?",
        r"question: *(?P<text>.+?)(?: *(?:short )?answer:)?",
        r"q: *(?P<text>.+?)(?: *a:)?",
        r"(?P<text>.+?) *a short answer to the question is[.:]?",
        r"(?P<text>.+?) *(?:please )?answer the question using a single word or phrase\.?",
        r"(?P<text>.+?) *(?:please )?answer with (?:one|a single) word or (?:a )?(?:short )?phrase\.?",
        r"(?P<text>.+?) *(?:please )?answer in one word or a short phrase\.?",
    )
)
_STRANDED = re.compile(r"(?<=[?!])[ .]+$")  # the full stop of a template behind the question's own mark
# … and around an expression
_ASKED = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"(?:please )?(?:give|tell) me the location (?:of|for) (?P<text>.+?) *[.?]?",
        r"from this image, tell me the location of (?P<text>.+?) *[.?]?",
        r"could you tell me the location (?:of|for) (?P<text>.+?) *[.?]?",
        r"(?:where is|where can i locate) (?P<text>.+?) *\?",
        r"the location of (?P<text>.+?) is",
    )
)
_CLASSES = re.compile(r"classes\s*:\s*(.+?)\s*(?:\.\s|\.?$|\n)", re.IGNORECASE | re.DOTALL)


def turns(item: Any) -> list[tuple[str, str]]:
    """The dialogue of an item as pairs of what is asked and what is answered.

    Raises:
        BadRecord: no dialogue, or the two do not take turns.
    """
    spoken = list_of(item, "conversations")
    pairs = []
    for asked, answered in zip(spoken[::2], spoken[1::2], strict=False):
        if text_of(asked, "from") not in HUMAN or text_of(answered, "from") not in MODEL:
            raise BadRecord("dialogue_malformed", "question and answer do not alternate")
        pairs.append((text_of(asked, "value"), text_of(answered, "value")))
    if not pairs or len(spoken) % 2:
        raise BadRecord("dialogue_malformed", f"{len(spoken)} turns")
    return pairs


def tagged(text: str) -> tuple[str, str]:
    """The task's tag in lower case (empty where there is none) and the text after it, without `<image>`."""
    text = text.replace("<image>", " ").strip()
    matched = _TAG.match(text)
    return (matched[1].lower(), text[matched.end() :]) if matched else ("", text)


def bare_question(text: str) -> str:
    """A question without the image mark, the task's tag, and what other projects wrap around it."""
    bare = _unwrapped(" ".join(tagged(text)[1].split()), _AROUND)
    if len(bare) > 1 and bare[0] == bare[-1] == '"':
        bare = bare[1:-1].strip()
    return _STRANDED.sub("", bare)


def bare_expression(text: str) -> str:
    """What is to be located, without the image mark, the tag, `<p>…</p>`, and what asks for it."""
    text = " ".join(tagged(text)[1].split())
    _, opened, rest = text.partition("<p>")
    marked, closed, _ = rest.partition("</p>")
    return marked.strip() if opened and closed else _unwrapped(text, _ASKED)


def offered_classes(text: str) -> tuple[str, ...]:
    """The classes that a question offers after "classes:"; none where it offers none."""
    matched = _CLASSES.search(text)
    names = [name.strip(" .'\"") for name in matched[1].split(",")] if matched else []
    return tuple(dict.fromkeys(name for name in names if name))


def box_in(text: str, size: tuple[int, int], convention: Convention, clamp: bool) -> tuple[Box, bool]:
    """The one box that a text names, `{<x1><y1><x2><y2>}` or `[x1, y1, x2, y2]`, in pixels; whether it was clamped.

    Args:
        size: width and height of the image.
        convention: what the numbers mean.
        clamp: move a box that reaches outside the image inside it; else leave it to be refused.

    Raises:
        BadRecord: no box, or several.
    """
    found = {tuple(map(float, numbers)) for numbers in _BRACED.findall(text)}
    if len(found) > 1:
        raise BadRecord("several_boxes", text[:80])
    numbers = found.pop() if found else parse_box(text)
    if numbers is None:
        raise BadRecord("box_missing", text[:80])
    wide, high = frame(convention, *size)
    x1, y1, x2, y2 = four_numbers(numbers)
    inside = (min(max(x1, 0.0), wide), min(max(y1, 0.0), high), min(max(x2, 0.0), wide), min(max(y2, 0.0), high))
    moved = clamp and inside != (x1, y1, x2, y2)
    return from_model(inside if clamp else (x1, y1, x2, y2), *size, convention), moved


def _unwrapped(text: str, patterns: tuple[re.Pattern[str], ...]) -> str:
    for pattern in patterns:
        matched = pattern.fullmatch(text)
        if matched:
            text = matched["text"].strip()
    return text
